"""Handing commits to the process that writes anyway: to nobody twice, and to oneself where nobody answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mr.adapters import sqlite_relay
from mr.adapters.sqlite_relay import Courier, Relay, is_single
from mr.adapters.stores.sqlite import SqliteStore
from mr.errors import StoreFull, StoreUnavailable
from mr.ports.broker import Publication
from mr.ports.store import Absent, At, Delete, Entry, Equals, Lease, Outcome, Put, Transaction

from .executors import DEADLINE_S

CREATE = Transaction(conditions=[Absent("a")], operations=[Put("a", b"1")], counts=[], reads=[], messages=[])
WHOLE = Transaction(
    conditions=[Absent("a"), Equals("b", b"\xff"), At("c", 7)],
    operations=[Put("a", b"1"), Put("c", b""), Delete("d")],
    counts=["e/"],
    reads=["a", "f"],
    messages=[Publication("topic", b"body", 0.5)],
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "mr.db")


class Taking:
    """A relay whose commits are noted, and answered with `says` or by raising it."""

    def __init__(self, path: str) -> None:
        self.got: list[Transaction] = []
        self.says: Outcome | Exception = Outcome(succeeded=True, revision=1)
        self.relay = Relay(path, self._commit)

    def _commit(self, transaction: Transaction) -> Outcome:
        self.got.append(transaction)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


def hand_in(path: str, transaction: Transaction = CREATE) -> Outcome | None:
    """Hand in once there is somebody to take it."""
    courier, pause = Courier(path), threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        courier._avoided_until = 0.0
        outcome = courier.hand_in(transaction)
        if outcome is not None:
            break
        pause.wait(0.01)
    courier.close()
    return outcome


@pytest.fixture
def taking(path: str) -> Iterator[Taking]:
    one = Taking(path)
    yield one
    one.relay.close()


def test_only_what_cannot_be_applied_twice_is_handed_over() -> None:
    assert is_single(CREATE)
    assert is_single(Transaction(conditions=[At("a", 3)], operations=[Delete("a")]))
    assert not is_single(Transaction(operations=[Put("a", b"1")]))
    assert not is_single(Transaction(conditions=[Equals("a", b"1")], operations=[Put("a", b"1")]))
    assert not is_single(Transaction(conditions=[Absent("b")], operations=[Put("a", b"1")]))
    leased = Put("a", b"1", Lease(1, 1.0))
    assert not is_single(Transaction(conditions=[Absent("a")], operations=[leased]))


def test_a_transaction_and_its_outcome_arrive_as_they_were(path: str, taking: Taking) -> None:
    entries = {"a": Entry("a", b"\x00\xff", 9, 8), "f": None}
    taking.says = Outcome(succeeded=False, revision=9, counts={"e/": 3}, entries=entries)
    assert hand_in(path, WHOLE) == taking.says
    assert taking.got == [WHOLE]


def test_what_is_wrong_there_is_told_here(path: str, taking: Taking) -> None:
    assert hand_in(path) is not None
    courier = Courier(path)
    for says in (StoreUnavailable("the disk", unknown=True), StoreUnavailable("the lock"), StoreFull("no room")):
        taking.says = says
        with pytest.raises(type(says), match=says.message) as raised:
            courier.hand_in(CREATE)
        assert getattr(raised.value, "unknown", None) == getattr(says, "unknown", None)
    courier.close()


def test_where_nobody_listens_nothing_is_sent(path: str) -> None:
    assert Courier(path).hand_in(CREATE) is None


def test_a_long_path_has_no_relay(tmp_path: Path) -> None:
    path = str(tmp_path / ("long" * 30) / "mr.db")
    relay = Relay(path, lambda transaction: Outcome(succeeded=True, revision=1))
    assert Courier(path).hand_in(CREATE) is None
    relay.close()


def test_who_is_stopped_or_dies_leaves_an_unknown_outcome_and_is_avoided(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_relay, "ANSWER_S", 0.05)
    address = sqlite_relay._address(path)
    assert address is not None
    for dies in (False, True):
        with socket.socket(socket.AF_UNIX) as listener:
            Path(address).unlink(missing_ok=True)
            listener.bind(address)
            listener.listen()
            if dies:
                threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
            courier = Courier(path)
            with pytest.raises(StoreUnavailable) as raised:
                courier.hand_in(CREATE)
            assert raised.value.unknown
            assert courier.hand_in(CREATE) is None


def test_a_relay_that_has_ended_is_noticed_before_anything_is_sent(path: str) -> None:
    first = Taking(path)
    assert hand_in(path) is not None
    courier = Courier(path)
    assert courier.hand_in(CREATE) is not None
    first.relay.close()
    assert courier.hand_in(CREATE) is None
    courier.close()


def test_the_next_worker_takes_over(path: str) -> None:
    first = Taking(path)
    assert hand_in(path) is not None
    second = Taking(path)
    try:
        assert hand_in(path) is not None
        assert not second.got
        first.relay.close()
        assert hand_in(path) is not None
        assert second.got == [CREATE]
    finally:
        second.relay.close()


def test_a_store_hands_over_and_writes_by_itself_what_it_must(tmp_path: Path) -> None:
    worker, front_end = SqliteStore(tmp_path / "mr.db"), SqliteStore(tmp_path / "mr.db")
    given: list[Transaction] = []
    write = worker._write

    def noting(transaction: Transaction) -> Outcome:
        given.append(transaction)
        return write(transaction)

    worker._write = noting  # type: ignore[method-assign]
    worker.take_commits()
    front_end.hand_over_commits()
    assert hand_in(str(tmp_path / "mr.db"), Transaction(conditions=[Absent("x")], operations=[Put("x", b"")]))
    try:
        front_end._courier._avoided_until = 0.0  # type: ignore[union-attr]
        assert front_end.commit(CREATE).succeeded
        assert not front_end.commit(CREATE).succeeded
        assert front_end.commit(Transaction(operations=[Put("b", b"2")])).succeeded
        assert given[1:] == [CREATE, CREATE]
        assert front_end.get("a") == worker.get("a")
    finally:
        front_end.close()
        worker.close()
