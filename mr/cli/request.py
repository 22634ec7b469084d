"""`mr request`: look at accepted requests, wait for them, end them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import click
import msgspec

from mr.cli.command import Noun
from mr.cli.drawing import elapsed, headline, seconds_between
from mr.cli.dump import dumped, kept
from mr.cli.live import follow, timeout_option
from mr.cli.names import any_workflow_argument, request_argument, requests_argument
from mr.cli.output import (
    age,
    ask,
    did,
    document,
    duration,
    fields,
    json_lines,
    json_option,
    lines,
    next_step,
    plain_option,
    say,
    short_time,
    table,
    yes_option,
)
from mr.cli.results import tell, tell_error, where
from mr.cli.session import opened
from mr.clock import stamp
from mr.errors import RequestEnded, ResultTimeout
from mr.model.request import Request, RequestState


@click.group("request", cls=Noun, examples=["mr request list words", "mr request wait 3f2a"])
def request() -> None:
    """Accepted postings of jobs.

    REQUEST is an id, its first digits (4 or more), or WORKFLOW/ID.
    """


def _record(r: str, found: Request) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(found)
    return {"id": r, **built}


@request.command("list", examples=["mr request list", "mr request list words --state failed --json"])
@any_workflow_argument
@click.option("--state", type=click.Choice([state.value for state in RequestState]), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@json_option
@plain_option
def list_(workflow: str | None, state: str | None, limit: int, as_json: bool, plain: bool) -> None:
    """List the requests of one workflow, or of all; the newest last."""
    with opened() as parts:
        if workflow is not None:
            parts.registry.get_workflow(workflow)
        workflows = [workflow] if workflow is not None else list(parts.registry.list_workflows())
        most = limit if state is None else 1_000_000
        found = [pair for w in workflows for pair in parts.results.requests(w, limit=most)]
        pinned = frozenset[str]().union(*(parts.pins.of(w) for w in workflows))
    wanted = [(r, one) for r, one in found if state is None or one.state.value == state]
    newest = sorted(wanted, key=lambda pair: pair[1].created_at)[-limit:]
    if as_json:
        document([{**_record(r, one), "is_pinned": r in pinned} for r, one in newest])
        return
    now = stamp(datetime.now(UTC))
    rows = [
        [
            r if plain else r[:12],
            f"{one.workflow_name}/{one.job_name}",
            one.state.value,
            short_time(one.created_at),
            age(seconds_between(one.created_at, now)),
            duration(elapsed(one)),
            "pinned" if r in pinned else "",
        ]
        for r, one in newest
    ]
    table(["id", "job", "state", "created (utc)", "age", "took", ""], rows, plain=plain)
    if newest:
        next_step(f"mr tree {newest[-1][0][:12]}", told=False)
    else:
        next_step("mr run WORKFLOW/JOB key=value", told=False)


@request.command("show", examples=["mr request show 3f2a", "mr request show words/3f2a --json"])
@request_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the record of a request."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        found = parts.results.request(w, r)
        pin = parts.pins.find(w, r)
    if as_json:
        document({**_record(r, found), "pin": pin})
        return
    removed = short_time(found.due_at)
    if pin is not None:
        removed = f"never: pinned {short_time(pin.at)}" + (f" by {pin.by}" if pin.by else "")
    fields(
        [
            ("id", r),
            ("job", f"{w}/{found.job_name}"),
            ("state", found.state.value),
            ("created", short_time(found.created_at)),
            ("finished", short_time(found.finished_at)),
            ("took" if found.finished_at else "runs for", duration(elapsed(found))),
            *([("written", where(found.written))] if found.written is not None else []),
            ("removed after", removed),
            *([("note", pin.note)] if pin is not None and pin.note else []),
            ("definitions", found.set),
            ("life", str(found.epoch)),
        ]
    )
    if found.error:
        tell_error(r, found)
    else:
        next_step(f"mr tree {r[:12]}", told=False)


@request.command("wait", examples=["mr request wait 3f2a", "mr request wait 3f2a --timeout 60"])
@request_argument
@timeout_option
def wait(name: str, timeout: float | None) -> int:
    """Wait for the end of a request and print its result, as `mr run` does."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        return tell(parts, w, r, follow(parts, w, r, timeout))


@request.command("result", examples=["mr request result 3f2a > result.json"])
@request_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON document, as always.")
def result(name: str, as_json: bool) -> int:
    """Print the result of a request that is over, as {"pairs": [[key, value], …]}."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        found = parts.results.request(w, r)
        if not found.state.is_final:
            raise ResultTimeout(f"request {r} is still {found.state.value}", hint=f"wait for it: mr request wait {r}")
        return tell(parts, w, r, found)


@request.command("cancel", examples=["mr request cancel 3f2a"])
@request_argument
@json_option
def cancel(name: str, as_json: bool) -> None:
    """End a running request; what runs for it is killed."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        ended = parts.submission.cancel(w, r)
    if as_json:
        document(_record(r, ended))
    did(headline(ended, w, r))
    next_step(f"mr request resume {r[:12]}")


@request.command("resume", examples=["mr request resume 3f2a"])
@request_argument
@json_option
def resume(name: str, as_json: bool) -> None:
    """Run again what failed or never ran of a failed or cancelled request, with the handlers it began with."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        again = parts.submission.resume(w, r)
    if as_json:
        document(_record(r, again))
    did(headline(again, w, r))
    next_step(f"mr request wait {r[:12]}")


@request.command(
    "dump",
    examples=["mr request dump 3f2a", "mr request dump words/3f2a --all", "mr request dump 3f2a --json | jq .path"],
)
@request_argument
@click.option("--all", "everything", is_flag=True, help="All data, however much.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: the request, then its invocations.")
def dump(name: str, everything: bool, as_json: bool) -> None:
    """Print every invocation of a request with the data that went in and came out, and why it failed."""
    from mr.services.excerpts import PAIRS

    with opened() as parts:
        w, r = parts.tracing.find(name)
        tree, visits = parts.dump.of(w, r, limit=None if everything else PAIRS)
        if as_json:
            json_lines(chain([_record(r, tree.request)], visits))
            return
        lines(dumped(tree, visits))
    next_step(f"mr graph {r[:12]} --format png", told=False)


@request.command("sessions", examples=["mr request sessions 3f2a", "mr request sessions 3f2a --json"])
@request_argument
@json_option
def sessions(name: str, as_json: bool) -> None:
    """Print what mappers kept for their reducers, where it stands in the store.

    A mapper whose own reduce came at the end of its run, as a rule one that did not map, leaves none.
    """
    with opened() as parts:
        w, r = parts.tracing.find(name)
        found = parts.sessions.of(w, r)
    if as_json:
        document(found)
        return
    lines(kept(found))
    if not found:
        say("no mapper of this request has left a session")
    next_step(f"mr request dump {r[:12]}", told=False)


@request.command("pin", examples=["mr request pin 3f2a", "mr request pin 3f2a --note 'the figures of May'"])
@request_argument
@click.option("--note", default="", help="Why, for whoever finds it later.")
@json_option
def pin(name: str, note: str, as_json: bool) -> None:
    """Keep a request, running or over, from being cleaned away."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        standing = parts.pins.pin(w, r, by=_somebody(), note=note)
    if as_json:
        document({"id": r, "workflow_name": w, "pin": standing})
    did(f"pinned request {w}/{r}")
    next_step(f"mr request unpin {r[:12]}")


def _somebody() -> str:
    """Who pins, as far as the machine knows."""
    import getpass
    import socket

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name, as in some containers
        return socket.gethostname()


@request.command("unpin", examples=["mr request unpin 3f2a"])
@request_argument
@json_option
def unpin(name: str, as_json: bool) -> None:
    """Let a pinned request be cleaned away when its time comes; where that is over, at once."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        found = parts.pins.unpin(w, r)
    if as_json:
        document({**_record(r, found), "pin": None})
    did(f"unpinned request {w}/{r}")
    if found.due_at is not None:
        is_over = found.due_at <= stamp(datetime.now(UTC))
        say("  its time is over: it goes now" if is_over else f"  it is removed after {short_time(found.due_at)}")


@request.command("rm", examples=["mr request rm 3f2a --yes", "mr request rm 3f2a 77c0 --force --yes"])
@requests_argument
@click.option("--force", is_flag=True, help="Also what runs, which is cancelled first, and what is pinned.")
@yes_option
def rm(names: tuple[str, ...], force: bool, yes: bool) -> None:
    """Remove requests that are over, at once, with their results and everything below them."""
    with opened() as parts:
        found = [parts.tracing.find(name) for name in names]
        what = f"request {'/'.join(found[0])}" if len(found) == 1 else f"{len(found)} requests"
        ask(f"Remove {what}, with what came out{', even if it runs or is pinned' if force else ''}?", yes)
        for w, r in dict.fromkeys(found):
            if force and not parts.results.request(w, r).state.is_final:
                with suppress(RequestEnded):
                    parts.submission.cancel(w, r, reason="removed by a user")
            parts.cleaner.remove(w, r, pinned=force)
            did(f"removed request {w}/{r}")
    next_step("mr request list", told=False)
