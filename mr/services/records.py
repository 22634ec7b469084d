"""Records: the facts that one execution writes, as bytes under their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from mr import codec
from mr.codec import Items
from mr.model import ids
from mr.model.dataset import Chunks, Payload
from mr.model.definitions import HandlerRef
from mr.model.invocation import PARTS, Done, Due, ErrorReport, Manifest, Part
from mr.model.outcome import Data
from mr.rules import keys, limits
from mr.services.branch import Run
from mr.services.unit import Fact


class Records:
    """Makes the facts of one execution of a request."""

    def __init__(self, w: str, r: str, execution: str, worker: str, stamp: Callable[[], str]) -> None:
        self._w, self._r, self._execution, self._worker, self._stamp = w, r, execution, worker, stamp

    def mapped(self, p: str, manifest: Manifest, size: int) -> tuple[int, Fact]:
        """The manifest of a mapper that mapped, now that its slice size is settled; with its depth."""
        return self._manifest(p, msgspec.structs.replace(manifest, slice=size))

    def decided(self, step: str, count: int, args: Data, session: int, output: str, us: int) -> Manifest:
        """A mapper mapped to `step`."""
        return Manifest(
            execution=self._execution,
            step=step,
            count=count,
            args=payload(args),
            session=session,
            worker=self._worker,
            at=self._stamp(),
            us=us,
            output=fitting(output),
        )

    def returned(self, p: str, rows: Data, session: int, output: str, us: int) -> tuple[int, Fact]:
        """A mapper returned data that is reduced later: the data becomes a manifest of its own."""
        manifest = Manifest(
            execution=self._execution,
            data=payload(rows),
            session=session,
            worker=self._worker,
            at=self._stamp(),
            us=us,
            output=fitting(output),
        )
        return self._manifest(p, manifest)

    def _manifest(self, p: str, manifest: Manifest) -> tuple[int, Fact]:
        return ids.depth(p), Fact(keys.manifest(self._w, self._r, p), codec.encode(manifest))

    def session(self, p: str, values: dict[str, bytes]) -> list[tuple[int, Fact]]:
        """The session of mapper `p`, under this execution; it stands before the manifest that names it."""
        return [
            (ids.depth(p), Fact(keys.session(self._w, self._r, p, self._execution, name), value, once=False))
            for name, value in values.items()
        ]

    def done(self, p: str, number: int, items: Items, runs: list[Run]) -> Fact:
        """The results of a whole slice."""
        record = Done(
            execution=self._execution,
            results=Payload(inline=items.raw()),
            worker=self._worker,
            at=self._stamp(),
            us=[us for run in runs for us in run.us],
            outputs=_sharing({str(child): text for run in runs for child, text in run.outputs.items()}),
        )
        return Fact(keys.done(self._w, self._r, p, number), codec.encode(record))

    def parts(self, p: str, number: int) -> Fact:
        """All parts of a slice stand."""
        return Fact(keys.done(self._w, self._r, p, number), PARTS)

    def part(self, p: str, number: int, child: int, result: Payload, us: int, output: str) -> Fact:
        """The result of one child."""
        record = Part(
            execution=self._execution,
            result=result,
            worker=self._worker,
            at=self._stamp(),
            us=us,
            output=fitting(output),
        )
        return Fact(keys.part(self._w, self._r, p, number, child), codec.encode(record))

    def parts_of(self, p: str, number: int, runs: list[Run]) -> Iterator[Fact]:
        """The results of these children of one slice, a part each."""
        for run in runs:
            for child, document in enumerate(run.items, run.first):
                result = Payload(inline=msgspec.Raw(document))
                yield self.part(p, number, child, result, run.us[child - run.first], run.outputs.get(child, ""))

    def due(self, p: str) -> Fact:
        """The reduce of `p` is due."""
        return Fact(keys.reduce(self._w, self._r, p), codec.encode(Due(execution=self._execution)))

    def attempt(self, p: str, budget: str, nth: int, report: ErrorReport) -> Fact:
        """A failed attempt; filled in with who and when by `blame`."""
        report = msgspec.structs.replace(report, output=fitting(report.output))
        key = keys.attempt(self._w, self._r, p, budget, f"{self._execution}.{nth}")
        return Fact(key, codec.encode(report), report=report)

    def blame(self, p: str, handler: str, ref: HandlerRef, nth: int, report: ErrorReport) -> ErrorReport:
        """The report with the names that the client, and whoever looks later, needs."""
        return msgspec.structs.replace(
            report,
            handler=handler,
            handler_type=ref.handler_type,
            version=ref.version,
            invocation=f"{self._r}.{p}",
            attempt=nth,
            worker=self._worker,
            at=self._stamp(),
        )


def payload(data: Data) -> Payload:
    """Data as it stands in a record."""
    return Payload(chunks=data) if isinstance(data, Chunks) else Payload(inline=data.raw())


def fitting(text: str, most: int = limits.OUTPUT_MAX) -> str:
    """Printed output as it goes into a record: at most so many bytes as JSON, and flagged where it is cut."""
    size = len(codec.encode(text))
    if size <= most:
        return text
    kept = text
    while (size := len(codec.encode(kept))) > most:
        kept = kept[: len(kept) * most // size - 1]
    return f"{kept}\n… output cut at {most} bytes, which is what a record takes"


def _sharing(outputs: dict[str, str]) -> dict[str, str]:
    """Outputs that go into one record: the first ones whole, and none is left out without a word."""
    room, fair = limits.OUTPUT_MAX, limits.OUTPUT_MAX // max(len(outputs), 1)
    for child, text in outputs.items():
        outputs[child] = fitting(text, max(room, fair))
        room -= len(codec.encode(outputs[child]))
    return outputs
