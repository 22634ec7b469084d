"""Tracing: look at a request while it runs, after it failed, and while the cleaner is at it.

It reads whatever facts there are, manifests last, and `tree` derives the rest; what is not there is not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from mr import codec
from mr.collections.pages import entries
from mr.errors import MrError, NotFound, RequestError, RequestNotFound
from mr.model import ids, names
from mr.model.definitions import DefinitionSet
from mr.model.invocation import ErrorReport, Manifest, WorkerRecord
from mr.model.request import Request
from mr.ports.store import Entry, Store
from mr.rules import fan_in, keys
from mr.rules.fan_in import Shape
from mr.services.tree import Seen, State, Tree, find

PREFIX_MIN = 4
"""Digits of an id that must be given; fewer find too much too easily."""
PAGE = 100
"""Records read at once: each may have 256 KiB of data in it."""


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation, in the words of JobX's record, with what it printed and its failed attempts."""

    created_timestamp: str | None
    workflow_name: str
    parent_invocation_id: str | None
    step_name: str
    direction: Literal["map", "reduce"]
    mapped_count: int | None
    mapped_waiting: int | None
    error: str | None
    state: State
    handler_name: str
    worker: str
    seconds: float | None
    finished_timestamp: str | None
    output: str
    attempts: list[ErrorReport]


class Tracing:
    """Reads the trees of requests. Safe to call from several threads."""

    def __init__(self, store: Store, definitions: Callable[[str, str], DefinitionSet]) -> None:
        self._store, self._definitions = store, definitions

    def find(self, text: str) -> tuple[str, str]:
        """Workflow and id of the request that `ID`, `WORKFLOW/ID`, or the beginning of an id stands for.

        Raises: RequestNotFound; RequestError if several requests begin so.
        """
        w, slash, begin = text.rpartition("/")
        digits = begin.lower()
        if len(digits) < PREFIX_MIN or not all(digit in "0123456789abcdef" for digit in digits) or len(digits) > 40:
            raise RequestNotFound(
                f"{text[:120]!r} is no request id",
                hint=f"40 hex digits, or the first {PREFIX_MIN} or more of them; see: mr request list",
            )
        if slash:
            workflows = [names.check("workflow", w)]
        else:
            found = entries(self._store, keys.WORKFLOWS, keys_only=True)
            workflows = [entry.key[len(keys.WORKFLOWS) :] for entry in found]
        matches: list[tuple[str, str]] = []
        for workflow in workflows:
            page = self._store.range(keys.requests(workflow) + digits, limit=2, keys_only=True)
            matches += [(workflow, entry.key.rpartition("/")[2]) for entry in page.entries]
        if not matches:
            where = f"workflow {w!r} has no request" if slash else "there is no request"
            raise RequestNotFound(f"{where} {begin}", hint="it may have been cleaned away; see: mr request list")
        if len(matches) > 1:
            several = ", ".join(f"{workflow}/{r[:12]}…" for workflow, r in matches[:5])
            raise RequestError(f"several requests begin with {begin}: {several}", hint="give more digits")
        return matches[0]

    def tree(self, w: str, r: str, *, detailed: bool = True) -> Tree:
        """The tree of a request as it is now. Without `detailed` no data is read, and times and workers are missing.

        Raises: RequestNotFound; StoreUnavailable.
        """
        return self.read(w, r, detailed).tree()

    def invocation(self, w: str, r: str, path: str) -> Invocation:
        """One invocation: `0.17`, or `0.17.r` for its reduce.

        Raises: RequestNotFound; NotFound if the request has no such invocation, or not any more.
        """
        if not names.is_path(path):
            raise NotFound(f"{path[:120]!r} is no path of an invocation", hint="such as 0, 0.17 or 0.17.r")
        seen = self.read(w, r, True)
        p = path.removesuffix(".r")
        found = find(seen.tree().root, p)
        node = found.reduce if found is not None and path != p else found
        if node is None:
            raise NotFound(f"request {r} has no invocation {path}", hint=f"which it has: mr tree {r[:12]} --all")
        above, _ = ids.parent(p)
        parent = None if p == "0" and path == p else f"{r}.{p if path != p else above}"
        manifest = seen.manifests.get(above)
        created = seen.request.created_at if above == ids.ROOT else manifest.at if manifest else ""
        report = node.error or (node.attempts[-1] if node.attempts else None)
        return Invocation(
            created_timestamp=created if path == p and created else None,
            workflow_name=w,
            parent_invocation_id=parent,
            step_name=node.step,
            direction=node.kind,
            mapped_count=node.children_total,
            mapped_waiting=None if node.children_total is None else node.children_total - node.children_done,
            error=f"{report.type}: {report.message}" if report else None,
            state=node.state,
            handler_name=node.handler,
            worker=node.worker,
            seconds=seen.seconds(p) if node.seconds is None and path == p else node.seconds,
            finished_timestamp=node.at or None,
            output=seen.output(p, path != p),
            attempts=node.attempts,
        )

    def read(self, w: str, r: str, detailed: bool = True) -> Seen:
        """Whatever facts of a request there are. Without `detailed` no data is read.

        Raises: RequestNotFound; StoreUnavailable.
        """
        entry = self._store.get(keys.request(w, r))
        if entry is None:
            raise RequestNotFound(f"workflow {w!r} has no request {r}", hint="it may have been cleaned away")
        request = codec.decode(entry.value, Request, where=entry.key)
        try:
            definitions = self._definitions(w, request.set)
        except MrError:
            definitions = DefinitionSet()  # the tree is worth showing without the names of the handlers
        seen = Seen(w, r, request, definitions)
        prefix = keys.facts(w, r)
        found: list[str] = []
        for kind in ("done/", "part/", "reduce/", "attempt/"):
            keys_only = kind == "reduce/" or (kind != "attempt/" and not detailed)
            for entry in self._entries(prefix + kind, keys_only=keys_only):
                name = entry.key[len(prefix) :]
                found.append(name)
                if not keys_only:
                    seen.take(name, entry)
        # Manifests last: a child's facts are never older than its manifest, so none of those seen lacks its own.
        for entry in self._entries(prefix + "manifest/"):
            path = entry.key[len(prefix) + len("manifest/") :]
            seen.manifests[path] = codec.decode(entry.value, Manifest, where=entry.key)
        shapes = {p: Shape(m.count, m.slice, m.step, m.session, m.execution) for p, m in seen.manifests.items()}
        seen.facts = fan_in.read(found, shapes)
        if not request.state.is_final:
            seen.holds = self._holds(w, r)
        return seen

    def _entries(self, prefix: str, *, keys_only: bool = False) -> Iterator[Entry]:
        after = ""
        while True:
            page = self._store.range(prefix, after=after, limit=5000 if keys_only else PAGE, keys_only=keys_only)
            yield from page.entries
            if not page.more:
                return
            after = page.entries[-1].key

    def _holds(self, w: str, r: str) -> dict[str, list[str]]:
        """Live workers by what they have in hand: mappers whose children they run, and reduces."""
        mine = f"{w}/{r}/"
        held: dict[str, list[str]] = {}
        for entry in self._entries(keys.WORKERS):
            record = codec.decode(entry.value, WorkerRecord, where=entry.key)
            for hold in record.holds:
                if hold.startswith(mine):
                    held.setdefault(hold[len(mine) :], []).append(entry.key[len(keys.WORKERS) :])
        return held
