"""A unit: what one visit wants recorded, as a value between progress and committer."""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec

from mr.codec import Items
from mr.model.invocation import ErrorReport
from mr.model.request import RequestState
from mr.ports.broker import Publication


class Fact(msgspec.Struct, frozen=True):
    """One record to write. `once`: created if absent; else it is the execution's own and may be rewritten.

    `report` is set where it records a failed attempt.
    """

    key: str
    value: bytes
    once: bool = True
    report: ErrorReport | None = None


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a request, in one piece. `done` is the record of the root's result, if there is a new one.

    `after` is the state that it ends: WRITING for the end that a writer makes, else RUNNING; where it finds another
    one it is refused. To WRITING it is no end yet: the fence stays, and so do those who wait.
    `pairs` is the result where it is small enough to travel with the reply; `written` is where a writer put it.
    """

    state: RequestState
    after: RequestState = RequestState.RUNNING
    done: Fact | None = None
    pairs: Items | None = None
    failed: str | None = None
    report: ErrorReport | None = None
    written: dict[str, Any] | None = None


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A message to publish once the unit is durable, and the receipts to note for it later.

    `unless_others`: not if another execution had written this key before; then it called, too.
    """

    publication: Publication
    receipts: list[str]
    unless_others: str | None = None


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """Facts in the order in which they depend on each other, then the end.

    All or, where that is refused or too much for one transaction, from the first to the last: a manifest comes
    before what stands below it. `counts` are prefixes to count after the writes. `calls` are published when
    everything is durable. `request` is the request's record, if known.
    """

    workflow: str
    request_id: str
    epoch: int
    facts: list[Fact] = []
    end: End | None = None
    counts: list[str] = []
    calls: list[Call] = []
    request: bytes | None = None


class Verdict(Enum):
    """COMMITTED: everything is recorded, by this unit or as if by it. ENDED: the fence is gone; stop silently.

    LOST: another execution's manifest won; nothing after it was recorded.
    """

    COMMITTED = "committed"
    ENDED = "ended"
    LOST = "lost"


class Receipted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a unit. `others` has the keys that another execution had written before."""

    verdict: Verdict
    counts: dict[str, int] = {}
    others: frozenset[str] = frozenset()
