"""The observer: follows every request in the store, and checks it at the moment of its end.

It needs nothing from clients: a request's arguments say what must become of it. It watches the records of all
requests, so it also sees a request that ends twice, and one whose client never heard of it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from mr import codec
from mr.errors import MrError, NotFound, StoreUnavailable, WatchLost
from mr.model import ids
from mr.model.request import Request
from mr.ports.store import Entry
from mr.rules import keys
from mr.wiring import Parts
from tests.soak.jobs import ROOT, WORKFLOW, Plan

PAUSE_S = 0.2
LOOK_S = 1.0
FENCE_S = 60.0
"""How long a fence may outlive its request where the store has no transactions; who ended it may have died."""


class Observer(threading.Thread):
    """Runs until `stop`. `accepted` and `ended` are the moments at which requests were first seen so, by id."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(name="observer", daemon=True)
        self._parts = parts
        self._stopped = threading.Event()
        self.accepted: dict[str, float] = {}
        self.ended: dict[str, float] = {}
        self.marks: dict[str, str] = {}
        self.outcomes: Counter[str] = Counter()
        self.problems: list[str] = []
        self._final_at: dict[str, int] = {}
        self._fenced: dict[str, float] = {}

    @property
    def open(self) -> set[str]:
        """Requests that are not over."""
        return self.accepted.keys() - self.ended.keys()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()
        while self._fenced:
            self._look_at_fences()
            time.sleep(PAUSE_S)

    def run(self) -> None:
        while not self._stopped.is_set():
            try:
                revision = self._look()
                with self._parts.store.watch(keys.requests(WORKFLOW), revision) as watch:
                    while not self._stopped.is_set():
                        for change in watch.next(LOOK_S):
                            if change.entry is not None:
                                self._see(change.entry)
                        self._look_at_fences()
            except (StoreUnavailable, WatchLost):
                self._stopped.wait(PAUSE_S)

    def _look(self) -> int:
        prefix = keys.requests(WORKFLOW)
        page = self._parts.store.range(prefix)
        revision = page.revision
        while True:
            for entry in page.entries:
                self._see(entry)
            if not page.more:
                return revision
            page = self._parts.store.range(prefix, after=page.entries[-1].key)

    def _see(self, entry: Entry) -> None:
        r = entry.key.rpartition("/")[2]
        request = codec.decode(entry.value, Request, where=entry.key)
        now = time.monotonic()
        self.accepted.setdefault(r, now)
        if not request.state.is_final:
            if r in self._final_at and entry.version > self._final_at[r]:
                self.problems.append(f"request {r} was over and is {request.state.value} again")
            return
        known = self._final_at.setdefault(r, entry.version)
        if entry.version > known:
            self.problems.append(f"request {r} ended twice")
        if r not in self.ended:
            self._check(r, request)
            self.ended[r] = now

    def _check(self, r: str, request: Request) -> None:
        while not self._stopped.is_set():
            try:
                self.problems += [f"request {r}: {problem}" for problem in self._problems(r, request)]
                return
            except NotFound:
                self.problems.append(f"request {r} was cleaned away before its result could be read")
                return
            except StoreUnavailable:
                time.sleep(PAUSE_S)

    def _problems(self, r: str, request: Request) -> list[str]:
        parts = self._parts
        pairs = codec.loads(parts.datasets.arguments(WORKFLOW, r, ids.ROOT, 0, 1).item(0))
        plan = Plan(**dict(pairs)[ROOT])
        self.marks[plan.mark] = r
        self.outcomes[f"{plan.shape} {request.state.value}"] += 1
        found = []
        if plan.error:
            error: dict[str, Any] = dict(request.error or {})
            if error.get("class") != plan.error:
                found.append(f"a {plan.shape} job should fail with {plan.error}, it is {request.state.value}: {error}")
        elif request.error is not None or (tokens := self._tokens(r)) != plan.tokens():
            found.append(f"a {plan.shape} job is {request.state.value}, {request.error or tokens}")
        try:
            found += self._facts(r)
        except MrError as error:
            found.append(f"its facts cannot be read: {error}")
        return found

    def _tokens(self, r: str) -> dict[str, int]:
        tokens: Counter[str] = Counter()
        for piece in self._parts.results.pairs(WORKFLOW, r):
            for document in piece:
                token, count = codec.loads(document)
                tokens[token] += count
        return dict(tokens)

    def _look_at_fences(self) -> None:
        for r, since in list(self._fenced.items()):
            if self._parts.store.get(keys.active(WORKFLOW, r)) is None:
                del self._fenced[r]
            elif time.monotonic() - since > FENCE_S:
                del self._fenced[r]
                self.problems.append(f"request {r}: it is over, and its fence still stands {FENCE_S:g} s later")

    def _facts(self, r: str) -> list[str]:
        if not self._parts.store.abilities.transactions:
            self._fenced[r] = time.monotonic()
        elif self._parts.store.get(keys.active(WORKFLOW, r)) is not None:
            return ["it is over and its fence still stands"]
        page = self._parts.store.range(keys.facts(WORKFLOW, r), keys_only=True)
        twice = [entry.key for entry in page.entries if entry.created != entry.version]
        return [f"{len(twice)} facts were written more than once, such as {twice[0]}"] if twice else []
