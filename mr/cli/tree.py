"""`mr tree`: the invocations of a request."""

from __future__ import annotations

import click

from mr.cli.command import Command
from mr.cli.drawing import draw
from mr.cli.live import follow
from mr.cli.names import request_argument
from mr.cli.output import document, json_option, lines, next_step
from mr.cli.session import opened


@click.command(
    "tree", cls=Command, examples=["mr tree 3f2a", "mr tree 3f2a -f", "mr tree words/3f2a --all", "mr tree 3f2a --json"]
)
@request_argument
@click.option("--all", "everything", is_flag=True, help="Every invocation, however many are alike.")
@click.option("--follow", "-f", "follows", is_flag=True, help="Show it while it changes, until the request is over.")
@json_option
def tree(name: str, everything: bool, follows: bool, as_json: bool) -> None:
    """Show the invocations of a request as a tree: what is done, what runs, what failed.

    ✔ done, ● running, ○ queued, ◌ waiting for its children, ✖ failed, ⊘ cancelled. Paths such as 0.17 say where an
    invocation hangs; 0.17.r is the reduce of 0.17.
    """
    with opened() as parts:
        w, r = parts.tracing.find(name)
        if follows:
            # The picture that moves goes when it is over; the whole tree stays.
            follow(parts, w, r, None, transient=True)
        found = parts.tracing.tree(w, r)
    if as_json:
        document(found)
        return
    lines(draw(found, everything=everything))
    r = r[:12]
    if not found.request.state.is_final:
        next_step(f"mr why {r}", told=False)
    elif found.request.failed_invocation_id:
        path = found.request.failed_invocation_id.partition(".")[2]
        next_step(f"mr invocation show {r}.{path}", told=False)
    else:
        next_step(f"mr request result {r}", told=False)
