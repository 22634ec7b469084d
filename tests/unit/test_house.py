"""House-keeping: who leads looks after the store, and nobody else does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mr import codec
from mr.adapters.stores.etcd3 import Maintenance
from mr.errors import StoreUnavailable
from mr.model.invocation import WorkerRecord
from mr.ports.store import Lease, Put, Transaction
from mr.rules import keys
from mr.services.sweeper import Sweeper
from mr.settings import Settings
from mr.wiring import Parts
from mr.worker.house import MAINTAIN_S, PRINTS_S, SWEEP_IDLE_S, House
from tests.clocks import StillClock

DEADLINE_S = 20.0


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db"}))
    yield parts
    parts.close()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def house(
    parts: Parts,
    clock: StillClock,
    name: str,
    maintain: Callable[[], None],
    *,
    holds: Callable[[], list[str]] = list,
    printed: Callable[[], dict[str, str]] = dict,
) -> House:
    sweeper = Sweeper(parts.store, parts.publisher, parts.registry.definitions, clock, parts.message_key)
    return House(
        name=name, store=parts.store, receipts=parts.receipts, sweeper=sweeper, cleaner=parts.cleaner, clock=clock,
        capabilities=["general"], workflows=list, serves_all=True, slots=1, holds=holds,
        printed=printed, on_fleet=lambda workers, slots: None, maintain=maintain,
    )  # fmt: skip


def test_the_leader_alone_maintains_the_store_once_a_minute(parts: Parts, clock: StillClock) -> None:
    calls: list[str] = []
    leader = house(parts, clock, "leader", lambda: calls.append("leader"))
    other = house(parts, clock, "other", lambda: calls.append("other"))
    for _ in range(2):
        leader._tick()
        other._tick()
    assert calls == ["leader"]
    clock.seconds += MAINTAIN_S
    leader._tick()
    other._tick()
    assert calls == ["leader", "leader"]
    parts.store.commit(Transaction(operations=[Put(keys.SWEEPER, b"other")]))
    clock.seconds += MAINTAIN_S
    leader._tick()
    other._tick()
    other._tick()
    assert calls[2:] == ["other"]


def test_the_lease_is_kept_while_a_sweep_takes_long(
    parts: Parts, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, is_long, may_end = threading.Semaphore(0), threading.Event(), threading.Event()

    def sweep(self: Sweeper) -> int:
        is_long.set()
        may_end.wait(DEADLINE_S)
        return 0

    def keep(lease: Lease) -> bool:
        if is_long.is_set():
            kept.release()
        return really_keep(lease)

    really_keep = parts.store.keep
    monkeypatch.setattr(parts.store, "keep", keep)
    busy = house(parts, clock, "busy", lambda: None)
    busy.start()
    monkeypatch.setattr(Sweeper, "sweep", sweep)
    parts.store.commit(Transaction(operations=[Put(keys.active("w", "r"), b"{}")]))
    clock.seconds += SWEEP_IDLE_S
    assert is_long.wait(DEADLINE_S)
    for _ in range(3):
        assert kept.acquire(timeout=DEADLINE_S)
    may_end.set()
    busy.stop()
    assert parts.store.get(keys.worker("busy")) is None


def test_what_handlers_print_is_written_along_or_every_few_seconds(parts: Parts, clock: StillClock) -> None:
    holds, printed = ["w/r/0"], {"w/r/0.1": "one"}
    one = house(parts, clock, "one", lambda: None, holds=lambda: [*holds], printed=lambda: {**printed})

    def noted() -> tuple[str, int]:
        one._keep_lease()
        entry = parts.store.get(keys.worker("one"))
        assert entry is not None
        return codec.decode(entry.value, WorkerRecord, where=entry.key).printed["w/r/0.1"], entry.version

    line, first = noted()
    assert line == "one"
    printed["w/r/0.1"] = "two"
    assert noted() == ("one", first), "nothing is written for a line alone"
    clock.seconds += PRINTS_S
    line, second = noted()
    assert (line, second > first) == ("two", True)
    clock.seconds += 10 * PRINTS_S
    assert noted() == ("two", second), "nothing is written while nothing changes"
    printed["w/r/0.1"] = "three"
    assert noted()[0] == "three", "a line that changes rarely is there at once"
    printed["w/r/0.1"] = "four"
    holds.append("w/r/1")
    assert noted()[0] == "four", "it goes along with what is written anyway"


def test_maintenance_that_fails_stops_nothing_and_is_tried_again(parts: Parts, clock: StillClock) -> None:
    tries: list[float] = []

    def fail() -> None:
        tries.append(clock.seconds)
        raise StoreUnavailable("away")

    leader = house(parts, clock, "leader", fail)
    leader._tick()
    clock.seconds += SWEEP_IDLE_S
    leader._tick()
    assert parts.store.get(keys.worker("leader")) is not None
    assert len(tries) == 1
    clock.seconds += MAINTAIN_S
    leader._tick()
    assert len(tries) == 2


def test_a_store_that_looks_after_itself_has_no_maintenance(parts: Parts) -> None:
    assert parts.maintain is None


def test_etcd_has_maintenance() -> None:
    parts = Parts(Settings.from_env({"MR_STORE": "etcd3://127.0.0.1:2379", "MR_BROKER": "nsq://127.0.0.1:4150"}))
    assert isinstance(parts.maintain, Maintenance)
    parts.close()
