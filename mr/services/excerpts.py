"""Excerpts: the first pairs that went into an invocation and came out of it, for somebody who looks.

Data may be a gigabyte; nobody reads more of it here than he shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from mr import codec
from mr.codec import Items
from mr.errors import NotFound
from mr.model import ids
from mr.model.invocation import Manifest
from mr.model.message import Level
from mr.services.datasets import Datasets, Kind

PAIRS = 20


class Excerpt(msgspec.Struct, frozen=True, kw_only=True):
    """Pairs `[key, value]`, the first of them; of combined data `[key, [value, …]]`. `is_cut` if there are more."""

    pairs: list[Any]
    is_cut: bool = False


class Excerpts:
    """Reads excerpts. None stands for what is not there: not yet, or not any more."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    def arguments(self, w: str, r: str, path: str, *, limit: int | None = PAIRS) -> Excerpt | None:
        """What an invocation was given: the arguments of a mapper, the results of the children for a reduce.

        `path` is one of the request's, `0.17`, or `0.17.r` for the reduce.
        """
        p = path.removesuffix(".r")
        if path != p:
            manifest = self._datasets.manifest(w, r, p)
            return excerpt(self._datasets.inputs(w, r, p, _level(manifest)), limit) if manifest else None
        above, child = ids.parent(p)
        return excerpt(self._argument(w, r, above, child), limit)

    def result(self, w: str, r: str, path: str, *, limit: int | None = PAIRS) -> Excerpt | None:
        """What came out of an invocation that did not map; for one that did, ask for its reduce."""
        p = path.removesuffix(".r")
        manifest = self._datasets.manifest(w, r, p) if path == p else None
        if manifest is not None:
            return None if manifest.step else excerpt(self._datasets.inputs(w, r, p, _level(manifest)), limit)
        above, child = ids.parent(p)
        parent = self._datasets.manifest(w, r, above)
        return excerpt(self._datasets.result(w, r, above, child, _level(parent)), limit) if parent else None

    def _argument(self, w: str, r: str, p: str, child: int) -> Iterator[tuple[Kind, Items]]:
        yield "datasets", self._datasets.arguments(w, r, p, child, child + 1)


def _level(manifest: Manifest) -> Level:
    return Level(manifest.count, manifest.slice, manifest.step or "", manifest.session, manifest.execution)


def excerpt(data: Iterable[tuple[Kind, Items]], limit: int | None) -> Excerpt | None:
    """The first pairs of some data; None where there is none, or none any more."""
    pairs: list[Any] = []
    try:
        for pair in islice(_pairs(data), None if limit is None else limit + 1):
            pairs.append(pair)
    except NotFound:
        # Slices that are not done yet: what came so far is worth showing.
        return Excerpt(pairs=pairs[:limit], is_cut=True) if pairs else None
    return Excerpt(pairs=pairs[:limit], is_cut=limit is not None and len(pairs) > limit)


def _pairs(data: Iterable[tuple[Kind, Items]]) -> Iterator[Any]:
    for kind, items in data:
        for document in items:
            value = codec.decode(document, list[Any])
            if kind == "datasets":
                yield from value
            else:
                yield value
