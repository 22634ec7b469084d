"""What a request may keep in the store: below the limit nothing happens, above it the request is known to be over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mr import codec
from mr.errors import StoreUnavailable
from mr.model.request import Active
from mr.ports.store import Put, Transaction
from mr.rules import keys
from mr.services.quota import REQUESTS_MAX, SHARE, Quota
from mr.settings import Settings
from mr.wiring import Parts

LIMIT = 80_000
STEP = LIMIT // SHARE
W, R = "flow", "a" * 40
FENCE = (keys.active(W, R), codec.encode(Active(1)))


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    parts = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db"}))
    parts.store.commit(Transaction(operations=[Put(*FENCE)]))
    yield parts
    parts.close()


def quota(parts: Parts, worker: str = "w1", workers: int = 1) -> Quota:
    return Quota(parts.store, LIMIT, worker, lambda: workers)


def notes(parts: Parts) -> list[int]:
    return [int(entry.value) for entry in parts.store.range(keys.stored(W, R)).entries]


def test_a_request_at_its_limit_goes_on_and_a_byte_more_is_over(parts: Parts) -> None:
    one = quota(parts)
    for _ in range(SHARE):
        one.stored(W, R, FENCE, STEP)
    assert sum(notes(parts)) == LIMIT
    assert not one.is_over(W, R)
    one.stored(W, R, FENCE, STEP + 1)
    assert one.is_over(W, R)


def test_a_small_request_costs_no_write(parts: Parts) -> None:
    one = quota(parts)
    one.stored(W, R, FENCE, STEP - 1)
    assert notes(parts) == []
    one.stored(W, R, FENCE, 1)
    assert notes(parts) == [STEP]


@pytest.mark.parametrize("workers", [1, 3, 20])
def test_many_workers_together_are_stopped_within_an_eighth_more(parts: Parts, workers: int) -> None:
    fleet = [quota(parts, f"w{number}", workers) for number in range(workers)]
    written = 0
    while not any(one.is_over(W, R) for one in fleet):
        for one in fleet:
            one.stored(W, R, FENCE, 97)
            written += 97
        assert written <= LIMIT + STEP + 97 * workers
    assert written > LIMIT


def test_what_the_store_does_not_take_is_noted_with_the_next(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    one = quota(parts)

    def fail(_transaction: Transaction) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(parts.store, "commit", fail)
        one.stored(W, R, FENCE, LIMIT)
    assert not one.is_over(W, R)
    one.stored(W, R, FENCE, 1)
    assert notes(parts) == [LIMIT + 1]
    assert one.is_over(W, R)


def test_an_ended_request_leaves_no_note_and_is_forgotten(parts: Parts) -> None:
    one = quota(parts)
    one.stored(W, R, (FENCE[0], codec.encode(Active(2))), LIMIT)
    assert notes(parts) == []
    one.stored(W, R, FENCE, 2 * LIMIT)
    assert one.is_over(W, R)
    one.forget(W, R)
    assert not one.is_over(W, R)


def test_the_number_of_requests_that_are_counted_is_bounded(parts: Parts) -> None:
    one = quota(parts)
    one.stored(W, R, FENCE, 2 * LIMIT)
    for number in range(REQUESTS_MAX):
        one.stored(W, f"{number:040x}", FENCE, 1)
    assert not one.is_over(W, R)


def test_notes_go_with_the_data_of_the_request() -> None:
    assert keys.stored(W, R, "w1.1").startswith(keys.datasets(W, R))


def test_the_report_names_the_limit_and_its_setting(parts: Parts) -> None:
    report = quota(parts).report("the_handler", "printed")
    assert (report.class_, report.handler, report.output) == ("output_limit", "the_handler", "printed")
    assert "MR_REQUEST_STORE_MB" in report.message
