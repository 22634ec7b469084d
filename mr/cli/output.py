"""What commands write: results to stdout, talk to stderr.

A result is lines for people, tab-separated lines (`--plain`), or one JSON document (`--json`).

The hard part is that handlers, clients and files choose much of this text, and a terminal obeys control characters. So
all of it leaves through `echo`, which shows them as escapes (`\\x1b`) and lets through no colours but those that
`style` has put there. These carry a mark that is drawn anew in each process, so that no text can bring it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import click
import msgspec

F = TypeVar("F", bound=Callable[..., Any])

LINES_AT_ONCE = 1000
CELL_MAX = 48

# What drives a terminal: C0 but tab and line end, DEL, C1, what turns the direction of writing; and lone surrogates.
_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
# The same in UTF-8, where it can stand raw in a JSON document.
_CONTROLS_IN_JSON = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")
_OURS = f"\ufdd0{os.urandom(8).hex()}\ufdd1"  # in place of ESC in our own colours, until they are written

json_option: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
plain_option: Callable[[F], F] = click.option(
    "--plain", is_flag=True, help="Columns with tabs between, without a header."
)
yes_option: Callable[[F], F] = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def harmless(text: str) -> str:
    """The text with everything that could drive a terminal as an escape; tabs, line ends and our colours stay."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def style(text: str, **attributes: Any) -> str:
    """The text in a colour, as `click.style` has it, for `echo`."""
    return click.style(harmless(text), **attributes).replace("\x1b", _OURS)


def painted(text: str) -> str:
    """What a terminal may get: harmless text, and our colours as it knows them."""
    return harmless(text).replace(_OURS, "\x1b")


def wants_colour(environ: Mapping[str, str]) -> bool:
    """Whether a terminal may get colours; what is no terminal never does."""
    return not (environ.get("NO_COLOR") or environ.get("MR_NO_COLOR") or environ.get("TERM") == "dumb")


def echo(text: str = "", *, err: bool = False) -> None:
    """Text and a line end, on stdout or stderr, with whatever could drive a terminal shown as an escape."""
    click.echo(painted(text), err=err, color=None if wants_colour(os.environ) else False)


def echo_json(data: bytes, *, nl: bool = True) -> None:
    """A JSON document or a piece of one on stdout: the same document, spelled so that it drives no terminal."""
    click.echo(_CONTROLS_IN_JSON.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), data), nl=nl)


def echo_data(data: bytes) -> None:
    """Bytes on stdout as they are: pictures."""
    click.echo(data, nl=False)


def document(value: Any, *, indent: int = 2) -> None:
    """A value (plain, or structs) as a JSON document on stdout."""
    data = msgspec.json.encode(value)
    echo_json(msgspec.json.format(data, indent=indent))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, plain: bool = False) -> None:
    """Rows in aligned columns on stdout. A cell that is long stands out alone: the others stay where they were."""
    if plain:
        for row in rows:
            echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    shown = [[harmless(" ".join(cell.split())) for cell in row] for row in rows]
    widths = [
        max((len(row[column]) for row in shown if len(row[column]) <= CELL_MAX), default=0)
        for column in range(len(header))
    ]
    widths = [max(width, len(name)) for width, name in zip(widths, header, strict=True)]
    echo(style(_aligned([name.upper() for name in header], widths), bold=True))
    for row in shown:
        echo(_aligned(row, widths))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one to a line, on stdout."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        echo(f"{style(name.ljust(width), bold=True)}  {value}".rstrip())


def lines(found: Iterable[str]) -> None:
    """Lines on stdout, many at a time: of a hundred thousand each by itself takes longer than all the rest."""
    left = iter(found)
    while some := list(islice(left, LINES_AT_ONCE)):
        echo("\n".join(some))


def json_lines(found: Iterable[Any]) -> None:
    """Values as JSON documents on stdout, one to a line."""
    left = iter(found)
    while some := list(islice(left, LINES_AT_ONCE)):
        echo_json(b"\n".join(map(msgspec.json.encode, some)))


def say(text: str = "") -> None:
    """A line on stderr."""
    echo(text, err=True)


def say_over(text: str = "") -> None:
    """A line on stderr in the place of the one that stands there, which stays open; without text it is cleared."""
    click.echo(f"\r\x1b[K{painted(text)}", nl=False, err=True)


def did(text: str) -> None:
    """Say that something was done."""
    say(f"{style('✔', fg='green')} {text}")


def is_watched() -> bool:
    """Whether somebody sees at a terminal what is said."""
    return sys.stderr.isatty()


def next_step(command: str, *, told: bool = True) -> None:
    """Say what one would do next. Not `told`: only to somebody at a terminal, as after what changes nothing."""
    if told or is_watched():
        say(style(f"  next: {command}", dim=True))


def ask(question: str, yes: bool) -> None:
    """Ask before something is lost.

    Raises: UsageError where there is nobody to ask and `--yes` was not given; Abort if the answer is no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        context = click.get_current_context(silent=True)
        raise click.UsageError("this needs --yes when there is no terminal to ask at", context)
    click.confirm(harmless(question), abort=True, err=True)


def shortened(text: str, most: int) -> str:
    """The text, or its beginning with an ellipsis: at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def short_time(stamp: str | None) -> str:
    """A stored time for people: to the second, UTC."""
    return f"{stamp[:10]} {stamp[11:19]}" if stamp else ""


def age(seconds: float | None) -> str:
    """How long ago, or for how long, in the two biggest units; empty where it is not known."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def duration(seconds: float) -> str:
    """A duration in a unit that suits its size."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
