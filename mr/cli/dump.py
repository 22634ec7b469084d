"""JobX's dumps as text: the invocations of a request with their data, and their sessions.

==> INVOCATION [map]
PARENT [0] [split]  has MAPPED to  CHILD [0.1] [count]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mr import codec
from mr.cli.drawing import COLOURS, headline
from mr.cli.output import duration, style
from mr.model.invocation import ErrorReport
from mr.services.dump import Visit
from mr.services.excerpts import Excerpt
from mr.services.sessions import Session
from mr.services.tree import Tree


def dumped(tree: Tree, visits: Iterable[Visit]) -> Iterator[str]:
    """Lines: the request, its job, and each invocation after an empty line."""
    yield f"REQUEST {headline(tree.request, tree.workflow, tree.request_id)}"
    yield f"JOB [{tree.request.job_name}] of WORKFLOW [{tree.workflow}]"
    error = tree.request.error or {}
    if error:
        yield style(f"ERROR {error['type']}: {error['message']}", fg="red")
    if tree.root is None:
        yield "its invocations are cleaned away"
    for visit in visits:
        yield ""
        yield from _visit(visit)


def kept(sessions: Iterable[Session]) -> Iterator[str]:
    """Lines: each invocation that kept something, and what."""
    for session in sessions:
        yield f"Invocation: {session.path}"
        for key, value in session.values.items():
            yield f"[{key}]: [{codec.encode(value).decode()}]"
        yield ""


def _visit(visit: Visit) -> Iterator[str]:
    kind = "reduce" if visit.relation == "reduced" else "map"
    words = [f"==> INVOCATION [{kind}]", visit.handler, style(visit.state, fg=COLOURS.get(visit.state))]
    if visit.seconds is not None:
        words.append(duration(visit.seconds))
    if visit.worker:
        words.append(f"on worker {visit.worker}")
    yield "  ".join(word for word in words if word)
    child = f"[{visit.path}] [{visit.step}]"
    parent = f"PARENT [{visit.parent_path}] [{visit.parent_step}]"
    match visit.relation:
        case "root":
            yield f"ROOT {child}"
        case "mapped":
            yield f"{parent}  has MAPPED to  CHILD {child}"
        case "reduced":
            yield f"{parent}  was REDUCED by  CHILD {child}"
    if kind == "map":
        yield from _data("Arguments", visit.arguments)
        yield from _data("Post-Combine", visit.combined)
        yield from _data("Post-Reduce", visit.reduced)
    reports = visit.attempts if visit.error is None or visit.attempts else [visit.error]
    for report in reports:
        yield from _failure(report, is_last=visit.error is not None and report is reports[-1])


def _data(title: str, excerpt: Excerpt | None) -> Iterator[str]:
    """What is not there is left out."""
    if excerpt is None:
        return
    yield f"  {title}:{'' if excerpt.pairs else ' (nothing)'}"
    for pair in excerpt.pairs:
        key, value = (codec.encode(part).decode() for part in pair)
        yield f"    {key}: {value}"
    if excerpt.is_cut:
        yield "    … and more (--all)"


def _failure(report: ErrorReport, *, is_last: bool) -> Iterator[str]:
    colour = "red" if is_last else "yellow"
    where = f" on worker {report.worker}" if report.worker else ""
    title = "FAILED" if is_last else "failed attempt"
    yield style(f"  {title} (attempt {report.attempt}{where}): {report.type}: {report.message}", fg=colour)
    for line in report.traceback.rstrip().splitlines():
        yield f"    {line}"
