"""JobX's flat list of a request's invocations, with paths as ids.

    <indent><id>[*] <M|R> [<args><post-combine><post-reduce>] <step>

It is a walk through JobX's graph: a mapper leads to the children that it mapped to; an invocation that returned data
leads to its reduce, and the reduce back to it, which is a revisit (`*`); each child also leads to the reduce of
its parent, which takes its result in. `X` says that a dataset came to be: the arguments, the combined data of a
mapper that returned some, the reduced pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

from mr.cli.output import style
from mr.model.invocation import ErrorReport
from mr.services.tree import Node, Tree, has_reduce, singly


def flat_list(tree: Tree) -> Iterator[str]:
    """One line for each visit."""
    if tree.root is not None:
        yield from _visit(tree.root, None, 0)


def _visit(node: Node, parent: Node | None, depth: int) -> Iterator[str]:
    is_done = node.state == "succeeded"
    # The reduce that ran as the end of a leaf's own run was an invocation to JobX, too.
    is_leaf = node.children_total is None and has_reduce(node)
    data = f"X{'X' if is_leaf else '-'}{'X' if is_done else '-'}"
    yield _line(depth, node, "M", data)
    if is_leaf:
        yield from _reduce(node, depth + 1)
    for child in singly(node.children):
        yield from _visit(child, node, depth + 1)
    if node.children_total == 0 and has_reduce(node):
        yield from _reduce(node, depth + 1)
    if parent is not None and is_done and has_reduce(parent):
        yield from _reduce(parent, depth + 1)


def _reduce(node: Node, depth: int) -> Iterator[str]:
    """The reduce of an invocation, and the way back to it."""
    if node.reduce is not None:
        yield _line(depth, node.reduce, "R", "---")
    else:
        yield f"{'':{2 * depth}}{node.path}.r R [---] {node.step}"
    yield f"{'':{2 * depth + 2}}{node.path}*"


def _line(depth: int, node: Node, letter: str, data: str) -> str:
    words = [f"{'':{2 * depth}}{node.path} {letter} [{data}] {node.step}"]
    if node.error is not None:
        attempt = f" (attempt {node.error.attempt})" if node.error.attempt > 1 else ""
        words.append(style(f"FAILED{attempt} {_one_line(node.error)}", fg="red"))
    elif node.attempts:
        words.append(style(f"{len(node.attempts)} failed: {_one_line(node.attempts[-1])}", fg="yellow"))
    return "  ".join(words)


def _one_line(report: ErrorReport) -> str:
    return " ".join(f"{report.type}: {report.message}".split())
