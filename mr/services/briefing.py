"""Briefing: from a message to a visit, with whatever has to be read first.

A first delivery with its arguments needs no read: the definition set is known, the shape of the tree travels
with the message. Everything else (delivered again, published again, no arguments, not sealed by us) is looked at
against the store: what is done is skipped, what is due becomes the visit's work.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count
from threading import Lock

from mr import codec
from mr.codec import Items
from mr.errors import UnknownStep
from mr.model import ids
from mr.model.definitions import DefinitionSet
from mr.model.invocation import Manifest
from mr.model.message import Level, Message
from mr.model.request import Active, Request, RequestState
from mr.ports.store import Store
from mr.rules import fan_in, keys
from mr.rules.fan_in import Facts, Shape
from mr.services.datasets import Datasets
from mr.services.progress import Visit
from mr.services.work import Worker

SURVEYS_MAX = 8
"""Requests whose newest survey is kept; one of a million children has a few thousand facts."""


class Briefing:
    """Opens messages. Safe to call from several threads."""

    def __init__(
        self,
        store: Store,
        datasets: Datasets,
        definitions: Callable[[str, str], DefinitionSet],
        known: Callable[[str, str], DefinitionSet | None],
        worker: Worker,
    ) -> None:
        self._store, self._datasets = store, datasets
        self._definitions, self._known = definitions, known
        self._worker = worker
        self._counter = count(1)
        self._surveys: OrderedDict[tuple[str, str], _Survey] = OrderedDict()
        self._lock = Lock()

    def open_quickly(self, message: Message) -> Visit | None:
        """A visit, if that takes no read; else None, and `open` is for a thread that may wait."""
        if message.again or not message.levels:
            return None
        definitions = self._known(message.w, message.set)
        if definitions is None or (message.kind == "map" and not message.has_args):
            return None
        return self._first_time(message, definitions)

    def open(self, message: Message, *, again: bool = False, since: float | None = None) -> Visit | None:
        """A visit, read from the store as far as needed; None if the request is over.

        `since`: the message has been here since then, on the worker's clock; what was read later will do for it.
        When a broker forgets everything, hundreds come again at once, and each look reads the whole request.
        Raises: StoreUnavailable.
        """
        if not (again or message.again) and message.levels:
            return self._first_time(message, self._definitions(message.w, message.set))
        return self._once_more(message, since)

    def _visit(
        self,
        message: Message,
        definitions_hash: str,
        definitions: DefinitionSet,
        levels: dict[str, Level],
        request: bytes | None,
    ) -> Visit:
        for level in levels.values():
            if level.step and level.step not in definitions.steps:
                raise UnknownStep(f"definition set {definitions_hash} of workflow {message.w} has no step {level.step}")
        return Visit(
            worker=self._worker,
            execution=f"{self._worker.name}.{next(self._counter)}",
            workflow=message.w,
            request_id=message.r,
            epoch=message.epoch,
            definitions_hash=definitions_hash,
            definitions=definitions,
            levels=levels,
            request=request,
        )

    def _first_time(self, message: Message, definitions: DefinitionSet) -> Visit:
        paths = ids.ancestors(message.p)
        levels = dict(zip(paths, message.levels, strict=True))
        request = bytes(message.request)
        visit = self._visit(message, message.set, definitions, levels, request if request != b"null" else None)
        if message.kind == "reduce":
            visit.add_reduce(message.p)
        else:
            items = Items.parse(message.args) if message.has_args else None
            visit.add_map(message.p, message.from_, message.to, items)
        return visit

    def _once_more(self, message: Message, since: float | None) -> Visit | None:
        w, r = message.w, message.r
        active = self._store.get(keys.active(w, r))
        entry = self._store.get(keys.request(w, r))
        if active is None or entry is None:
            return None
        if codec.decode(active.value, Active, where=active.key).epoch != message.epoch:
            return None
        request = codec.decode(entry.value, Request, where=entry.key)
        facts = self._facts(w, r, since)
        levels = {
            p: Level(shape.count, shape.slice, shape.step or "", shape.session, shape.execution)
            for p, shape in facts.manifests.items()
        }
        visit = self._visit(message, request.set, self._definitions(w, request.set), levels, None)
        if request.state is not RequestState.RUNNING:
            (visit.add_write if request.state is RequestState.WRITING else visit.add_end)()
            return visit
        if message.p not in facts.manifests and message.p != ids.ROOT:
            return None
        for due in due_for(facts, message):
            match due.kind:
                case "map":
                    visit.add_map(due.p, due.first, due.to, None)
                case "slice":
                    visit.add_slice(due.p, due.first)
                case "reduce":
                    visit.add_reduce(due.p)
                case "end":
                    visit.add_end()
        return visit

    def _facts(self, w: str, r: str, since: float | None) -> Facts:
        """A survey of the request that began after `since`; one of its own if that is not said."""
        if since is None:
            return survey(self._store, w, r)
        with self._lock:
            found = self._surveys.setdefault((w, r), _Survey())
            self._surveys.move_to_end((w, r))
            if len(self._surveys) > SURVEYS_MAX:
                self._surveys.popitem(last=False)
        with found.lock:
            if found.began <= since:
                began = self._worker.now()
                found.facts = survey(self._store, w, r)
                found.began = began
            return found.facts


class _Survey:
    """The newest survey of one request, and when it began. Whoever comes meanwhile waits for it under the lock."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.began = -math.inf
        self.facts = Facts()


def due_for(facts: Facts, message: Message) -> Iterator[fan_in.Due]:
    """What a message that comes again still asks for.

    What it asked for may be done. Then perhaps its worker died before it could climb, and this message is the only
    trace of that: so what has become due above by it is asked for, too.
    """
    for path in ids.ancestors(message.p)[1:]:
        parent, child = ids.parent(path)
        if parent not in facts.manifests:
            return
        if fan_in.is_recorded(facts, parent, child):
            yield from fan_in.due_above(facts, parent, child)
            return
    if message.kind == "map":
        yield from fan_in.due(facts, message.p, message.from_, message.to)
    else:
        yield from fan_in.due(facts, message.p)


def survey(store: Store, w: str, r: str) -> Facts:
    """All facts about the invocations of a request."""
    prefix = keys.facts(w, r)
    names: list[str] = []
    for kind in ("done/", "part/", "reduce/"):
        after = ""
        while True:
            page = store.range(prefix + kind, after=after, keys_only=True, limit=5000)
            names += [entry.key[len(prefix) :] for entry in page.entries]
            if not page.more:
                break
            after = page.entries[-1].key
    # Manifests last: a child's facts are never older than its manifest, so none of those seen lacks its own.
    return fan_in.read(names, shapes(store, w, r))


def shapes(store: Store, w: str, r: str) -> dict[str, Shape]:
    """The shape of every manifest of a request."""
    prefix = keys.manifest(w, r, "")
    found: dict[str, Shape] = {}
    after = ""
    while True:
        page = store.range(prefix, after=after, limit=100)
        for entry in page.entries:
            manifest = codec.decode(entry.value, Manifest, where=entry.key)
            shape = Shape(manifest.count, manifest.slice, manifest.step, manifest.session, manifest.execution)
            found[entry.key[len(prefix) :]] = shape
        if not page.more:
            return found
        after = page.entries[-1].key
