"""JobX's flat list of a request's invocations, with paths as ids.

    <indent><id>[*] <M|R> [<args><post-combine><post-reduce>] <step>

It is a walk through JobX's graph: a mapper leads to the children that it mapped to; an invocation that returned data
leads to its reduce, and the reduce back to it, which is a revisit (`*`); each child also leads to the reduce of
its parent, which takes its result in. `X` says that a dataset came to be: the arguments, the combined data of a
mapper that returned some, the reduced pairs.
"""

from __future__ import annotations

from collections.abc import Iterator

from mr.model.invocation import ErrorReport
from mr.services.tree import Node, Tree, singly


def flat_list(tree: Tree) -> Iterator[str]:
    """One line for each visit."""
    if tree.root is not None:
        yield from _visit(tree.root, None, 0)


def _visit(node: Node, parent: Node | None, depth: int) -> Iterator[str]:
    is_done = node.state == "succeeded"
    # The reduce that ran as the end of a leaf's own run was an invocation to JobX, too.
    is_leaf = node.children_total is None and _has_reduce(node)
    data = f"X{'X' if is_leaf else '-'}{'X' if is_done else '-'}"
    yield _line(depth, node.path, "M", data, node.step, node.error)
    if is_leaf:
        yield from _reduce(node, depth + 1)
    for child in singly(node.children):
        yield from _visit(child, node, depth + 1)
    if node.children_total == 0 and _has_reduce(node):
        yield from _reduce(node, depth + 1)
    if parent is not None and is_done and _has_reduce(parent):
        yield from _reduce(parent, depth + 1)


def _has_reduce(node: Node) -> bool:
    """Whether the reduce of an invocation was called for; one that waits for its children is not there yet."""
    if node.reduce is None:
        return node.state == "succeeded"
    return node.reduce.state not in ("waiting", "cancelled")


def _reduce(node: Node, depth: int) -> Iterator[str]:
    """The reduce of an invocation, and the way back to it."""
    error = node.reduce.error if node.reduce is not None else None
    yield _line(depth, f"{node.path}.r", "R", "---", node.step, error)
    yield f"{'':{2 * depth + 2}}{node.path}*"


def _line(depth: int, path: str, letter: str, data: str, step: str, error: ErrorReport | None) -> str:
    failed = f"  FAILED {error.type}: {' '.join(error.message.split())}" if error is not None else ""
    return f"{'':{2 * depth}}{path} {letter} [{data}] {step}{failed}"
