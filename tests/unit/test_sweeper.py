"""The sweeper beside brokers of which one is silent: what is known of the others still counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mr import codec
from mr.errors import BrokerUnavailable
from mr.model import ids
from mr.model.invocation import Manifest, Receipt
from mr.model.message import unseal
from mr.ports.broker import Backlog, Publication, Publisher
from mr.ports.store import Put, Transaction
from mr.rules import keys
from mr.services.acceptance import Posting
from mr.services.sweeper import GONE_S, SWEEP_MAX_S, Sweeper
from mr.wiring import Parts
from tests.clocks import StillClock
from tests.unit import front_ends


class HalfDead(Publisher):
    """Two instances, of which `dead` does not answer. Asking costs `patience_s`."""

    def __init__(self, clock: StillClock, patience_s: float = 0.0) -> None:
        self._clock, self._patience_s = clock, patience_s
        self.published: list[Publication] = []
        self.asked = 0

    def publish(self, publications: Sequence[Publication]) -> str:
        self.published += publications
        return "alive"

    def backlog(self, topics: Sequence[str]) -> Mapping[str, Backlog]:
        self._ask()
        raise BrokerUnavailable("one of two does not answer")

    def instances(self) -> Mapping[str, str]:
        self._ask()
        return {"alive": "1"}

    def topics(self) -> Sequence[str]:
        return ()

    def close(self) -> None: ...

    def _ask(self) -> None:
        self.asked += 1
        self._clock.seconds += self._patience_s


def test_what_was_lost_with_a_broker_is_found_although_other_work_of_the_request_waits_elsewhere(
    tmp_path: Path,
) -> None:
    parts, clock = front_ends.parts(tmp_path), StillClock()
    broker = HalfDead(clock)
    sweeper = Sweeper(parts.store, broker, parts.registry.definitions, clock, parts.message_key)
    r = _accepted(parts, 1)[0]
    manifest = Manifest(execution="e", step="s", count=4, slice=1)
    puts = [Put(keys.manifest("w", r, "0"), codec.encode(manifest))]
    for child, where in enumerate(["alive", "alive", "dead", "dead"]):
        receipt = Receipt(at="", broker=where, started="1")
        puts.append(Put(keys.receipt("w", r, "0", child), codec.encode(receipt)))
    parts.store.commit(Transaction(operations=puts))
    for _ in range(int(3 * GONE_S)):
        sweeper.sweep()
        clock.seconds += 1.0
    again = [unseal(one.body, parts.message_key) for one in broker.published]
    assert sorted((message.p, message.from_) for message in again) == [("0", 2), ("0", 3)]
    parts.close()


def test_a_broker_that_hangs_costs_a_sweep_its_patience_twice_at_most(tmp_path: Path) -> None:
    parts, clock = front_ends.parts(tmp_path), StillClock()
    broker = HalfDead(clock, patience_s=2 * SWEEP_MAX_S)
    sweeper = Sweeper(parts.store, broker, parts.registry.definitions, clock, parts.message_key)
    for r in _accepted(parts, 50):
        receipt = Receipt(at="", broker="alive", started="1")
        parts.store.commit(Transaction(operations=[Put(keys.receipt("w", r, ids.ROOT, 0), codec.encode(receipt))]))
    for _ in range(20):
        broker.asked = 0
        sweeper.sweep()
        assert broker.asked <= 2
        clock.seconds += 1.0
    assert not broker.published
    parts.close()


def _accepted(parts: Parts, count: int) -> list[str]:
    """Requests that wait, by id."""
    postings = [Posting(request_id=ids.new_request_id(), workflow="w", job="j", arguments={}) for _ in range(count)]
    parts.submission.accept(postings)
    return [posting.request_id for posting in postings]
