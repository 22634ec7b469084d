"""Graph: a request as JobX drew it, where mappers and their reduces are vertices of their own.

    request ─▶ workflow ─▶ job ─▶ root ─▶ children         "mapped to"
    mapper ─▶ its reduce                                   "data reduced by", where it returned data
    child ─▶ the reduce of its parent                      "step reduced by"
    reduce ─▶ its mapper                                   "stored to"

Nothing hangs below a fold, so a picture of it stays readable. Wide requests are folded by `folding`; those that are
bushy, with a few children at each of many places, are shown only as deep as they fit. What failed is always shown.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from mr.model.invocation import ErrorReport
from mr.services.folding import SHOWN_MAX, Fold, folded
from mr.services.tree import Node, State, Tree, has_reduce, singly

VERTICES_MAX = 120
"""More of them are no picture any more, and take long to lay out."""

Kind = Literal["request", "workflow", "job", "map", "reduce"]
Relation = Literal[
    "resolve workflow",
    "resolve job from request in workflow",
    "",
    "mapped to",
    "data reduced by",
    "step reduced by",
    "stored to",
]


class Vertex(msgspec.Struct, frozen=True, kw_only=True):
    """`Q`, `W` and `J` for request, workflow and job, else `I` and the path of an invocation.

    One that stands for several (`alike`) has the path of the first. `state` is that of the request for `Q`.
    """

    id: str
    kind: Kind
    name: str = ""
    path: str = ""
    step: str = ""
    handler: str = ""
    state: str = ""
    alike: int = 1
    is_rest: bool = False
    children_total: int | None = None
    children_done: int = 0
    seconds: float | None = None
    worker: str = ""
    attempts: list[ErrorReport] = []
    error: ErrorReport | None = None


class Edge(msgspec.Struct, frozen=True):
    """From one vertex to another."""

    source: str
    target: str
    label: Relation


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """A request and everything that is shown of it. `is_folded` if not all its invocations are."""

    workflow: str
    request_id: str
    vertices: list[Vertex]
    edges: list[Edge]
    is_folded: bool


def graph(tree: Tree, *, everything: bool = False) -> Graph:
    """The graph of a request, folded until it has at most `VERTICES_MAX` vertices; `everything`: not folded."""
    if everything:
        return _Walk(tree, None).graph()
    found = _Walk(tree, 0).graph()
    for depth in range(1, _depth(tree.root) + 1):
        deeper = _Walk(tree, depth).graph()
        if len(deeper.vertices) > VERTICES_MAX:
            break
        found = deeper
    return found


def _depth(node: Node | None) -> int:
    """How many levels of children there are."""
    return max((1 + _depth(child) for child in node.children), default=0) if node is not None else 0


class _Walk:
    """One way through the tree, which shows children down to a depth one by one; None: all of them, however many."""

    def __init__(self, tree: Tree, depth: int | None) -> None:
        self._tree, self._depth = tree, depth
        self._vertices: list[Vertex] = []
        self._edges: list[Edge] = []
        self._is_folded = False

    def graph(self) -> Graph:
        """All of it."""
        tree, request = self._tree, self._tree.request
        self._vertices += [
            Vertex(id="Q", kind="request", name=tree.request_id, state=request.state.value),
            Vertex(id="W", kind="workflow", name=tree.workflow),
            Vertex(id="J", kind="job", name=request.job_name),
        ]
        self._edge("Q", "W", "resolve workflow")
        self._edge("W", "J", "resolve job from request in workflow")
        if tree.root is not None:
            self._edge("J", f"I{tree.root.path}", "")
            self._invocation(tree.root)
        return Graph(
            workflow=tree.workflow,
            request_id=tree.request_id,
            vertices=self._vertices,
            edges=self._edges,
            is_folded=self._is_folded,
        )

    def _edge(self, source: str, target: str, label: Relation) -> None:
        self._edges.append(Edge(source, target, label))

    def _invocation(self, node: Node) -> str:
        """A mapper with everything below it; its id."""
        name = self._vertex(node)
        reduce = ""
        if has_reduce(node):
            reduce = self._reduce(node, name)
            if node.children_total is None:
                self._edge(name, reduce, "data reduced by")
        for child in self._below(node.children):
            if isinstance(child, Fold):
                below = self._fold(child)
            else:
                below = self._invocation(child)
            self._edge(name, below, "mapped to")
            if reduce and child.state == "succeeded":
                self._edge(below, reduce, "step reduced by")
        if node.children_total == 0 and reduce:
            self._edge(name, reduce, "data reduced by")
        return name

    def _below(self, nodes: list[Node]) -> list[Node | Fold]:
        if self._depth is None or not nodes:
            return list(singly(nodes))
        shown_max = SHOWN_MAX if nodes[0].path.count(".") <= self._depth else 0
        few = sum(node.alike for node in nodes) <= shown_max
        return list(singly(nodes) if few else folded(nodes, shown_max))

    def _reduce(self, node: Node, name: str) -> str:
        """The reduce of a mapper, with the way back; its id. That of a leaf ran at the end of the leaf's own run."""
        reduce = node.reduce or msgspec.structs.replace(
            node, path=f"{node.path}.r", kind="reduce", handler="", seconds=None, attempts=[], error=None
        )
        below = self._vertex(reduce)
        if reduce.state == "succeeded":
            self._edge(below, name, "stored to")
        return below

    def _vertex(self, node: Node) -> str:
        name = f"I{node.path}"
        self._vertices.append(
            Vertex(
                id=name,
                kind=node.kind,
                path=node.path,
                step=node.step,
                handler=node.handler or self._tree.reducers.get(node.step, ""),
                state=node.state,
                alike=node.alike,
                children_total=node.children_total,
                children_done=node.children_done,
                seconds=node.seconds,
                worker=node.worker,
                attempts=node.attempts,
                error=node.error,
            )
        )
        return name

    def _fold(self, fold: Fold) -> str:
        """One vertex for many, without what is below them."""
        self._is_folded = True
        first = fold.nodes[0]
        if fold.number == 1:
            return self._vertex(first)
        state: State = fold.state
        self._vertices.append(
            Vertex(
                id=f"I{first.path}",
                kind=first.kind,
                path=first.path,
                step=first.step,
                handler=first.handler,
                state=state,
                alike=fold.number,
                is_rest=fold.is_rest,
                seconds=fold.seconds,
            )
        )
        return f"I{first.path}"
