"""How a finished request is told: its pairs on stdout, or why there are none on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mr.cli.exits import FAILED, complain
from mr.cli.output import echo_json, next_step, say
from mr.model.request import Request, RequestState

if TYPE_CHECKING:
    from mr.wiring import Parts


def tell(parts: Parts, w: str, r: str, request: Request) -> int:
    """`{"pairs": [[key, value], …]}` piece by piece, `{}` if it was written elsewhere, or the error; the exit code."""
    if request.state is not RequestState.SUCCEEDED:
        tell_error(r, request)
        return FAILED
    if request.written is not None:
        echo_json(b"{}")
        say(f"  the result was written: {where(request.written)}")
        next_step(f"mr tree {r[:12]}")
        return 0
    echo_json(b'{"pairs":[', nl=False)
    is_first = True
    for items in parts.results.pairs(w, r):
        if not len(items):
            continue
        if not is_first:
            echo_json(b",", nl=False)
        echo_json(items.blob, nl=False)
        is_first = False
    echo_json(b"]}")
    sys.stdout.flush()
    say(f"  next: mr tree {r[:12]}")
    return 0


def where(written: Mapping[str, Any]) -> str:
    """Where a writer has put a result: `/tmp/mr_results/3f2a… on host a (file)`."""
    places = [
        ", ".join(value) if isinstance(value, list) else str(value)
        for name, value in written.items()
        if name not in ("writer", "host")
    ]
    return " ".join([*places, f"on host {written['host']} ({written['writer']})"])


def tell_error(r: str, request: Request) -> None:
    """Why a request failed: the handler, its version, where it hangs, and its traceback."""
    report = request.error or {}
    if request.state is RequestState.CANCELLED or not report.get("handler"):
        complain(f"request {r} {request.state.value}: {report.get('message', 'no reason was recorded')}")
    else:
        where = f"handler {report['handler']} version {report.get('version', '')}"
        path = str(report.get("invocation", "")).partition(".")[2]
        complain(f"{report['type']}: {report['message']}")
        say(f"  in {where}, invocation {path}, attempt {report.get('attempt', 1)} ({report['class']})")
        for line in str(report.get("traceback", "")).rstrip().splitlines():
            say(f"    {line}")
        if report.get("output"):
            say("  it printed:")
            for line in str(report["output"]).rstrip().splitlines()[-20:]:
                say(f"    {line}")
    next_step(f"mr tree {r[:12]}")
    say(f"  what failed, again with the same handlers: mr request resume {r[:12]}")
