"""Following a request to its end: a live tree where stderr is a terminal, else a line for each state.

The picture is drawn from what the store says, never from events: each look costs some reads, so the next one waits
at least ten times as long as the last one took.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from mr.cli.drawing import counts, draw, headline
from mr.cli.exits import INTERRUPTED
from mr.cli.output import painted, say, wants_colour
from mr.errors import ResultTimeout
from mr.model.request import Request

if TYPE_CHECKING:
    from mr.wiring import Parts

LOOK_EVERY_S = 0.3


class Seconds(click.FloatRange):
    """So many seconds, in the words of whoever gives something else."""

    name = "number of seconds"


timeout_option = click.option(
    "--timeout", type=Seconds(min=0), metavar="SECONDS", help="Stop waiting then (exit code 5)."
)


class Detached(click.exceptions.Exit):
    """Ctrl-C: the request goes on."""


def follow(parts: Parts, w: str, r: str, timeout_s: float | None, *, transient: bool = False) -> Request:
    """The request's record once it is over; how it goes is shown on stderr. `transient`: no picture stays there.

    Raises: ResultTimeout, Detached (it goes on, and how to come back is said); RequestNotFound; StoreUnavailable.
    """
    try:
        if sys.stderr.isatty():
            return _drawn(parts, w, r, timeout_s, transient)
        return _told(parts, w, r, timeout_s)
    except KeyboardInterrupt:
        say()
        say(f"detached; the request goes on: mr request wait {r}")
        raise Detached(INTERRUPTED) from None
    except ResultTimeout as error:
        error.hint = f"to wait on: mr request wait {r}"
        raise


def _told(parts: Parts, w: str, r: str, timeout_s: float | None) -> Request:
    request = parts.results.request(w, r)
    if not request.state.is_final:
        say(headline(request, w, r))
        request = parts.results.wait(w, r, timeout_s)
    say(headline(request, w, r))
    return request


def _drawn(parts: Parts, w: str, r: str, timeout_s: float | None, transient: bool = False) -> Request:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    console = Console(stderr=True, no_color=not wants_colour(os.environ))
    with Live(console=console, auto_refresh=False, transient=transient) as live:
        while True:
            started = time.monotonic()
            tree = parts.tracing.tree(w, r, detailed=False)
            lines = list(draw(tree))[: max(console.size.height - 2, 4)]
            if tree.total > 1:
                lines[0] += f"  {counts(tree)}"
            live.update(Text.from_ansi(painted("\n".join(lines)), no_wrap=True, overflow="ellipsis"), refresh=True)
            if tree.request.state.is_final:
                return tree.request
            pause = max(LOOK_EVERY_S, 10 * (time.monotonic() - started))
            if deadline is not None:
                if deadline <= time.monotonic():
                    raise ResultTimeout(f"request {r} is still {tree.request.state.value} after {timeout_s:g} s")
                pause = min(pause, max(deadline - time.monotonic(), 0.001))
            try:
                parts.results.wait(w, r, pause)
            except ResultTimeout:
                continue  # that was only until the next look
