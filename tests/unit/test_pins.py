"""Pins against the cleaner, on stores with and without transactions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mr import codec
from mr.clock import stamp
from mr.errors import RequestNotFound, StateError
from mr.model.invocation import Manifest
from mr.model.request import Active, Request, RequestState
from mr.ports.store import Delete, Put, Store, Transaction
from mr.rules import keys
from mr.services.cleaner import PUT_OFF_S, Cleaner
from mr.services.pins import Pins

W, R = "w", "a" * 40
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Hand:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def on(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def cleaner(store: Store, clock: Hand) -> Cleaner:
    return Cleaner(store, clock)


@pytest.fixture
def pins(store: Store, clock: Hand) -> Pins:
    return Pins(store, clock)


def put(store: Store, key: str, value: object) -> None:
    store.commit(Transaction(operations=[Put(key, codec.encode(value))]))


def add(store: Store, state: RequestState = RequestState.SUCCEEDED, due_at: str | None = stamp(START)) -> None:
    """A request as its end leaves it, due at once."""
    final = state.is_final
    record = Request(
        workflow_name=W, job_name="j", invocation_id=f"{R}.0", state=state, is_done=final,
        created_at=stamp(START), finished_at=stamp(START) if final else None, due_at=due_at if final else None,
    )  # fmt: skip
    put(store, keys.manifest(W, R, "-"), Manifest(execution="accepted", step="s", count=1))
    put(store, keys.request(W, R), record)
    if final and due_at is not None:
        put(store, keys.due(due_at, W, R), {})
    if not final:
        put(store, keys.active(W, R), Active(1))


def everything(store: Store) -> list[str]:
    return [entry.key for entry in store.range("", keys_only=True).entries]


def test_JX_91_a_request_that_is_due_goes_and_a_pinned_one_stays(
    store: Store, clock: Hand, cleaner: Cleaner, pins: Pins
) -> None:
    add(store)
    pins.pin(W, R, by="me@here", note="why")
    clock.on(1)
    assert cleaner.clean() == 0
    assert store.get(keys.request(W, R)) is not None
    assert store.get(keys.manifest(W, R, "-")) is not None
    found = pins.find(W, R)
    assert found is not None
    assert (found.by, found.note) == ("me@here", "why")
    assert pins.of(W) == {R}


def test_a_pinned_request_does_not_stand_in_the_way_of_others(
    store: Store, clock: Hand, cleaner: Cleaner, pins: Pins
) -> None:
    add(store)
    pins.pin(W, R)
    clock.on(1)
    cleaner.clean()
    (due,) = [key for key in everything(store) if key.startswith(keys.DUE)]
    assert due == keys.due(stamp(clock.now() + timedelta(seconds=PUT_OFF_S)), W, R)
    clock.on(PUT_OFF_S + 1)
    assert cleaner.clean() == 0
    assert len([key for key in everything(store) if key.startswith(keys.DUE)]) == 1
    assert store.get(keys.request(W, R)) is not None


def test_an_unpinned_request_goes_when_its_time_comes_and_leaves_nothing(
    store: Store, clock: Hand, cleaner: Cleaner, pins: Pins
) -> None:
    add(store)
    pins.pin(W, R)
    clock.on(1)
    cleaner.clean()
    pins.unpin(W, R)
    assert cleaner.clean() == 1
    clock.on(PUT_OFF_S + 1)
    cleaner.clean()  # what it was put off to
    assert everything(store) == []


def test_the_end_of_a_pin_is_noticed_even_if_whoever_took_it_out_died_then(
    store: Store, clock: Hand, cleaner: Cleaner, pins: Pins
) -> None:
    add(store)
    pins.pin(W, R)
    clock.on(1)
    cleaner.clean()
    store.commit(Transaction(operations=[Delete(keys.pinned(W, R))]))
    clock.on(PUT_OFF_S + 1)
    assert cleaner.clean() == 1
    assert everything(store) == []


def test_a_running_request_can_be_pinned_and_stays_after_its_end(
    store: Store, clock: Hand, cleaner: Cleaner, pins: Pins
) -> None:
    add(store, RequestState.RUNNING)
    pins.pin(W, R)
    add(store)
    clock.on(1)
    assert cleaner.clean() == 0
    assert store.get(keys.request(W, R)) is not None


def test_the_first_of_two_pins_stays(store: Store, clock: Hand, pins: Pins) -> None:
    add(store)
    first = pins.pin(W, R, note="first")
    clock.on(5)
    assert pins.pin(W, R, note="second") == first


def test_what_is_gone_or_going_cannot_be_pinned(store: Store, pins: Pins) -> None:
    with pytest.raises(RequestNotFound, match="has no request"):
        pins.pin(W, R)
    add(store)
    store.commit(Transaction(operations=[Delete(keys.manifest(W, R, "-"))]))
    with pytest.raises(RequestNotFound, match="being cleaned away"):
        pins.pin(W, R)
    assert pins.find(W, R) is None


def test_what_is_not_pinned_cannot_be_unpinned(store: Store, pins: Pins) -> None:
    add(store)
    with pytest.raises(StateError, match="is not pinned"):
        pins.unpin(W, R)


def test_a_pinned_request_is_removed_by_hand_only_if_that_is_said(store: Store, cleaner: Cleaner, pins: Pins) -> None:
    add(store)
    pins.pin(W, R)
    with pytest.raises(StateError, match="is pinned"):
        cleaner.remove(W, R)
    cleaner.remove(W, R, pinned=True)
    assert everything(store) == []


@pytest.mark.parametrize("store", ["with transactions"], indirect=True)
def test_a_pin_that_comes_while_a_clean_up_begins_is_honoured(
    store: Store, clock: Hand, cleaner: Cleaner, pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(store)
    get = store.get

    def pinned_meanwhile(key: str) -> object:
        found = get(key)
        if key == keys.pinned(W, R) and found is None:
            monkeypatch.undo()
            pins.pin(W, R)
        return found

    monkeypatch.setattr(store, "get", pinned_meanwhile)
    clock.on(1)
    cleaner.clean()
    assert store.get(keys.manifest(W, R, "-")) is not None
    assert cleaner.clean() == 0
    assert pins.find(W, R) is not None
