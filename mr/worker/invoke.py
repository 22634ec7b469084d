"""Runs invocations: map with combine and fused reduce for a range of children, or one reduce.

    mapper ──▶ first yield? ── MrConfigureToMap ──▶ each pair is the arguments of one child ──▶ Mapped
                    └─ MrConfigureToReturn ──▶ combiner ──▶ rows ──▶ reducer here? ── no ──▶ Returned
                                                                          └─ yes ──▶ pairs ──▶ Results, or Reduced

The hard part is that a child can be tiny (a few microseconds) and there are thousands of them, or huge (a gigabyte of
pairs). So the straight way through `_child` builds nothing but the handler's own lists; whatever grows leaves it by
a sink (`pairs.collect`) and goes out in chunks, or to disk.

Everything that a handler may raise ends here, as the Failed of its child. A handler cannot make a child succeed by
leaving early: SystemExit, KeyboardInterrupt and GeneratorExit are failures like any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from os import SEEK_END, lseek
from time import monotonic
from types import GeneratorType
from typing import Any, Protocol

import msgspec

from mr.codec import Items, encode
from mr.model.ids import child as child_path
from mr.rules.grouping import Groups, Spool
from mr.worker.bodies import Bodies
from mr.worker.combined import Combined, Few, GroupSink, Many, PairSpool, RowSpool, custom_rows
from mr.worker.failures import clean, describe
from mr.worker.frames import (
    BELOW,
    COMBINE,
    REDUCE,
    Cell,
    Chunk,
    Failed,
    HandlerName,
    Kind,
    Limits,
    Mapped,
    Notice,
    Reduced,
    Report,
    Returned,
    RunMap,
    RunReduce,
    Stage,
    Turn,
    pack_items,
)
from mr.worker.inputs import Inputs
from mr.worker.log import NOTICES_MAX, TEXT_MAX, By
from mr.worker.memory import Memory
from mr.worker.output import Capture
from mr.worker.pairs import Pair, PairPieces, Pieces, Sink, Spot, children, collect, generator_of
from mr.worker.scope import READ_ONLY, RETURN, Current, MapTo, Refused, SessionError

_BATCH = 256
_NOTHING = object()
_arguments: Callable[[bytes], list[list[tuple[Any, Any]]]]
_arguments = msgspec.json.Decoder(list[list[tuple[Any, Any]]]).decode
_pairs: Callable[[bytes], list[Pair]] = msgspec.json.Decoder(list[tuple[Any, Any]]).decode


class Reports(Protocol):
    """The way out of the executor."""

    def result(
        self, child: int, dataset: bytes, us: int, output: str = "", session: dict[str, msgspec.Raw] | None = None
    ) -> None:
        """The result of a child that was reduced here; kept for a moment, to be sent with others."""

    def send(self, header: Report, body: bytes = b"") -> None:
        """Another frame, after all results so far."""

    def hold(self, header: Report, body: bytes = b"", *, is_descent: bool = False) -> None:
        """The same, but it may wait a moment for what comes next."""


class Runner:
    """Runs what the supervisor asks for and reports it. `directory` takes the files of big data while they are used."""

    def __init__(
        self,
        bodies: Bodies,
        current: Current,
        capture: Capture,
        cell: Cell,
        reports: Reports,
        directory: str,
        memory: Memory,
        put_back: Callable[[], None],
    ) -> None:
        self._bodies = bodies
        self._put_back = put_back
        self._current = current
        self._session = current.session
        self._capture = capture
        self._cell = cell
        self._reports = reports
        self._directory = directory
        self._memory = memory
        self._open: list[Groups | Spool] = []
        self._files = 0
        self._spots: dict[Stage, Spot] = {}
        # Of the run, then of the child that runs.
        self._order: RunMap | RunReduce
        self._limits = Limits()
        self._number = 0
        self._told = (0, 0)
        self._mark = 0
        self._entered: tuple[Mapped, list[bytes]] | None = None
        self._started = 0.0
        self._stage: Stage = "map"
        self._generator: Any = None
        self._combined: Combined | None = None

    def run_map(self, order: RunMap, items: Items) -> int:
        """Run children until there are no more, or the cell says stop; returns the first that was not started."""
        self._begin(order, order.parent)
        return self._children(order, items, None)

    def _children(self, order: RunMap, items: Items, plain: list[bytes] | None) -> int:
        """The same; datasets of children that left no more than that go to `plain`, where it is given."""
        integers, floats = self._cell.integers, self._cell.floats
        child_index, started_index, finished_index, stop_index = Cell.CHILD, Cell.STARTED, Cell.FINISHED, Cell.STOP
        session, descriptor, result = self._session, self._capture.descriptor, self._reports.result
        current, run, one, mark = self._current, order.id, self._child, self._mark
        child, done, now = order.first, integers[finished_index], monotonic()
        for start in range(0, len(items), _BATCH):
            for arguments in _arguments(items.cut(start, start + _BATCH).array()):
                if integers[stop_index] == run:
                    return child
                floats[started_index] = self._started = now
                self._number = current.child = child
                integers[child_index] = mark | child
                dataset = one(order, arguments)
                if self._entered is not None:
                    self._go_on(order, child, *self._entered)
                    done = integers[finished_index]
                ended = monotonic()
                if dataset is not None:
                    if plain is not None:
                        plain.append(dataset)
                    if session.used or lseek(descriptor, 0, SEEK_END):
                        us = int((ended - now) * 1_000_000)
                        result(child, dataset, us, self._capture.take(), session.raw())
                    else:
                        result(child, dataset, int((ended - now) * 1_000_000))
                if session.used:
                    session.begin({}, writable=True)
                child += 1
                done += 1
                integers[finished_index] = done
                now = ended
        return child

    def _child(self, order: RunMap, arguments: list[Pair]) -> bytes | None:
        """One child: its dataset if mapper, combiner and reducer ran and it is small, else None and it was sent."""
        try:
            self._stage = "map"
            self._combined = None
            self._session.writable = True
            spot = self._spots.get("map") or self._spot("map", order.mapper)
            if spot.body.memory_mb != self._memory.now:
                self._memory.limit(spot.body.memory_mb)
            generator = self._generator = spot.body.call(arguments)
            if type(generator) is not GeneratorType:
                raise Refused(
                    "protocol",
                    f"{spot} is no generator, it gave a {type(generator).__name__}; expected it to yield "
                    "MrConfigureToMap(step) or MrConfigureToReturn() first",
                )
            first = next(generator, _NOTHING)
            source: Iterator[Any] = generator
            if first is not RETURN or spot.body.is_module:
                step, source = self._configured(first, generator, spot)
                if step is not None:
                    self._map(source, spot, step)
                    return None
            pairs = collect(source, spot, self._limits, self._pair_sink if order.combiner else self._group_sink)
            if not pairs:
                self._warn(f"{spot} returned no pairs")
            combined: Combined
            if order.combiner is not None:
                combined = self._combine(order.combiner, pairs)
            elif type(pairs) is list:
                combined = Few(pairs)
            else:
                assert isinstance(pairs, GroupSink)
                combined = Many(pairs.groups, pairs.groups.size_bytes)
            if order.reducer is None:
                self._return(combined)
                return None
            self._combined = combined
            self._stage = "reduce"
            self._cell.integers[Cell.CHILD] = self._number | self._mark | REDUCE
            self._session.writable = False
            return self._fused(self._reduce(order.reducer, combined.results))
        except BaseException as error:  # a handler's: whatever it is, it must not end the executor
            self._fail(error)
            return None
        finally:
            if self._open:
                self._close()

    def run_reduce(self, order: RunReduce, receive: Callable[[Inputs], None]) -> None:
        """Reduce one invocation; `receive` puts all of the input into what it is given."""
        self._begin(order, order.path)
        inputs = Inputs(self._groups, self._spool)
        try:
            receive(inputs)
            session = {key: bytes(value) for key, value in order.session.items()}
            self._reduce_one(order.reducer, order.child, inputs, session)
            self._cell.integers[Cell.FINISHED] = 1
        finally:
            self._close()

    def _reduce_one(self, reducer: HandlerName, child: int, inputs: Inputs, session: dict[str, bytes]) -> None:
        self._number, self._current.child = child, None
        self._started = self._cell.floats[Cell.STARTED] = monotonic()
        self._cell.integers[Cell.CHILD] = child | self._mark | REDUCE
        self._stage, self._combined = "reduce", None
        self._session.begin(session, writable=False)
        try:
            self._send_reduced(self._reduce(reducer, inputs.results))
        except BaseException as error:  # a handler's, as above
            self._fail(error)
        finally:
            self._session.begin({}, writable=True)

    def _go_on(self, order: RunMap, child: int, header: Mapped, arguments: list[bytes]) -> None:
        """Run what a child has just mapped to, and the reduce of that, as if each had been ordered by itself."""
        below, self._entered = order.below, None
        assert below is not None
        path = child_path(order.parent, child)
        inner = RunMap(
            id=order.id, workflow=order.workflow, request=order.request, parent=path, first=0, step=below.step,
            mapper=below.mapper, combiner=below.combiner, reducer=below.reducer, limits=order.limits,
        )  # fmt: skip
        items, datasets = Items.of(arguments), list[bytes]()
        session = dict(self._session.values)
        self._session.begin({}, writable=True)
        self._reports.hold(header, pack_items(items), is_descent=True)
        self._put_back()
        self._begin(inner, path, BELOW)
        is_through = self._children(inner, items, datasets) == len(items)
        if len(datasets) == len(items) and order.reducer is not None:
            self._reports.hold(Turn(id=order.id, to="reduce"))
            self._put_back()
            self._begin(order, path, BELOW)
            inputs = Inputs(self._groups, self._spool)
            inputs.add("datasets", Items.of(datasets))
            try:
                self._reduce_one(order.reducer, child, inputs, session)
            finally:
                self._close()
        elif is_through:
            self._reports.hold(Turn(id=order.id, to="back"))
        self._cell.integers[Cell.UNTOLD] = 0
        self._begin(order, order.parent)

    def tell(self, by: By, level: str, handler: str, text: str) -> None:
        """Pass on what a handler wants somebody to be told; so much of one invocation, and no more."""
        number, count = self._number, self._told[1] + 1 if self._told[0] == self._number else 1
        self._told = number, count
        if count > NOTICES_MAX:
            if count == NOTICES_MAX + 1:
                self._warn(f"more than {NOTICES_MAX} notifications by one invocation; nobody is told of the rest")
            return
        text = clean(text)[:TEXT_MAX]
        self._reports.send(
            Notice(id=self._order.id, child=number, by=by, level=level, handler=handler, text=text)  # type: ignore[arg-type]
        )

    @property
    def order(self) -> RunMap | RunReduce:
        """The run that is on, or was last."""
        return self._order

    def _begin(self, order: RunMap | RunReduce, path: str, mark: int = 0) -> None:
        self._order, self._limits, self._told, self._mark = order, order.limits, (0, 0), mark
        self._spots.clear()
        self._current.request, self._current.path, self._current.step = order.request, path, order.step
        self._capture.limit_bytes = order.limits.output
        self._session.limit_bytes = order.limits.session

    def _spot(self, stage: Stage, name: HandlerName) -> Spot:
        # Not before the child runs: executing a module for the first time is the handler's doing already.
        self._generator = None
        body = self._bodies.get(name.name, name.version, self._order.workflow)
        noun = {"map": "mapper", "combine": "combiner", "reduce": "reducer"}[stage]
        spot = self._spots[stage] = Spot(body, noun, self._order.step)
        return spot

    def _configured(self, first: Any, generator: Iterator[Any], spot: Spot) -> tuple[str | None, Iterator[Any]]:
        """What a mapper's first yield decided: the step to map to or None, and its pairs."""
        if spot.body.is_module:
            context = self._current.context
            assert context is not None
            context.closed = True
            return context.step, generator if first is _NOTHING else chain((first,), generator)
        if type(first) is MapTo:
            return first.step, generator
        got = "yields nothing first" if first is _NOTHING else f"yields a {type(first).__name__} first"
        raise Refused("protocol", f"{spot} {got}; expected MrConfigureToMap(step) or MrConfigureToReturn()")

    def _map(self, source: Iterator[Any], spot: Spot, step: str) -> None:
        pieces = Pieces(self._chunk("arguments"))
        count = children(source, spot, self._limits, pieces)
        if not count:
            self._warn(f"{spot} mapped to no children of step {step}")
        below = self._order.below if isinstance(self._order, RunMap) else None
        goes_on = below is not None and below.step == step and 0 < count <= below.most and not pieces.emitted
        header = Mapped(step=step, count=count, goes_on=goes_on, **self._closing())
        if goes_on:
            self._entered = header, pieces.documents
        else:
            self._last(pieces, header)

    def _combine(self, name: HandlerName, pairs: list[Pair] | Sink) -> Combined:
        self._stage = "combine"
        self._cell.integers[Cell.CHILD] = self._number | self._mark | COMBINE
        spot = self._spots.get("combine") or self._spot("combine", name)
        if spot.body.memory_mb != self._memory.now:
            self._memory.limit(spot.body.memory_mb)
        if isinstance(pairs, PairSpool):
            results = pairs.results()
        else:
            assert isinstance(pairs, list)
            results = _pairs(encode(pairs))
        made = self._generator = spot.body.call(results)
        combined, count = custom_rows(generator_of(made, spot), spot, self._limits, self._row_sink)
        if pairs and not count:
            self._warn(f"{spot} yielded no rows")
        return combined

    def _return(self, combined: Combined) -> None:
        pieces = Pieces(self._chunk("rows"))
        for row in combined.rows():
            pieces.add(row)
        self._last(pieces, Returned(**self._closing()))

    def _reduce(self, name: HandlerName, results: Callable[[], Sequence[Any]]) -> list[Pair] | Sink:
        spot = self._spots.get("reduce") or self._spot("reduce", name)
        if spot.body.memory_mb != self._memory.now:
            self._memory.limit(spot.body.memory_mb)
        made = self._generator = spot.body.call(results())
        source = made if type(made) is GeneratorType else generator_of(made, spot)
        pairs = collect(source, spot, self._limits, self._out_sink)
        if not pairs:
            self._warn(f"{spot} yielded no pairs")
        if self._session.refused:
            raise SessionError(READ_ONLY)
        return pairs

    def _fused(self, pairs: list[Pair] | Sink) -> bytes | None:
        if type(pairs) is list:
            dataset = encode(pairs)
            if len(dataset) <= self._limits.together:
                return dataset
        else:
            assert isinstance(pairs, PairPieces)
            if not pairs.pieces.emitted and pairs.pieces.held <= self._limits.together:
                return b"[" + b",".join(pairs.pieces.documents) + b"]"
        self._send_reduced(pairs)
        return None

    def _send_reduced(self, pairs: list[Pair] | Sink) -> None:
        if isinstance(pairs, list):
            pieces = Pieces(self._chunk("pairs"))
            for pair in pairs:
                pieces.add(encode(pair))
        else:
            assert isinstance(pairs, PairPieces)
            pieces = pairs.pieces
        self._last(pieces, Reduced(**self._closing()))

    def _fail(self, error: BaseException) -> None:
        order = self._order
        if isinstance(order, RunReduce) or self._stage == "reduce":
            assert order.reducer is not None
            name = order.reducer
        elif self._stage == "combine":
            assert order.combiner is not None
            name = order.combiner
        else:
            name = order.mapper
        generator, self._generator = self._generator, None
        self._memory.lift()
        failure = describe(error, name.name, self._bodies.source(name.name, name.version), generator)
        if failure.class_ == "memory":
            limit = self._memory.named(name.name, self._bodies.memory_mb(name.name, name.version))
            failure = failure._replace(message=f"{failure.message}; it may have {limit}" if limit else failure.message)
        # What a `finally` in the handler does or prints is still this child's, and cannot undo its failure.
        try:
            if type(generator) is GeneratorType:
                generator.close()
        except BaseException as late:
            self._warn(f"the handler raised {type(late).__name__} while it was closed")
        error.__traceback__ = None
        if self._combined is not None:
            pieces = Pieces(self._chunk("rows"))
            for row in self._combined.rows():
                pieces.add(row)
            pieces.flush()
        closing = self._closing()
        if self._combined is None:
            closing["session"] = {}
        self._reports.send(
            Failed(
                kind=self._stage,
                handler=name.name,
                version=name.version,
                returned=self._combined is not None,
                **failure._asdict(),
                **closing,
            )
        )

    def _closing(self) -> dict[str, Any]:
        """The fields that every frame which closes a child has."""
        return {
            "id": self._order.id,
            "child": self._number,
            "us": int((monotonic() - self._started) * 1_000_000),
            "session": self._session.raw() if self._session.used else {},
            "output": self._capture.take(),
        }

    def _last(self, pieces: Pieces, header: Report) -> None:
        # Below, where all is quick, a reduce is told with what comes next; what is slow is told by the outbox itself.
        tell = self._reports.hold if self._mark and isinstance(header, Reduced) else self._reports.send
        tell(header, pack_items(Items.of(pieces.documents)))

    def _chunk(self, kind: Kind) -> Callable[[list[bytes]], None]:
        header = Chunk(id=self._order.id, child=self._number, kind=kind)
        send = self._reports.send
        return lambda documents: send(header, pack_items(Items.of(documents)))

    def _warn(self, text: str) -> None:
        self._capture.write(f"WARNING {text}\n")

    def _groups(self) -> Groups:
        groups = Groups(self._limits.grouping, self._directory)
        self._open.append(groups)
        return groups

    def _spool(self) -> Spool:
        self._files += 1
        spool = Spool(os.path.join(self._directory, f"spool-{self._files}"))
        self._open.append(spool)
        return spool

    def _group_sink(self) -> GroupSink:
        return GroupSink(self._groups())

    def _pair_sink(self) -> PairSpool:
        return PairSpool(self._spool())

    def _row_sink(self) -> RowSpool:
        return RowSpool(self._spool())

    def _out_sink(self) -> PairPieces:
        return PairPieces(Pieces(self._chunk("pairs")))

    def _close(self) -> None:
        while self._open:
            self._open.pop().close()
