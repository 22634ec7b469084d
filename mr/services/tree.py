"""Tree: the invocations of a request, built from what was read of it.

No invocation has a record that says how it is doing. It has succeeded when its result stands in a slice or part of
the mapper above, or anything above it has; it failed when the request names it; else it waits for its children,
runs where a worker holds it, or is queued.

The hard part is size. A mapper has up to a million children, nearly all alike; consecutive ones without children
or attempts of their own are one node here, which says for how many it stands (`alike`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from mr import codec
from mr.model import ids
from mr.model.dataset import Payload
from mr.model.definitions import DefinitionSet, StepRef
from mr.model.invocation import PARTS, Done, ErrorReport, Manifest, Part
from mr.model.request import Request, RequestState
from mr.ports.store import Entry
from mr.rules import fan_in, fan_out
from mr.rules.fan_in import Facts, Shape

State = Literal["queued", "running", "waiting", "succeeded", "failed", "cancelled"]
_NOWHERE = StepRef(mapper="", combiner=None, reducer="")


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation, or `alike` consecutive ones without anything below them, of which `path` is the first.

    `children_total` is None where the mapper did not map, or has not run. `seconds` is how long it ran (all of them
    together), `at` when it ended; None and empty where nobody has noted it. `attempts` are those that failed;
    `error` is the one that ended the request. `reduce` is there where reducing was a piece of work of its own.
    """

    path: str
    kind: Literal["map", "reduce"]
    step: str
    handler: str
    state: State
    alike: int = 1
    children_total: int | None = None
    children_done: int = 0
    seconds: float | None = None
    at: str = ""
    worker: str = ""
    attempts: list[ErrorReport] = []
    error: ErrorReport | None = None
    children: list[Node] = []
    reduce: Node | None = None


class Tree(msgspec.Struct, frozen=True, kw_only=True):
    """A request and its root invocation, None once that is cleaned away.

    `total` invocations are known so far, `done` of them are over. `reducers` names the handler that reduces each step.
    """

    workflow: str
    request_id: str
    request: Request
    root: Node | None
    total: int = 0
    done: int = 0
    reducers: dict[str, str] = {}


class Ran(msgspec.Struct, frozen=True):
    """When and where something ended, and the microseconds it took."""

    us: int
    at: str
    worker: str
    output: str = ""


class Seen:
    """Everything that was read of one request: filled by `take` and the three fields, then asked for its tree.

    `holds` are the workers that have something in hand, by path; `slices` and `parts` the results below each mapper,
    without their data; `attempts` those that failed, by path.
    """

    def __init__(self, w: str, r: str, request: Request, definitions: DefinitionSet) -> None:
        self.w, self.r, self.request, self.definitions = w, r, request, definitions
        self.facts = Facts()
        self.manifests: dict[str, Manifest] = {}
        self.holds: Mapping[str, list[str]] = {}
        self.slices: dict[str, dict[int, Done]] = {}
        self.parts: dict[str, dict[int, Ran]] = {}
        self.attempts: dict[str, list[ErrorReport]] = {}
        self._failed = (request.failed_invocation_id or "").partition(".")[2]
        self._unusual: dict[str, set[int]] = {}
        self._total = self._done = 0

    def take(self, name: str, entry: Entry) -> None:
        """Note the value of a done slice, a part or an attempt."""
        kind, _, rest = name.partition("/")
        if kind == "attempt":
            report = codec.decode(entry.value, ErrorReport, where=entry.key)
            self.attempts.setdefault(rest.partition("/")[0], []).append(report)
        elif kind == "part":
            p, _, child = rest.split("/")
            part = codec.decode(entry.value, Part, where=entry.key)
            self.parts.setdefault(p, {})[int(child)] = Ran(part.us, part.at, part.worker, part.output)
        elif entry.value != PARTS:
            p, _, number = rest.partition("/")
            done = codec.decode(entry.value, Done, where=entry.key)
            # The results themselves would only take memory.
            self.slices.setdefault(p, {})[int(number)] = msgspec.structs.replace(done, results=Payload())

    def output(self, p: str, of_reduce: bool) -> str:
        """What an invocation printed, as far as it was recorded."""
        parent, child = ids.parent(p)
        manifest = self.manifests.get(p)
        if manifest is not None and not of_reduce:
            return manifest.output
        part = self.parts.get(parent, {}).get(child)
        if part is not None:
            return part.output
        shape = self.facts.manifests.get(parent)
        done = self.slices.get(parent, {}).get(child // shape.slice) if shape else None
        if done is not None:
            return done.outputs.get(str(child), "")
        reports = self.reports(p)[1 if of_reduce else 0]
        return reports[-1].output if reports else ""

    def last_at(self, p: str) -> str:
        """When the last of the results below mapper `p` was recorded; empty where there is none."""
        ends = [done.at for done in self.slices.get(p, {}).values()]
        return max([*ends, *(part.at for part in self.parts.get(p, {}).values())], default="")

    def seconds(self, p: str) -> float | None:
        """How long a leaf ran; None where that is not known."""
        ran = None if p in self.manifests else self._ran(p)
        return ran.us / 1e6 if ran else None

    def tree(self) -> Tree:
        """The tree, from the root down."""
        for p in {*self.manifests, *self.attempts, *ids.ancestors(self._failed or ids.ROOT)} - {ids.ROOT}:
            parent, child = ids.parent(p)
            self._unusual.setdefault(parent, set()).add(child)
        root = None
        if ids.ROOT in self.manifests:
            is_over = self.request.state in (RequestState.SUCCEEDED, RequestState.WRITING)
            step = self.manifests[ids.ROOT].step or ""
            settled = is_over or bool(self.facts.done.get(ids.ROOT) or self.facts.parts.get(ids.ROOT))
            root = self._node("0", step, settled)
        return Tree(
            workflow=self.w,
            request_id=self.r,
            request=self.request,
            root=root,
            total=self._total,
            done=self._done,
            reducers={name: step.reducer for name, step in self.definitions.steps.items()},
        )

    def _node(self, p: str, step: str, settled: bool) -> Node:
        """The invocation at `p`; `settled` if its result is recorded."""
        shape = self.facts.manifests.get(p)
        bound = self.definitions.steps.get(step, _NOWHERE)
        of_map, of_reduce = self.reports(p)
        state = self._state(p, shape, settled)
        ran = self._ran(p)
        children: list[Node] = []
        done = 0
        if shape is not None and shape.step is not None:
            children = list(self._children(p, shape, settled))
            done = sum(child.alike for child in children if child.state == "succeeded")
        self._total += 1
        self._done += settled
        is_last = self._failed == p
        manifest = self.manifests.get(p)
        us = (ran.us if ran and shape is None else 0) or (manifest.us if manifest else 0)
        return Node(
            path=p,
            kind="map",
            step=step,
            handler=bound.mapper,
            state=state,
            children_total=shape.count if shape is not None and shape.step is not None else None,
            children_done=done,
            seconds=us / 1e6 if us or (ran and shape is None) else None,
            at=manifest.at if manifest else ran.at if ran else "",
            worker=manifest.worker if manifest else ran.worker if ran else "",
            attempts=of_map,
            error=of_map[-1] if is_last and of_map and not of_reduce else None,
            children=children,
            reduce=self._reduce(p, step, bound.reducer, shape, settled, of_reduce, ran),
        )

    def _reduce(
        self,
        p: str,
        step: str,
        handler: str,
        shape: Shape | None,
        settled: bool,
        reports: list[ErrorReport],
        ran: Ran | None,
    ) -> Node | None:
        """The reduce of `p`, where it is more than the end of a leaf's own run."""
        if shape is None and not reports:
            return None
        state: State
        if settled:
            state = "succeeded"
        elif self._failed == p and reports:
            state = "failed"
        elif self.request.state.is_final:
            state = "cancelled"
        elif shape is None or shape.step is None or fan_in.is_complete(self.facts, p):
            state = "running" if p in self.holds else "queued"
        else:
            state = "waiting"
        return Node(
            path=f"{p}.r",
            kind="reduce",
            step=step,
            handler=handler,
            state=state,
            seconds=ran.us / 1e6 if ran else None,
            at=ran.at if ran else "",
            worker=ran.worker if ran else "",
            attempts=reports,
            error=reports[-1] if state == "failed" else None,
        )

    def _children(self, p: str, shape: Shape, settled: bool) -> Iterator[Node]:
        """The children of a mapper in order; those with nothing of their own are drawn together."""
        step = shape.step or ""
        at = 0
        for child in [*sorted(self._unusual.get(p, ())), shape.count]:
            yield from self._alike(p, step, shape, at, min(child, shape.count), settled)
            if child < shape.count:
                yield self._node(ids.child(p, child), step, settled or self._is_settled(p, shape, child))
            at = child + 1

    def _alike(self, p: str, step: str, shape: Shape, first: int, to: int, settled: bool) -> Iterator[Node]:
        """Children `first` up to `to`, which have nothing of their own: a node for each run in one state."""
        if first >= to:
            return
        pending: State = "queued"
        if self.request.state.is_final:
            pending = "cancelled"
        elif p in self.holds:
            pending = "running"
        start, state = first, pending
        for child in range(first, to):
            now: State = "succeeded" if settled or self._is_settled(p, shape, child) else pending
            if now != state:
                if start < child:
                    yield self._run(p, step, start, child, state)
                start, state = child, now
        yield self._run(p, step, start, to, state)

    def _run(self, p: str, step: str, first: int, to: int, state: State) -> Node:
        self._total += to - first
        self._done += to - first if state == "succeeded" else 0
        shape = self.facts.manifests[p]
        us, known, ends, workers = 0, 0, "", set()
        for number in range(first // shape.slice, (to - 1) // shape.slice + 1):
            start, stop = fan_out.bounds(number, shape.slice, shape.count)
            done = self.slices.get(p, {}).get(number)
            if done is not None:
                some = done.us[max(first, start) - start : min(to, stop) - start]
                us, known, ends = us + sum(some), known + len(some), max(ends, done.at)
                workers.add(done.worker)
                continue
            parts = self.parts.get(p)
            for child in range(max(first, start), min(to, stop)) if parts else ():
                part = parts.get(child) if parts else None
                if part is not None:
                    us, known, ends = us + part.us, known + 1, max(ends, part.at)
                    workers.add(part.worker)
        return Node(
            path=ids.child(p, first),
            kind="map",
            step=step,
            handler=self.definitions.steps.get(step, _NOWHERE).mapper,
            state=state,
            alike=to - first,
            seconds=us / 1e6 if known else None,
            at=ends,
            worker=workers.pop() if len(workers) == 1 else "",
        )

    def _is_settled(self, p: str, shape: Shape, child: int) -> bool:
        """Whether the result of a child is recorded."""
        number = child // shape.slice
        return number in self.facts.done.get(p, ()) or child in self.facts.parts.get(p, {}).get(number, ())

    def _state(self, p: str, shape: Shape | None, settled: bool) -> State:
        if settled:
            return "succeeded"
        if self._failed == p or self._failed.startswith(f"{p}."):
            return "failed"
        if self.request.state.is_final:
            return "cancelled"
        if shape is not None:
            return "waiting"
        return "running" if ids.parent(p)[0] in self.holds else "queued"

    def _ran(self, p: str) -> Ran | None:
        """When the result of `p` came out; None where nobody noted it."""
        parent, child = ids.parent(p)
        part = self.parts.get(parent, {}).get(child)
        if part is not None:
            return part
        shape = self.facts.manifests[parent]
        done = self.slices.get(parent, {}).get(child // shape.slice)
        if done is None:
            return None
        place = child % shape.slice
        return Ran(done.us[place] if place < len(done.us) else 0, done.at, done.worker)

    def reports(self, p: str) -> tuple[list[ErrorReport], list[ErrorReport]]:
        """Failed attempts to map, and to reduce, the last of each last."""
        shape = self.facts.manifests.get(ids.parent(p)[0])
        reducer = self.definitions.steps.get((shape.step if shape else None) or "", _NOWHERE).reducer
        reports = sorted(self.attempts.get(p, []), key=lambda report: report.at)
        return [x for x in reports if x.handler != reducer], [x for x in reports if x.handler == reducer]


def find(node: Node | None, p: str) -> Node | None:
    """The node at a path; out of a node that stands for several, the one."""
    if node is None or node.path == p:
        return None if node is None else (one(node, 0) if node.alike > 1 else node)
    if not p.startswith(f"{node.path}."):
        return None
    wanted = int(p[len(node.path) + 1 :].partition(".")[0])
    for child in node.children:
        first = ids.parent(child.path)[1]
        if first <= wanted < first + child.alike:
            if child.alike == 1:
                return find(child, p)
            single = one(child, wanted - first)
            return single if single.path == p else None
    return None


def one(node: Node, offset: int) -> Node:
    """One of the invocations that a node stands for; how long it ran alone is not known any more."""
    parent, first = ids.parent(node.path)
    return msgspec.structs.replace(node, path=ids.child(parent, first + offset), alike=1, seconds=None)


def has_reduce(node: Node) -> bool:
    """Whether the reduce of a mapper was called for; one that waits for its children is not there yet.

    That of a leaf ran, as a rule, at the end of the leaf's own run, and has no node.
    """
    if node.reduce is None:
        return node.state == "succeeded"
    return node.reduce.state not in ("waiting", "cancelled")


def singly(nodes: list[Node]) -> Iterator[Node]:
    """Every invocation by itself."""
    for node in nodes:
        if node.alike == 1:
            yield node
        else:
            for offset in range(node.alike):
                yield one(node, offset)
