"""`mr graph`: a request as a picture."""

from __future__ import annotations

from pathlib import Path

import click

from mr.cli.command import Command
from mr.cli.exits import Refused
from mr.cli.names import request_argument
from mr.cli.output import did, document, echo_data, json_option, next_step, say
from mr.cli.session import opened
from mr.ports.renderer import Format

FORMATS = ("dot", "svg", "png")
STDOUT = "-"


@click.command(
    "graph",
    cls=Command,
    examples=[
        "mr graph 3f2a",
        "mr graph 3f2a --format png",
        "mr graph 3f2a --output graph.svg",
        "mr graph 3f2a --json",
    ],
)
@request_argument
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), help="By default as the name of the file ends, or dot."
)
@click.option("--output", "-o", metavar="FILE", help="By default stdout for dot, else request-ID.FORMAT; - is stdout.")
@click.option("--all", "everything", is_flag=True, help="Every invocation, however many are alike.")
@json_option
def graph(name: str, format_: str | None, output: str | None, everything: bool, as_json: bool) -> None:
    """Draw a request: its mappers, their reduces, and how they hang together; what failed is red.

    Of many children that are alike one is drawn, with their number. For svg and png, Graphviz must be installed.
    """
    from mr.services.dot import dot

    kind = format_ or _format_of(output)
    with opened() as parts:
        w, r = parts.tracing.find(name)
        found = parts.pictures.graph(w, r, everything=everything)
        if as_json:
            document(found)
            return
        if kind == "dot":
            data = dot(found).encode()
        else:
            drawn: Format = "svg" if kind == "svg" else "png"
            data = parts.pictures.draw(w, r, drawn, everything=everything)
    place = output or (STDOUT if kind == "dot" else f"request-{r}.{kind}")
    if place == STDOUT:
        echo_data(data)
    else:
        did(f"wrote {write(place, data)}")
    if found.is_folded:
        say("  children that are alike are drawn as one (--all: each by itself)")
    if kind == "dot":
        next_step(f"mr graph {r[:12]} --format png", told=False)


def write(place: str, data: bytes) -> str:
    """Put data into a file; its name.

    Raises: Refused.
    """
    try:
        Path(place).write_bytes(data)
    except OSError as error:
        raise Refused(f"{place} cannot be written: {error.strerror}", hint="name another with --output") from error
    return place


def _format_of(output: str | None) -> str:
    """What the end of a file's name asks for.

    Raises: BadParameter for a name that ends otherwise.
    """
    if output is None or output == STDOUT:
        return "dot"
    end = Path(output).suffix.lower().lstrip(".")
    if end not in FORMATS:
        raise click.BadParameter(f"{output} does not end in .dot, .svg or .png; say --format", param_hint="--output")
    return end
