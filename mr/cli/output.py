"""What commands write: results to stdout, talk to stderr.

A result is lines for people, tab-separated lines (`--plain`), or one JSON document (`--json`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

import click
import msgspec

from mr.cli.exits import USAGE, Refused

F = TypeVar("F", bound=Callable[..., Any])

LINES_AT_ONCE = 1000

json_option: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
plain_option: Callable[[F], F] = click.option(
    "--plain", is_flag=True, help="Columns with tabs between, without a header."
)
yes_option: Callable[[F], F] = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def document(value: Any, *, indent: int = 2) -> None:
    """A value (plain, or structs) as a JSON document on stdout."""
    data = msgspec.json.encode(value)
    click.echo(msgspec.json.format(data, indent=indent))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, plain: bool = False) -> None:
    """Rows in aligned columns on stdout."""
    if plain:
        for row in rows:
            click.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    shown = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *shown]) for column in range(len(header))]
    click.echo(click.style(_aligned([name.upper() for name in header], widths), bold=True))
    for row in shown:
        click.echo(_aligned(row, widths))


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Names and values, one to a line, on stdout."""
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {value}".rstrip())


def lines(found: Iterable[str]) -> None:
    """Lines on stdout, many at a time: of a hundred thousand each by itself takes longer than all the rest."""
    left = iter(found)
    while some := list(islice(left, LINES_AT_ONCE)):
        click.echo("\n".join(some))


def say(text: str = "") -> None:
    """A line on stderr."""
    click.echo(text, err=True)


def did(text: str) -> None:
    """Say that something was done."""
    say(f"{click.style('✔', fg='green')} {text}")


def is_watched() -> bool:
    """Whether somebody sees at a terminal what is said."""
    return sys.stderr.isatty()


def next_step(command: str, *, told: bool = True) -> None:
    """Say what one would do next. Not `told`: only to somebody at a terminal, as after what changes nothing."""
    if told or is_watched():
        say(click.style(f"  next: {command}", dim=True))


def ask(question: str, yes: bool) -> None:
    """Ask before something is lost.

    Raises: Refused where there is nobody to ask and `--yes` was not given; Abort if the answer is no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused("this needs --yes when there is no terminal to ask at", exit_code=USAGE)
    click.confirm(question, abort=True, err=True)


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
