"""`mr run`: submit a job, wait, and print its result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mr import codec
from mr.cli.command import Command
from mr.cli.live import follow, timeout_option
from mr.cli.names import job_path_argument
from mr.cli.output import echo, next_step, say
from mr.cli.results import tell
from mr.cli.session import opened
from mr.errors import InvalidArguments, InvalidDocument
from mr.rules import keys

if TYPE_CHECKING:
    from mr.wiring import Parts


@click.command(
    "run",
    cls=Command,
    examples=[
        "mr run words/wordcount a='to be or not to be' b='that is the question'",
        "mr run samples/count root=/usr/lib/python3.11 pattern='**/*.py' chunk_kb=512 > counts.json",
        "mr run words/wordcount --arguments arguments.json --detach",
    ],
)
@job_path_argument
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--arguments", "file", metavar="FILE", help="A JSON object with the arguments; - for stdin.")
@click.option("--detach", "-d", is_flag=True, help="Do not wait: print the id of the request.")
@timeout_option
def run(job: str, pairs: tuple[str, ...], file: str | None, detach: bool, timeout: float | None) -> int | None:
    """Submit a job, wait for its end, and print its result as {"pairs": [[key, value], …]}.

    A value that is JSON is taken as JSON, everything else as text. Each becomes one (key, value) pair for the first
    mapper. Ctrl-C leaves the request running.
    """
    workflow, slash, name = job.partition("/")
    if not slash or not workflow or not name:
        raise click.UsageError(f"expected WORKFLOW/JOB, got: {job}")
    if file is not None and pairs:
        raise click.UsageError("give key=value, or --arguments, not both")
    arguments = read_arguments(file) if file is not None else parse_arguments(pairs)
    with opened() as parts:
        accepted = parts.submission.submit(workflow, name, arguments)
        r = accepted.request_id
        warn(parts, workflow, name)
        if detach:
            echo(r)
            next_step(f"mr request wait {r[:12]}")
            return None
        return tell(parts, workflow, r, follow(parts, workflow, r, timeout))


def parse_arguments(pairs: tuple[str, ...]) -> dict[str, Any]:
    """The arguments from `key=value` words.

    Raises: UsageError for a word without `=` or that is no text, or a key that comes twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise click.UsageError(f"expected key=value, got: {pair}")
        if key in found:
            raise click.UsageError(f"the key {key} is given twice")
        if any("\ud800" <= character <= "\udfff" for character in pair):
            raise click.UsageError(f"expected text in UTF-8, got: {pair}")
        found[key] = _value(text)
    return found


def _value(text: str) -> Any:
    try:
        return codec.loads(text.encode("utf-8", "surrogateescape"))
    except InvalidDocument:
        return text


def read_arguments(file: str) -> dict[str, Any]:
    """The arguments from a file, or stdin for `-`.

    Raises: UsageError if it cannot be read; InvalidDocument; InvalidArguments if it is no JSON object.
    """
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from error
    place = "stdin" if file == "-" else file
    hint = 'an object such as {"a": "some text", "b": [1, 2]}'
    try:
        value = codec.loads(data)
    except InvalidDocument as error:
        raise InvalidDocument(f"{place}: {error}", hint=hint) from error
    if not isinstance(value, dict):
        raise InvalidArguments(
            f"{place}: expected a JSON object with the arguments, got: {type(value).__name__}", hint=hint
        )
    return value


def warn(parts: Parts, workflow: str, job: str) -> None:
    """Say so when nobody is there to do the work, or a part of it."""
    if not parts.store.count(keys.WORKERS):
        say("mr: no worker is running; the request waits for one: mr worker (or mr dev)")
        return
    for one in parts.fleet.place(workflow, job).unplaced:
        steps = f"step{'s' if len(one.steps) > 1 else ''} {', '.join(one.steps)}"
        say(f"mr: {one}; {steps} will wait for: {one.help}")
