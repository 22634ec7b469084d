"""A request's tree as text, for `mr tree` and the live view.

The hard part is width: of ten thousand children a person wants the few that are unlike the others. So children that
are over and well, and those beyond the first few in any other state, are drawn as one line with their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mr.cli.output import duration, shortened, style
from mr.clock import stamp
from mr.model.invocation import ErrorReport
from mr.model.request import Request
from mr.services.folding import SHOWN_MAX, Fold, folded
from mr.services.tree import Node, Tree, singly

MARKS = {"succeeded": "✔", "failed": "✖", "running": "●", "queued": "○", "waiting": "◌", "cancelled": "⊘"}
COLOURS = {"succeeded": "green", "failed": "red", "running": "cyan", "cancelled": "yellow"}
WORDS = {"succeeded": "done"}
TEXT_MAX = 200


def draw(tree: Tree, *, everything: bool = False) -> Iterator[str]:
    """Lines: the request, then its invocations, indented by 2 for each level."""
    yield headline(tree.request, tree.workflow, tree.request_id)
    error = tree.request.error or {}
    if error.get("class") == "result_writer":
        # It belongs to no invocation: all of them are done.
        yield "  " + style(" ".join(f"{error['type']}: {error['message']}".split()), fg="red")
    if tree.root is None:
        yield "  its invocations are cleaned away"
    else:
        yield from _node(tree.root, 0, everything)


def headline(request: Request, w: str, r: str) -> str:
    """The request in one line."""
    state = request.state.value
    took = f" {'in' if request.finished_at else 'for'} {duration(elapsed(request))}" if request.created_at else ""
    again = f", life {request.epoch}" if request.epoch > 1 else ""
    return f"{w}/{request.job_name}  {r}  {style(state, fg=COLOURS.get(state))}{took}{again}"


def counts(tree: Tree) -> str:
    """How far it is: `1,024 of 10,000 done`."""
    return f"{tree.done:,} of {tree.total:,} done"


def elapsed(request: Request) -> float:
    """Seconds that a request took, or has run so far."""
    if request.finished_at:
        return seconds_between(request.created_at, request.finished_at)
    return max(0.0, seconds_between(request.created_at, stamp(datetime.now(UTC))))


def seconds_between(start: str, end: str | None) -> float:
    """Seconds between two stored times; 0 where one is missing."""
    if not start or not end:
        return 0.0
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _node(node: Node, depth: int, everything: bool) -> Iterator[str]:
    detail = []
    if node.alike > 1:
        detail.append(f"× {node.alike:,} {WORDS.get(node.state, node.state)}")
    elif node.state not in ("succeeded", "failed"):
        detail.append(node.state)
    if node.children_total is not None:
        detail.append(f"{node.children_done:,} of {node.children_total:,} children done")
    if node.seconds is not None:
        detail.append(duration(node.seconds) + (" in all" if node.alike > 1 else ""))
    if node.attempts and node.error is None:
        detail.append(_retries(node.attempts))
    yield _line(node.state, depth, _paths(node), node, detail)
    if node.error is not None:
        yield f"{'':{2 * depth + 4}}{_error(node.error)}"
    yield from _children(node.children, depth + 1, everything)
    if node.reduce is not None:
        yield from _node(node.reduce, depth + 1, everything)


def _children(nodes: list[Node], depth: int, everything: bool) -> Iterator[str]:
    """In order if they are few or all are asked for; else what is unlike first and the rest by number."""
    for one in singly(nodes) if everything else folded(nodes, SHOWN_MAX):
        if isinstance(one, Fold):
            yield _line(one.state, depth, "", one.nodes[0], _fold(one))
        else:
            yield from _node(one, depth, everything)


def _fold(fold: Fold) -> list[str]:
    more = "more " if fold.is_rest else ""
    detail = [f"× {fold.number:,} {more}{WORDS.get(fold.state, fold.state)}"]
    if fold.seconds is not None:
        detail.append(f"{duration(fold.seconds)} in all")
    if fold.retried:
        detail.append(style(f"{fold.retried:,} of them after failed attempts", fg="yellow"))
    return detail


def _line(state: str, depth: int, path: str, node: Node, detail: list[str]) -> str:
    mark = style(MARKS[state], fg=COLOURS.get(state))
    words = [path, node.step, node.kind, node.handler, *detail]
    return f"{'':{2 * depth}}{mark} {'  '.join(word for word in words if word)}"


def _paths(node: Node) -> str:
    if node.alike == 1:
        return node.path
    above, dot, first = node.path.rpartition(".")
    return f"{node.path} … {above}{dot}{int(first) + node.alike - 1}"


def _retries(attempts: list[ErrorReport]) -> str:
    times = "1 attempt" if len(attempts) == 1 else f"{len(attempts)} attempts"
    return style(f"{times} failed: {_one_line(attempts[-1])}", fg="yellow")


def _error(report: ErrorReport) -> str:
    attempt = f"attempt {report.attempt}: " if report.attempt > 1 else ""
    return style(f"{attempt}{_one_line(report)}", fg="red")


def _one_line(report: ErrorReport) -> str:
    text = " ".join(f"{report.type}: {report.message}".split())
    return shortened(text, TEXT_MAX)
