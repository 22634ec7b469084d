"""`mr collections`: the queues and trees that the handlers of a workflow share, from outside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
import msgspec

from mr.cli.command import Noun
from mr.cli.exits import USAGE, Refused
from mr.cli.names import collection_argument
from mr.cli.output import (
    ask,
    did,
    document,
    echo_json,
    json_lines,
    json_option,
    next_step,
    plain_option,
    shortened,
    table,
    yes_option,
)
from mr.cli.session import opened
from mr.rules import keys

if TYPE_CHECKING:
    from mr.collections.shared_queue import SharedQueue
    from mr.collections.shared_tree import SharedTree
    from mr.services.collections import Collections

SHOWN = 100
VALUE_COLUMNS = 80
AT_ONCE = 64


class Place(msgspec.Struct, frozen=True):
    """`WORKFLOW`, `WORKFLOW:queues/NAME/NUMBER`, `WORKFLOW:trees/NAME/PATH`, or the beginning of one."""

    text: str
    workflow: str
    kind: str = ""
    name: str = ""
    path: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """The number of an item. Raises: Refused if it is none."""
        if len(self.path) > 1 or not self.path[0].isdecimal():
            raise Refused(f"{self.text}: expected the number of an item, got: {'/'.join(self.path)}", exit_code=USAGE)
        return int(self.path[0])


@click.group(
    "collections",
    cls=Noun,
    examples=[
        "mr collections ls words",
        "mr collections get words:trees/totals/a",
        "mr collections rm words:queues/seen",
    ],
)
def collections() -> None:
    """Queues and trees that the handlers of a workflow share.

    A place is WORKFLOW:queues/NAME/NUMBER or WORKFLOW:trees/NAME/PATH; names with a slash in them are percent-encoded.
    """


@collections.command(
    "ls",
    examples=[
        "mr collections ls words",
        "mr collections ls words:queues/seen --after 99",
        "mr collections ls words:trees/t/a",
    ],
)
@collection_argument
@click.option("--after", default=-1, show_default="the beginning", help="Items of a queue behind this number.")
@click.option("--limit", default=SHOWN, show_default=True, help="How many to show at most.")
@json_option
@plain_option
def ls(place: str, after: int, limit: int, as_json: bool, plain: bool) -> None:
    """List the collections of a workflow, the items of a queue, or the children of a node with their values."""
    with _reached(place) as (found, at):
        if not at.name:
            _all(found, at, as_json, plain)
        elif at.kind == "queues":
            _items(found.queue(at.workflow, at.name), at, after, limit, as_json, plain)
        else:
            _children(found.tree(at.workflow, at.name).at(*at.path), at, limit, as_json, plain)


def _all(found: Collections, at: Place, as_json: bool, plain: bool) -> None:
    listed = [one for one in found.listing(at.workflow) if at.kind in ("", one.kind)]
    if as_json:
        document(listed)
        return
    table(["kind", "name", "values"], [[one.kind, one.name, str(one.count)] for one in listed], plain=plain)
    if listed:
        next_step(f"mr collections ls {at.workflow}:{listed[0].kind}/{listed[0].name}", told=False)


def _items(queue: SharedQueue, at: Place, after: int, limit: int, as_json: bool, plain: bool) -> None:
    after = at.number - 1 if at.path else after
    shown = list(islice(queue.items(after=after, at_once=AT_ONCE), 1 if at.path else limit))
    if as_json:
        document([{"number": number, "value": msgspec.Raw(value)} for number, value in shown])
    else:
        table(["number", "bytes", "value"], [[str(n), str(len(v)), _short(v, plain)] for n, v in shown], plain=plain)
    if not at.path and len(shown) == limit:
        next_step(f"mr collections ls {at.text} --after {shown[-1][0]}", told=False)


def _children(tree: SharedTree, at: Place, limit: int, as_json: bool, plain: bool) -> None:
    shown = [(name, tree.get(name)) for name in islice(tree.children(), limit)]
    if as_json:
        document([{"name": n, "has_value": v is not None, "value": msgspec.Raw(v or b"null")} for n, v in shown])
        return
    rows = [
        [name, "" if value is None else str(len(value)), "" if value is None else _short(value, plain)]
        for name, value in shown
    ]
    table(["name", "bytes", "value"], rows, plain=plain)
    if shown:
        next_step(f"mr collections ls {at.text.rstrip('/')}/{keys.encoded(shown[0][0])}", told=False)


def _short(value: bytes, plain: bool) -> str:
    text = value.decode("utf-8", "replace")
    return text if plain else shortened(text, VALUE_COLUMNS)


@collections.command(
    "get", examples=["mr collections get words:queues/seen/3", "mr collections get -r words:trees/totals --json"]
)
@collection_argument
@click.option("-r", "--recursive", is_flag=True, help="All that is in it: [NUMBER, VALUE] or [PATH, VALUE] a line.")
@json_option
def get(place: str, recursive: bool, as_json: bool) -> None:
    """Print the value of an item or of a node, as JSON."""
    with _reached(place) as (found, at):
        if not at.name:
            raise Refused(f"{place} is no collection", hint=f"which there are: mr collections ls {at.workflow}")
        if recursive:
            _print_all(found, at, as_json)
            return
        if at.kind == "queues" and not at.path:
            raise Refused(f"{place} is a queue", hint="add -r to print all that is in it", exit_code=USAGE)
        if at.kind == "queues":
            value = found.queue(at.workflow, at.name).get(at.number)
        else:
            value = found.tree(at.workflow, at.name).get(*at.path)
        if value is None:
            raise Refused(f"there is no value at {place}", hint=f"what there is: mr collections ls {at.workflow}")
        echo_json(value)


def _print_all(found: Collections, at: Place, as_json: bool) -> None:
    many: Iterator[tuple[Any, bytes]]
    if at.kind == "queues":
        many = found.queue(at.workflow, at.name).items(after=at.number - 1 if at.path else -1, at_once=AT_ONCE)
    else:
        many = found.tree(at.workflow, at.name).at(*at.path).walk(at_once=AT_ONCE)
    pairs = ((where, msgspec.Raw(value)) for where, value in many)
    if as_json:
        document(list(pairs))
    else:
        json_lines(pairs)


@collections.command(
    "rm", examples=["mr collections rm words:queues/seen", "mr collections rm words:trees/totals/a --yes"]
)
@collection_argument
@yes_option
def rm(place: str, yes: bool) -> None:
    """Remove a collection, or a node of a tree with all that is below it."""
    with _reached(place) as (found, at):
        if not at.name:
            raise Refused(f"{place} is no collection", hint="one at a time, or all of them with their workflow")
        if at.kind == "queues" and at.path:
            raise Refused("items are not taken out of a queue one by one", hint="it goes as a whole", exit_code=USAGE)
        ask(f"Remove {place} and all that is in it?", yes)
        if at.kind == "queues":
            found.queue(at.workflow, at.name).clear()
        else:
            found.tree(at.workflow, at.name).remove(*at.path)
    did(f"removed {place}")
    next_step(f"mr collections ls {at.workflow}", told=False)


@contextmanager
def _reached(text: str) -> Iterator[tuple[Collections, Place]]:
    """The collections, and the place that a text names.

    Raises: UnknownWorkflow; InvalidName; Refused for what is neither queues nor trees.
    """
    end = next((index for index, character in enumerate(text) if character in ":/"), len(text))
    behind = [keys.decoded(part) for part in text[end + 1 :].split("/") if part]
    kind, name, *path = (*behind, "", "")[: max(2, len(behind))]
    at = Place(text, text[:end], kind, name, tuple(path))
    if kind not in ("", "queues", "trees"):
        raise Refused(f"{text}: expected queues/NAME or trees/NAME behind the workflow, got: {kind}", exit_code=USAGE)
    with opened() as parts:
        parts.registry.current(at.workflow)
        yield parts.collections, at
