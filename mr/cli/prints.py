"""`mr logs`: what the handlers of a request printed."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from mr.cli.command import Command
from mr.cli.names import request_argument
from mr.cli.output import echo, json_lines, next_step, say, style
from mr.cli.session import opened
from mr.errors import NotFound
from mr.model import names
from mr.services.prints import Printed

PATH_WIDTH = 10


@click.command(
    "logs",
    cls=Command,
    examples=["mr logs 3f2a", "mr logs 3f2a 0.17", "mr logs 3f2a -f", "mr logs 3f2a --json | jq -r .line"],
)
@request_argument
@click.argument("path", metavar="[INVOCATION]", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on until the request is over.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def logs(name: str, path: str | None, follow: bool, as_json: bool) -> None:
    """Show what handlers printed (stdout, stderr, ctx.log), with the path of the invocation in front.

    INVOCATION is a path such as 0.17, or 0.17.r for its reduce. What an invocation printed is there when it is over.
    """
    request, dot, given = name.partition(".")
    path = path or given or None
    if (dot and path != given) or (path is not None and not names.is_path(path)):
        raise NotFound(f"{path!r} is no path of an invocation", hint="such as 0, 0.17 or 0.17.r")
    shown = 0
    with opened() as parts:
        w, r = parts.tracing.find(request)
        for one in parts.prints.follow(w, r) if follow else parts.prints.so_far(w, r):
            if path is None or one.path == path:
                shown += 1
                _show(w, r, one, as_json)
        is_over = parts.results.request(w, r).state.is_final if not follow else True
    if not shown:
        say("nothing was printed" if is_over else "nothing was printed so far")
    next_step(f"mr invocation show {r[:12]}.{path or '0'}" if is_over else f"mr logs {r[:12]} -f", told=False)


def _show(w: str, r: str, one: Printed, as_json: bool) -> None:
    """Its lines, each with the path in front; at once, for somebody may wait for them."""
    for line in one.text.rstrip("\n").split("\n"):
        if as_json:
            record: dict[str, Any] = {
                "workflow_name": w,
                "request_id": r,
                "invocation": f"{r}.{one.path}",
                **msgspec.to_builtins(one),
                "line": line,
            }
            del record["text"]
            json_lines([record])
        elif one.kind == "error":
            echo(f"{one.path:<{PATH_WIDTH}} {style(f'✖ {line}', fg='red')}")
        else:
            echo(f"{one.path:<{PATH_WIDTH}} {line}".rstrip())
