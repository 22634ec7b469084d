"""Timeline: when what of a request ran on which worker.

Records say when something ended, on which worker, and for how long handlers ran; a bar begins that long before its
end. The children of a slice have one record, and quick ones that were recorded together are like that: their bar is
as long as all of them ran, but begins no earlier than their mapper had decided, for several executors work on a slice
at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import datetime
from typing import Literal

import msgspec

from mr.clock import Clock, stamp
from mr.model import ids
from mr.model.request import Request
from mr.rules import fan_out
from mr.services.sweeper import due_of
from mr.services.tracing import Tracing
from mr.services.tree import Ran, Seen

LATE_S = 0.02
"""How late an end may be noted: bars of one executor seem to overlap that much, and share a lane all the same."""
LANES_MAX = 8
"""Rows that one worker takes; what overlaps even more is drawn over each other."""

QUICK_US, TOGETHER_S = 100_000, 0.01
"""Children that ran no longer, and were recorded so soon after each other on one worker, are one bar."""


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """`count` invocations from `path` on, from `start_s` to `end_s` after the request was created.

    `busy_s` is how long their handlers ran, added up. A failed attempt has no length: nobody notes when it began.
    """

    worker: str
    kind: Literal["map", "reduce"]
    state: Literal["succeeded", "failed", "running"]
    path: str
    step: str
    start_s: float
    end_s: float
    busy_s: float = 0.0
    count: int = 1
    text: str = ""


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The bars of a request in the lanes of each worker: those of one lane follow each other.

    `seconds` is how long the request took, or has run so far.
    """

    workflow: str
    request_id: str
    request: Request
    seconds: float
    workers: dict[str, list[list[Bar]]]


class Timelines:
    """Reads timelines. Safe to call from several threads."""

    def __init__(self, tracing: Tracing, clock: Clock) -> None:
        self._tracing, self._clock = tracing, clock

    def of(self, w: str, r: str) -> Timeline:
        """The timeline of a request, as far as it has come.

        Raises: RequestNotFound; StoreUnavailable.
        """
        seen = self._tracing.read(w, r)
        now = stamp(self._clock.now())
        bars = sorted(_bars(seen, now), key=lambda bar: (bar.start_s, bar.end_s))
        ended = _after(seen, seen.request.finished_at or now)
        workers: dict[str, list[Bar]] = {}
        for bar in bars:
            workers.setdefault(bar.worker, []).append(bar)
        return Timeline(
            workflow=w,
            request_id=r,
            request=seen.request,
            seconds=max([ended, *(bar.end_s for bar in bars)]),
            workers={worker: lanes(mine) for worker, mine in workers.items()},
        )


def lanes(bars: list[Bar]) -> list[list[Bar]]:
    """Bars, sorted by their starts, in as few rows as hold them without overlapping, if that is not too many."""
    found: list[list[Bar]] = []
    free: list[tuple[float, int]] = []
    for bar in bars:
        begins = bar.start_s + min(LATE_S, (bar.end_s - bar.start_s) / 2)
        if free and (free[0][0] <= begins or len(found) == LANES_MAX):
            end, lane = heapq.heappop(free)
            found[lane].append(bar)
        else:
            end, lane = 0.0, len(found)
            found.append([bar])
        heapq.heappush(free, (max(end, bar.end_s), lane))
    return found


def _bars(seen: Seen, now: str) -> Iterator[Bar]:
    for p, manifest in seen.manifests.items():
        if p != ids.ROOT:
            step = _step_of(seen, ids.parent(p)[0])
            yield _bar(seen, manifest.worker, "map", p, step, manifest.at, manifest.us)
    for p in seen.facts.manifests:
        ran = sorted(_results(seen, p).items(), key=lambda pair: (pair[1].worker, pair[1].at, pair[0]))
        yield from _children(seen, p, ran)
    for path, reports in seen.attempts.items():
        of_map, of_reduce = seen.reports(path) if path != ids.ROOT else ([], reports)
        for report in [*of_map, *of_reduce]:
            at = _after(seen, report.at)
            kind: Literal["map", "reduce"] = "reduce" if report in of_reduce else "map"
            step = _step_of(seen, ids.parent(path)[0]) if path != ids.ROOT else ""
            yield Bar(
                worker=report.worker, kind=kind, state="failed", path=path, step=step, start_s=at, end_s=at,
                text=f"attempt {report.attempt}: {report.type}: {report.message}",
            )  # fmt: skip
    yield from _running(seen, now)


def _results(seen: Seen, p: str) -> dict[int, Ran]:
    """When and where the children of a mapper were done; parts below a finished slice are history."""
    shape = seen.facts.manifests[p]
    found = dict(seen.parts.get(p, {}))
    for number, done in seen.slices.get(p, {}).items():
        start, _ = fan_out.bounds(number, shape.slice, shape.count)
        found.update((child, Ran(us, done.at, done.worker)) for child, us in enumerate(done.us, start))
    return found


def _children(seen: Seen, p: str, ran: list[tuple[int, Ran]]) -> Iterator[Bar]:
    """Children of one mapper, in the order of their ends: a bar for each reduce, and for leaves that ended together."""
    step = _step_of(seen, p)
    together: list[tuple[int, Ran]] = []
    for child, one in ran:
        path = ids.child(p, child)
        if path in seen.manifests:
            yield _bar(seen, one.worker, "reduce", f"{path}.r", step, one.at, one.us)
            continue
        if together and not _ended_together(together[-1][1], one):
            yield _leaves(seen, p, step, together)
            together = []
        together.append((child, one))
    if together:
        yield _leaves(seen, p, step, together)


def _ended_together(before: Ran, one: Ran) -> bool:
    """Whether two results were recorded by one visit; of what ran long, each is told by itself."""
    if before.worker != one.worker or before.at == one.at:
        return before.worker == one.worker
    return max(before.us, one.us) <= QUICK_US and _between(before.at, one.at) <= TOGETHER_S


def _leaves(seen: Seen, p: str, step: str, together: list[tuple[int, Ran]]) -> Bar:
    """One bar, which does not begin before its mapper had decided: several executors may have run them at once."""
    (first, _), (_, last) = together[0], together[-1]
    busy = sum(one.us for _, one in together)
    bar = _bar(seen, last.worker, "map", ids.child(p, first), step, last.at, busy, len(together))
    manifest = seen.manifests.get(p)
    decided = _after(seen, manifest.at) if manifest and manifest.at else 0.0
    return msgspec.structs.replace(bar, start_s=min(max(bar.start_s, decided), bar.end_s))


def _running(seen: Seen, now: str) -> Iterator[Bar]:
    """What live workers have in hand and is due: who runs a mapper's child holds the mappers above it, too."""
    for due in {one.p: one for one in due_of(seen.request, seen.facts) if one.kind in ("map", "reduce")}.values():
        is_reduce = due.kind == "reduce"
        manifest = seen.manifests[due.p]
        since = (seen.last_at(due.p) if is_reduce else "") or manifest.at or seen.request.created_at
        for worker in seen.holds.get(due.p, ()):
            yield Bar(
                worker=worker,
                kind="reduce" if is_reduce else "map",
                state="running",
                path=f"{due.p}.r" if is_reduce else ids.child(due.p, due.first),
                step=_step_of(seen, ids.parent(due.p)[0] if is_reduce else due.p),
                start_s=_after(seen, since),
                end_s=_after(seen, now),
            )


def _bar(
    seen: Seen, worker: str, kind: Literal["map", "reduce"], path: str, step: str, at: str, us: int, count: int = 1
) -> Bar:
    end = _after(seen, at)
    return Bar(
        worker=worker,
        kind=kind,
        state="succeeded",
        path=path,
        step=step,
        start_s=max(end - us / 1e6, 0.0),
        end_s=end,
        busy_s=us / 1e6,
        count=count,
    )


def _step_of(seen: Seen, p: str) -> str:
    """The step of the children of the mapper at `p`."""
    shape = seen.facts.manifests.get(p)
    return (shape.step if shape else None) or ""


def _after(seen: Seen, at: str) -> float:
    """Seconds from the creation of the request to a stored time; clocks of machines may differ, so never below 0."""
    return max(0.0, _between(seen.request.created_at, at)) if at and seen.request.created_at else 0.0


def _between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
