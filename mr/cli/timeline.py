"""`mr timeline`: when what of a request ran on which worker, in the terminal or as SVG."""

from __future__ import annotations

import os

import click

from mr.cli.command import Command
from mr.cli.drawing import headline
from mr.cli.graph import write
from mr.cli.names import request_argument
from mr.cli.output import did, document, duration, echo, harmless, json_option, next_step, wants_colour
from mr.cli.session import opened
from mr.services.timeline import Bar, Timeline

MARKS = {"succeeded": {"map": "█", "reduce": "▓"}, "running": {"map": "░", "reduce": "░"}}
FAILED = "✖"
COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan")
WIDTH_MIN, WIDTH_MAX = 40, 160
TICKS = 6
RANK = {"succeeded": 0, "running": 1, "failed": 2}


@click.command(
    "timeline",
    cls=Command,
    examples=["mr timeline 3f2a", "mr timeline 3f2a --svg timeline.svg", "mr timeline 3f2a --json"],
)
@request_argument
@click.option("--svg", "place", metavar="FILE", help="Write a picture instead.")
@json_option
def timeline(name: str, place: str | None, as_json: bool) -> None:
    """Show when what of a request ran on which worker.

    A bar is as long as handlers ran: █ map, ▓ reduce, ░ running now, ✖ a failed attempt. Colours are steps.
    """
    with opened() as parts:
        w, r = parts.tracing.find(name)
        found = parts.timelines.of(w, r)
    if as_json:
        document(found)
        return
    if place is not None:
        from mr.cli.timeline_svg import svg

        did(f"wrote {write(place, svg(found).encode())}")
        return
    _show(found)
    next_step(f"mr timeline {r[:12]} --svg timeline.svg", told=False)


def _show(found: Timeline) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(no_color=not wants_colour(os.environ), highlight=False, soft_wrap=True)
    echo(headline(found.request, found.workflow, found.request_id))
    if not found.workers:
        echo("  nothing of it has run yet" if not found.request.state.is_final else "  nothing of it is left")
        return
    steps = steps_of(found)
    label = max(len(harmless(worker)) for worker in found.workers) + 1
    width = min(max(console.size.width - label, WIDTH_MIN), WIDTH_MAX)
    for worker, rows in found.workers.items():
        for number, bars in enumerate(rows):
            line = Text((harmless(worker) if number == 0 else "").ljust(label))
            for mark, style in _cells(bars, found.seconds, width, steps):
                line.append(mark, style)
            line.rstrip()
            console.print(line)
    console.print(Text(" " * label + axis(found.seconds, width), style="dim"))
    console.print(_legend(found, steps))
    for worker, rows in found.workers.items():
        echo(f"{worker}: {told(rows)}")


def steps_of(found: Timeline) -> list[str]:
    """The steps that ran, in the order in which they came."""
    bars = [bar for rows in found.workers.values() for row in rows for bar in row]
    return list(dict.fromkeys(bar.step for bar in sorted(bars, key=lambda bar: bar.start_s) if bar.step))


def told(rows: list[list[Bar]]) -> str:
    """What one worker did, in words."""
    bars = [bar for row in rows for bar in row]
    done = sum(bar.count for bar in bars if bar.state == "succeeded")
    failed = sum(1 for bar in bars if bar.state == "failed")
    words = [f"{done:,} done, handlers ran {duration(sum(bar.busy_s for bar in bars))}"]
    if failed:
        words.append(f"{failed:,} attempt{'' if failed == 1 else 's'} failed")
    if any(bar.state == "running" for bar in bars):
        words.append("runs some now")
    return ", ".join(words)


def _cells(bars: list[Bar], seconds: float, width: int, steps: list[str]) -> list[tuple[str, str]]:
    """One mark with its style for each column."""
    cells = [(" ", "")] * width
    for bar in sorted(bars, key=lambda bar: RANK[bar.state]):
        first = min(int(bar.start_s / seconds * width), width - 1) if seconds else 0
        last = min(max(int(bar.end_s / seconds * width - 1e-9), first), width - 1) if seconds else 0
        colour = COLOURS[steps.index(bar.step) % len(COLOURS)] if bar.step in steps else ""
        cell = (FAILED, "bold red") if bar.state == "failed" else (MARKS[bar.state][bar.kind], colour)
        cells[first : last + 1] = [cell] * (last + 1 - first)
    return cells


def axis(seconds: float, width: int) -> str:
    """Times below the chart: some round ones, as many as fit."""
    line = [" "] * width
    for at in ticks(seconds, TICKS):
        text = duration(at) if at else "0"
        place = int(at / seconds * width) if seconds else 0
        if place + len(text) < width:
            line[place : place + len(text) + 1] = ["╵", *text]
    return "".join(line).rstrip()


def ticks(seconds: float, most: int) -> list[float]:
    """Round times from 0 on, at most so many and one."""
    if seconds <= 0:
        return [0.0]
    unit = 10.0**-6
    while True:
        for factor in (1, 2, 5):
            if seconds / (unit * factor) <= most:
                step = unit * factor
                return [number * step for number in range(int(seconds / step + 1e-9) + 1)]
        unit *= 10


def _legend(found: Timeline, steps: list[str]) -> object:
    from rich.text import Text

    line = Text()
    for number, step in enumerate(steps):
        line.append(f"█ {step}  ", COLOURS[number % len(COLOURS)])
    return line.append("█ map  ▓ reduce  ░ running  ✖ failed attempt", "dim")
