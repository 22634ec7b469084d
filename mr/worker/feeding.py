"""Feeding: from a piece of work to what an executor is told, and the input of a reduce as fast as it is taken."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import Executor

import msgspec

from mr.codec import Items
from mr.errors import CorruptEntry, NotFound, StoreFull, StoreUnavailable
from mr.model import ids
from mr.model.handler import Handler
from mr.rules import limits
from mr.services.datasets import Datasets, Kind
from mr.services.progress import Visit
from mr.services.registry import Registry
from mr.services.work import MapWork, ReduceWork, Work
from mr.settings import HandlerSettings
from mr.worker import frames
from mr.worker.case import Slot
from mr.worker.executor_process import ExecutorGone, ExecutorProcess, Sink
from mr.worker.scopes import Scopes
from mr.worker.stock import Stock

_log = logging.getLogger(__name__)

AT_HAND_BYTES = 64 * 1024
"""Up to here, the input of a reduce goes along with the order."""
NAMES_KEPT = 10_000


class Feeding:
    """Knows handlers by version, and where the data of work is. `readers` are threads that may wait for the store."""

    def __init__(
        self,
        registry: Registry,
        datasets: Datasets,
        settings: HandlerSettings,
        stock: Stock,
        readers: Executor,
    ) -> None:
        self._registry, self._datasets, self._stock = registry, datasets, stock
        self._readers, self._scopes = readers, Scopes(settings.scope_factory)
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._names: dict[tuple[str, str, bool], list[tuple[str, str]]] = {}
        self._limits = frames.Limits(output=int(settings.output_max_bytes), dataset=int(settings.dataset_max_bytes))
        self._spilling = msgspec.structs.replace(self._limits, together=limits.SPILLED_MIN)

    def learn(self, w: str, version: str) -> None:
        """Have a handler at hand. Reads the store. Raises: NotFound, StoreUnavailable."""
        if (w, version) not in self._handlers:
            self._handlers[w, version] = self._registry.handler(w, version)

    def is_ready(self, visit: Visit, work: Work) -> bool:
        """Whether nothing has to be read before the work can start."""
        if not self._are_at_hand(visit, self._needed(visit, work.step, isinstance(work, MapWork))):
            return False
        return work.items is not None if isinstance(work, MapWork) else work.session is not None

    def _are_at_hand(self, visit: Visit, handlers: list[tuple[str, str]]) -> bool:
        w = visit.workflow
        return all(
            (w, version) in self._handlers and self._scopes.is_ready(w, name, version) for name, version in handlers
        )

    def fetch(self, visit: Visit, work: Work) -> None:
        """Read what the work needs. Raises: NotFound if the request is cleaned away; StoreUnavailable."""
        w, r, datasets = visit.workflow, visit.request_id, self._datasets
        for name, version in self._needed(visit, work.step, isinstance(work, MapWork)):
            self.learn(w, version)
            self._scopes.ask(w, name, version, self._handlers[w, version])
        if isinstance(work, MapWork):
            if work.items is None and work.chunks is not None:
                work.items = datasets.cut(w, r, work.chunks, work.first, work.to)
            elif work.items is None:
                work.items = datasets.arguments(w, r, work.p, work.first, work.to)
        elif work.session is None:
            work.session = datasets.session(w, r, work.p, work.level)

    def below(self, visit: Visit, work: MapWork, step: str, most: int) -> frames.Below | None:
        """Up to `most` children of a step as something to go on with; None if they may not run with this work."""
        names, definitions = visit.definitions.steps[step], visit.definitions
        held = definitions.mapper(work.step).capability
        runs = (definitions.mapper(step), definitions.reducer(step), definitions.reducer(work.step))
        if not all(self._fits(ref.capability, held) for ref in runs):
            return None
        if not self._are_at_hand(visit, self._needed(visit, step, True)):
            return None
        return frames.Below(
            step=step,
            mapper=_named(visit, names.mapper),
            combiner=_named(visit, names.combiner) if names.combiner else None,
            reducer=_named(visit, names.reducer),
            most=most,
        )

    def begin(
        self,
        executor: ExecutorProcess,
        visit: Visit,
        work: Work,
        sink: Sink,
        below: frames.Below | None = None,
        *,
        spills: bool,
    ) -> bool:
        """Give the order, and the handlers that the executor does not know yet; False if the input has yet to follow.

        `spills`: what is not small is to come alone. Raises: ExecutorGone.
        """
        may = self._spilling if spills else self._limits
        needed = self._needed(visit, work.step, isinstance(work, MapWork))
        for name, version in needed if below is None else needed + self._needed(visit, below.step, True):
            if not executor.knows(name, version):
                executor.define(name, version, self._handlers[visit.workflow, version])
            if (given := self._scopes.given(visit.workflow, name, version)) is not None:
                executor.give(visit.workflow, name, version, given)
        if isinstance(work, MapWork):
            executor.run(self._map_order(visit, work, below, may), work.items, sink)
            return True
        items = _at_hand(work)
        executor.run(self._reduce_order(visit, work, may), items, sink)
        return items is not None

    def _needed(self, visit: Visit, step: str, is_map: bool) -> list[tuple[str, str]]:
        """Names and versions of the handlers that an executor needs for a map, or for a reduce."""
        place = (visit.definitions_hash, step, is_map)
        found = self._names.get(place)
        if found is None:
            of_step = visit.definitions.steps[step]
            names = [of_step.reducer]
            if is_map:
                names += [of_step.mapper, *([of_step.combiner] if of_step.combiner else [])]
            if len(self._names) >= NAMES_KEPT:
                self._names.clear()
            found = self._names[place] = [(name, visit.definitions.handlers[name].version) for name in names]
        return found

    def _fits(self, required: str, held: str) -> bool:
        """Whether it may run beside what requires `held`: what that took of the stock holds for the whole run."""
        return self._stock.costs_nothing(required) or (required == held and self._stock.offers(required))

    def _map_order(self, visit: Visit, work: MapWork, below: frames.Below | None, may: frames.Limits) -> frames.RunMap:
        """Run children; with their reduce where this worker may."""
        step = visit.definitions.steps[work.step]
        mapper, reducer = visit.definitions.mapper(work.step), visit.definitions.reducer(work.step)
        fuses = self._fits(reducer.capability, mapper.capability)
        return frames.RunMap(
            id=work.number,
            workflow=visit.workflow,
            request=visit.request_id,
            parent=work.p,
            first=work.first,
            step=work.step,
            mapper=_named(visit, step.mapper),
            combiner=_named(visit, step.combiner) if step.combiner else None,
            reducer=_named(visit, step.reducer) if fuses else None,
            below=below,
            limits=may,
        )

    def _reduce_order(self, visit: Visit, work: ReduceWork, may: frames.Limits) -> frames.RunReduce:
        """Reduce one invocation; its input follows."""
        return frames.RunReduce(
            id=work.number,
            workflow=visit.workflow,
            request=visit.request_id,
            path=work.p,
            child=ids.parent(work.p)[1],
            step=work.step,
            reducer=_named(visit, visit.definitions.steps[work.step].reducer),
            session={key: msgspec.Raw(value) for key, value in (work.session or {}).items()},
            limits=may,
        )

    async def send_input(self, slot: Slot, executor: ExecutorProcess, visit: Visit, work: ReduceWork) -> None:
        """Send a reduce its input, from memory or from the store, no faster than the executor takes it."""
        try:
            if work.datasets is not None:
                for items in work.datasets:
                    await executor.send_input("datasets", items)
            elif isinstance(work.rows, Items):
                await executor.send_input("rows", work.rows)
            else:
                await self._send_stored(executor, visit, work)
            executor.end_input()
        except ExecutorGone:
            return
        except (NotFound, StoreUnavailable, StoreFull, CorruptEntry) as error:
            # The executor waits for input that will not come: it is replaced, and the work begins anew or ends.
            slot.verdict = "gone" if isinstance(error, NotFound) else "unfed"
            if isinstance(error, CorruptEntry):
                slot.verdict, slot.corrupt = "corrupt", error
            _log.warning("the input of %s of request %s cannot be read: %s", work.p, visit.request_id, error)
            await executor.kill()

    async def _send_stored(self, executor: ExecutorProcess, visit: Visit, work: ReduceWork) -> None:
        loop = asyncio.get_running_loop()
        pieces = self._stored(visit, work)
        while True:
            piece = await loop.run_in_executor(self._readers, next, pieces, None)
            if piece is None:
                return
            await executor.send_input(*piece)

    def _stored(self, visit: Visit, work: ReduceWork) -> Iterator[tuple[Kind, Items]]:
        w, r = visit.workflow, visit.request_id
        if work.rows is None:
            yield from self._datasets.inputs(w, r, work.p, work.level)
        elif not isinstance(work.rows, Items):
            for items in self._datasets.staged(w, r, work.rows):
                yield "rows", items


def _named(visit: Visit, name: str) -> frames.HandlerName:
    return frames.HandlerName(name, visit.definitions.handlers[name].version)


def _at_hand(work: ReduceWork) -> Items | None:
    """All input of a reduce, if it is in memory and little."""
    if work.datasets is None or sum(items.size_bytes for items in work.datasets) > AT_HAND_BYTES:
        return None
    return Items.join(work.datasets)
