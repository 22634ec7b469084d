"""Prints: what the handlers of a request printed, and why attempts failed, in the order in which it was recorded.

A text stands in the fact of its invocation, so it is there when the invocation is over, not while it prints.

The hard part is to name the one who printed: the fact of a child has the text of its reduce where the child mapped,
and its own where it did not. So manifests are read first, and a watch shows them first anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from mr import codec
from mr.errors import RequestNotFound, StoreUnavailable, WatchLost
from mr.model import ids
from mr.model.invocation import PARTS, Done, ErrorReport, Manifest, Part
from mr.model.request import Request
from mr.ports.store import Entry, Store
from mr.rules import keys

PAGE = 100
"""Records read at once: each may have 256 KiB of data in it."""
LOOK_EVERY_S = 1.0


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of an invocation printed, or in one line why it failed. `attempt` counts the failed ones, else 0."""

    path: str
    kind: Literal["output", "error"]
    at: str
    worker: str
    text: str
    attempt: int = 0


class Prints:
    """Reads what was printed. Safe to call from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def so_far(self, w: str, r: str) -> list[Printed]:
        """Everything that is recorded, by the time of recording.

        Raises: RequestNotFound; StoreUnavailable.
        """
        self._request(w, r)
        return _Reader(self._store, keys.facts(w, r)).all()

    def follow(self, w: str, r: str) -> Iterator[Printed]:
        """The same, and then what comes, until the request is over, or cleaned away.

        Raises: RequestNotFound if it is not there at the beginning; StoreUnavailable.
        """
        prefix = keys.facts(w, r)
        reader = _Reader(self._store, prefix)
        self._request(w, r)
        while True:
            revision = self._store.range(prefix, limit=1, keys_only=True).revision
            # Asked before reading: of a request that is over everything is recorded.
            is_over = self._is_over(w, r)
            yield from reader.all()
            if is_over:
                return
            try:
                with self._store.watch(prefix, revision) as watch:
                    while not self._is_over(w, r):
                        for change in watch.next(LOOK_EVERY_S):
                            if change.entry is not None:
                                yield from reader.take(change.entry)
            except (WatchLost, StoreUnavailable):
                continue  # reading it all again shows what was missed

    def _request(self, w: str, r: str) -> Request:
        entry = self._store.get(keys.request(w, r))
        if entry is None:
            raise RequestNotFound(f"workflow {w!r} has no request {r}", hint="it may have been cleaned away")
        return codec.decode(entry.value, Request, where=entry.key)

    def _is_over(self, w: str, r: str) -> bool:
        try:
            return self._request(w, r).state.is_final
        except RequestNotFound:
            return True


class _Reader:
    """Takes facts, each once, and remembers which invocations mapped, and when."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._seen: dict[str, int] = {}
        self._mapped: dict[str, str] = {}

    def all(self) -> list[Printed]:
        """What stands there and was not taken yet."""
        found: list[Printed] = []
        for kind in ("manifest/", "attempt/", "done/", "part/"):
            after = ""
            while True:
                page = self._store.range(self._prefix + kind, after=after, limit=PAGE)
                for entry in page.entries:
                    found += self.take(entry)
                if not page.more:
                    break
                after = page.entries[-1].key
        return sorted(found, key=lambda one: one.at)

    def take(self, entry: Entry) -> Iterator[Printed]:
        """What one fact has to say."""
        if self._seen.get(entry.key) == entry.version:
            return
        self._seen[entry.key] = entry.version
        kind, _, name = entry.key[len(self._prefix) :].partition("/")
        p, _, rest = name.partition("/")
        if kind == "manifest":
            manifest = codec.decode(entry.value, Manifest, where=entry.key)
            self._mapped[p] = manifest.at
            yield from _output(p, manifest.at, manifest.worker, manifest.output)
        elif kind == "done" and entry.value != PARTS:
            done = codec.decode(entry.value, Done, where=entry.key)
            for child, text in done.outputs.items():
                yield from _output(self._ended(ids.child(p, int(child))), done.at, done.worker, text)
        elif kind == "part":
            part = codec.decode(entry.value, Part, where=entry.key)
            path = self._ended(ids.child(p, int(rest.partition("/")[2])))
            yield from _output(path, part.at, part.worker, part.output)
        elif kind == "attempt":
            report = codec.decode(entry.value, ErrorReport, where=entry.key)
            # An attempt from before the mapper had worked was one to map.
            path = self._ended(p) if report.at >= self._mapped.get(p, "") else p
            yield from _output(path, report.at, report.worker, report.output, report.attempt)
            yield Printed(
                path=path, kind="error", at=report.at, worker=report.worker,
                text=f"{report.type}: {report.message}", attempt=report.attempt,
            )  # fmt: skip

    def _ended(self, p: str) -> str:
        """Who wrote a result of `p`: its reduce, if it mapped, else itself."""
        return f"{p}.r" if p in self._mapped else p


def _output(path: str, at: str, worker: str, text: str, attempt: int = 0) -> Iterator[Printed]:
    if text:
        yield Printed(path=path, kind="output", at=at, worker=worker, text=text, attempt=attempt)
