"""Dump: every invocation of a request with its data, in the order of the tree.

The hard part is size: there may be ten thousand invocations, and a gigabyte of data. Records that many children share
are read once, as the walk comes by, and of each dataset no more is taken than is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Literal

import msgspec

from mr.codec import Items
from mr.errors import NotFound
from mr.model import ids
from mr.model.invocation import ErrorReport, Manifest
from mr.rules import fan_out
from mr.services.datasets import Datasets
from mr.services.excerpts import PAIRS, Excerpt, excerpt
from mr.services.tracing import Tracing
from mr.services.tree import Node, Seen, State, Tree, has_reduce, singly


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation and how it is reached: the parent has mapped to it, or was reduced by it; the root has none.

    Data is None where it is not there: not yet, not any more, or never by itself, as what the common leaf combines,
    which is reduced at once. `combined` are rows `[key, [value, …]]`, the others pairs.
    """

    relation: Literal["root", "mapped", "reduced"]
    path: str
    step: str
    handler: str
    state: State
    parent_path: str = ""
    parent_step: str = ""
    worker: str = ""
    seconds: float | None = None
    arguments: Excerpt | None = None
    combined: Excerpt | None = None
    reduced: Excerpt | None = None
    error: ErrorReport | None = None
    attempts: list[ErrorReport] = []


class Dump:
    """Reads whole requests. Safe to call from several threads."""

    def __init__(self, tracing: Tracing, datasets: Datasets) -> None:
        self._tracing, self._datasets = tracing, datasets

    def of(self, w: str, r: str, *, limit: int | None = PAIRS) -> tuple[Tree, Iterator[Visit]]:
        """The request, and its invocations one by one, with at most `limit` pairs of each dataset.

        Raises: RequestNotFound; StoreUnavailable.
        """
        seen = self._tracing.read(w, r)
        tree = seen.tree()
        if tree.root is None:
            return tree, iter(())
        return tree, _Walk(self._datasets, seen, tree, limit).below(None, ids.ROOT, [tree.root])


class _Walk:
    """One way through a tree."""

    def __init__(self, datasets: Datasets, seen: Seen, tree: Tree, limit: int | None) -> None:
        self._datasets, self._manifests, self._limit = datasets, seen.manifests, limit
        self._w, self._r, self._reducers = seen.w, seen.r, tree.reducers

    def below(self, parent: Node | None, p: str, nodes: list[Node]) -> Iterator[Visit]:
        """The children of the mapper at `p`, each with what is below it."""
        if not nodes:
            return
        manifest = self._manifests[p]
        arguments, results = self._arguments(manifest), self._results(p, manifest)
        for node, argument, result in zip(singly(nodes), arguments, results, strict=False):
            yield self._map(node, parent, argument, result)
            yield from self.below(node, node.path, node.children)
            if has_reduce(node):
                yield self._reduce(node)

    def _map(self, node: Node, parent: Node | None, argument: Excerpt | None, result: Excerpt | None) -> Visit:
        return Visit(
            relation="mapped" if parent is not None else "root",
            path=node.path,
            step=node.step,
            handler=node.handler,
            state=node.state,
            parent_path=parent.path if parent is not None else "",
            parent_step=parent.step if parent is not None else "",
            worker=node.worker,
            seconds=node.seconds,
            arguments=argument,
            combined=self._combined(node),
            reduced=result,
            error=node.error,
            attempts=node.attempts,
        )

    def _reduce(self, node: Node) -> Visit:
        reduce = node.reduce
        return Visit(
            relation="reduced",
            path=f"{node.path}.r",
            step=node.step,
            handler=self._reducers.get(node.step, ""),
            state=reduce.state if reduce is not None else node.state,
            parent_path=node.path,
            parent_step=node.step,
            worker=reduce.worker if reduce is not None else node.worker,
            seconds=reduce.seconds if reduce is not None else None,
            error=reduce.error if reduce is not None else None,
            attempts=reduce.attempts if reduce is not None else [],
        )

    # -- data ---------------------------------------------------------------------------------------------------------

    def _arguments(self, manifest: Manifest) -> Iterator[Excerpt | None]:
        """The arguments of the children in order, and None for ever where they end."""
        try:
            for items in self._datasets.elements(self._w, self._r, manifest.args):
                for document in items:
                    yield self._one(document)
        except NotFound:
            pass
        while True:
            yield None

    def _results(self, p: str, manifest: Manifest) -> Iterator[Excerpt | None]:
        """The results of the children in order, None where there is none."""
        for number in range(fan_out.slices(manifest.count, manifest.slice)):
            yield from self._slice(p, number, manifest)

    def _slice(self, p: str, number: int, manifest: Manifest) -> Iterator[Excerpt | None]:
        start, stop = fan_out.bounds(number, manifest.slice, manifest.count)
        pieces = self._datasets.whole_slice(self._w, self._r, p, number)
        if pieces is None:
            for child in range(start, stop):
                yield excerpt(self._datasets.part_result(self._w, self._r, p, number, child), self._limit)
            return
        known = start
        try:
            for document in chain.from_iterable(pieces):
                yield self._one(document)
                known += 1
        except NotFound:
            pass
        yield from (None for _ in range(known, stop))

    def _combined(self, node: Node) -> Excerpt | None:
        """What a mapper returned that was, or is to be, reduced by itself."""
        manifest = self._manifests.get(node.path)
        if manifest is None or manifest.step is not None:
            return None
        rows = self._datasets.elements(self._w, self._r, manifest.data)
        return excerpt((("rows", items) for items in rows), self._limit)

    def _one(self, document: bytes) -> Excerpt | None:
        return excerpt([("datasets", Items.of([document]))], self._limit)
