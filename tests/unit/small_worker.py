"""A worker without processes: it runs the real services over a store, one piece of work at a time.

What mappers do is a plain function: `decide(path, pairs)` gives the pairs to return, or (step, list of children's
pairs) to map, with a session (JSON by key) behind them if there is one; whatever it raises fails the invocation, as
an exception, or as what the exception's `class_` says. Reducers add up.
"""

from __future__ import annotations

import traceback
from array import array
from collections.abc import Callable
from typing import Any

from mr import codec
from mr.clock import SystemClock, stamp
from mr.codec import Items
from mr.model import ids
from mr.model.invocation import ErrorReport
from mr.model.message import Message, seal
from mr.model.outcome import Failed, Mapped, Reduced, Results
from mr.ports.result_writer import ResultWriter
from mr.services.briefing import Briefing
from mr.services.committer import Committer
from mr.services.progress import Visit
from mr.services.quota import Quota
from mr.services.work import MapWork, ReduceWork, Worker
from mr.services.writing import Writers, Writing
from mr.wiring import Parts

Decide = Callable[[str, list[Any]], Any]


class SmallWorker:
    """Runs requests on command. `spreads`: as if each visit were so old that it shares its work."""

    def __init__(self, parts: Parts, decide: Decide, *, batch_size: int | None = None) -> None:
        self.parts, self.decide = parts, decide
        clock = SystemClock()
        worker = Worker(
            name="w1", offers="general".__eq__, slots=lambda: 2,
            seal=lambda message: seal(message, parts.message_key), now=clock.monotonic,
            stamp=lambda: stamp(clock.now()), seconds_each=lambda version: None, batch_size=batch_size,
            writes=parts.writers is not None,
        )  # fmt: skip
        registry = parts.registry
        self.briefing = Briefing(parts.store, parts.datasets, registry.definitions, registry.known, worker)
        self.committer = Committer(
            parts.store, parts.publisher, parts.receipts, clock, parts.retention,
            Quota(parts.store, parts.settings.store.request_max_bytes, "w1", lambda: 1), lambda seconds: None,
            events=parts.events, blobs=parts.blobs,
        )  # fmt: skip

    def visit(self, w: str, r: str) -> Visit | None:
        """A visit of whatever is due of a request."""
        epoch = self.parts.results.request(w, r).epoch
        return self.briefing.open(Message(w=w, r=r, epoch=epoch, set="", kind="map", p=ids.ROOT, to=1, again=True))

    def work(self, w: str, r: str, *, pieces: int | None = None, drain: bool = False) -> None:
        """Run up to `pieces` pieces of work (all of them without), and commit what came out."""
        visit = self.visit(w, r)
        while visit is not None and not visit.is_over and pieces != 0:
            piece = visit.next(16)
            if piece is not None:
                self._run(visit, piece)
                pieces = None if pieces is None else pieces - 1
            if piece is None or pieces == 0:
                self._commit(visit, drain)

    def write(self, w: str, r: str, writer: ResultWriter | Writers | None = None) -> float | None:
        """Write the result of a request, as a message asks for it; after how long it should come again."""
        writers = Writers(writer) if isinstance(writer, ResultWriter) else writer or self.parts.writers
        assert writers is not None
        writing = Writing(
            self.parts.store,
            self.parts.datasets,
            self.committer,
            writers,
            worker=ids.new_worker_id(),
            stamp=lambda: stamp(SystemClock().now()),
        )
        epoch = self.parts.results.request(w, r).epoch
        return writing.write(Message(w=w, r=r, epoch=epoch, set="", kind="write", p=ids.ROOT))

    def _commit(self, visit: Visit, drain: bool) -> None:
        unit = visit.harvest(share=drain, drain=drain)
        if unit is not None:
            (receipt,) = self.committer.commit([unit])
            visit.committed(receipt)

    def _run(self, visit: Visit, piece: MapWork | ReduceWork) -> None:
        w, r = visit.workflow, visit.request_id
        if isinstance(piece, ReduceWork):
            visit.record(piece, Reduced(child=ids.parent(piece.p)[1], pairs=self._reduced(visit, piece), us=1000))
            visit.finished(piece)
            return
        items = piece.items
        if items is None:
            items = self.parts.datasets.arguments(w, r, piece.p, piece.first, piece.to)
        for child, item in enumerate(items, piece.first):
            p = ids.child(piece.p, child)
            try:
                decided = self.decide(p, codec.decode(item, list[Any]))
            except Exception as error:  # the handler's own
                report = ErrorReport(
                    class_=getattr(error, "class_", "exception"), type=type(error).__name__, message=str(error),
                    traceback=traceback.format_exc(), output=f"{p} was here\n",
                )  # fmt: skip
                visit.record(piece, Failed(child=child, report=report))
                break
            if isinstance(decided, tuple):
                step, children, *kept = decided
                args = Items.of([codec.encode(pairs) for pairs in children])
                session = kept[0] if kept else {}
                mapped = Mapped(child=child, step=step, args=args, session=session, output=f"{p} maps\n", us=500)
                visit.record(piece, mapped)
            else:
                done = Items.of([codec.encode(decided)])
                visit.record(piece, Results(first=child, items=done, us=array("I", [2000]), outputs={child: f"{p}\n"}))
        visit.finished(piece)

    def _reduced(self, visit: Visit, piece: ReduceWork) -> Items:
        totals: dict[str, int] = {}
        if piece.datasets is not None:
            runs = list(piece.datasets)
        else:
            inputs = self.parts.datasets.inputs(visit.workflow, visit.request_id, piece.p, piece.level)
            runs = [items for _, items in inputs]
        for items in runs:
            for dataset in items:
                for key, value in codec.decode(dataset, list[Any]):
                    totals[key] = totals.get(key, 0) + value
        return Items.of([codec.encode(pair) for pair in sorted(totals.items())])
