"""The waiting room: nobody waits for ever, whatever the watch says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from mr import codec
from mr.adapters.stores.sqlite import SqliteStore
from mr.errors import StoreFull, StoreUnavailable, WatchLost
from mr.http.replies import WaitingRoom
from mr.model.request import Reply, RequestState
from mr.ports.store import Change, Put, Transaction, Watch
from mr.rules import keys

DEADLINE_S = 20.0
REPLY = Reply(workflow_name="w", state=RequestState.SUCCEEDED)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path / "mr.db")
    yield store
    store.close()


def reply(store: SqliteStore, r: str, value: bytes = codec.encode(REPLY)) -> None:
    store.commit(Transaction(operations=[Put(keys.replies("f", r), value)]))


class Deaf(Watch):
    """A watch that hears nothing, and fails as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.closed = threading.Event()

    def next(self, timeout_s: float) -> list[Change]:
        if self.error is not None:
            raise self.error
        self.closed.wait(timeout_s)
        return []

    def close(self) -> None:
        self.closed.set()


def test_a_reply_is_called_out_to_the_one_who_waits(store: SqliteStore) -> None:
    room = WaitingRoom(store, "f", lambda w, r: None, look_every_s=DEADLINE_S)
    with room.expect("r1") as first, room.expect("r2") as second:
        assert first.wait(0.01) is None
        reply(store, "r2")
        assert second.wait(DEADLINE_S) == REPLY
        assert first.wait(0) is None
        reply(store, "r1")
        assert first.wait(DEADLINE_S) == REPLY
    assert len(room) == 0
    room.close()


@pytest.mark.parametrize(
    "error", [None, WatchLost("compacted"), StoreUnavailable("away"), StoreFull("no room"), ZeroDivisionError()]
)
def test_a_watch_that_does_not_tell_only_costs_time(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    monkeypatch.setattr("mr.http.replies.PAUSE_S", 0.01)
    monkeypatch.setattr(store, "watch", lambda prefix, after: Deaf(error))
    room = WaitingRoom(store, "f", lambda w, r: None, look_every_s=0.05)
    with room.expect("r1") as waiter:
        gevent.sleep(0.1)
        reply(store, "r1")
        assert waiter.wait(DEADLINE_S) == REPLY
    room.close()


def test_a_reply_that_cannot_be_read_does_not_stop_the_others(store: SqliteStore) -> None:
    room = WaitingRoom(store, "f", lambda w, r: None)
    with room.expect("r1") as broken, room.expect("r2") as good:
        reply(store, "r1", b"{")
        reply(store, "r2")
        assert good.wait(DEADLINE_S) == REPLY
        assert broken.wait(0) is None
    room.close()


def test_a_reply_for_nobody_is_reported(store: SqliteStore) -> None:
    strays: list[tuple[str, str]] = []
    room = WaitingRoom(store, "f", lambda w, r: strays.append((w, r)))
    with room.expect("r1"):
        pass
    reply(store, "r1")
    with gevent.Timeout(DEADLINE_S):
        while not strays:
            gevent.sleep(0.005)
    assert strays[0] == ("w", "r1")
    room.close()


def test_replies_by_the_thousand_are_all_found(store: SqliteStore) -> None:
    wanted = [f"{number:04}" for number in range(1500)]
    for start in range(0, len(wanted), 100):
        puts = [Put(keys.replies("f", r), codec.encode(REPLY)) for r in wanted[start : start + 100]]
        store.commit(Transaction(operations=puts))
    seen: set[str] = set()
    room = WaitingRoom(store, "f", lambda w, r: seen.add(r))
    with room.expect("9999"), gevent.Timeout(DEADLINE_S):
        while len(seen) < len(wanted):
            gevent.sleep(0.005)
    room.close()


def test_a_room_that_closes_ends_its_thread(store: SqliteStore) -> None:
    room = WaitingRoom(store, "f", lambda w, r: None, look_every_s=DEADLINE_S)
    with room.expect("r1"):
        with gevent.Timeout(DEADLINE_S):
            while room._watch is None:
                gevent.sleep(0.005)
        room.close()
    assert room._thread is not None
    assert not room._thread.is_alive()
