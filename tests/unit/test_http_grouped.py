"""Calls that share one call of a function."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import gevent
import pytest

from mr.errors import MrError, NotFound, StoreUnavailable
from mr.http.grouped import Grouped

DEADLINE_S = 20.0


class Doubler:
    """Doubles numbers, refuses odd ones, remembers its groups; waits for a gate first."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.groups: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int | MrError]:
        self.groups.append(list(numbers))
        self.begun.set()
        assert self.gate.wait(DEADLINE_S)
        return [2 * number if number % 2 == 0 else NotFound(f"{number} is odd") for number in numbers]


@pytest.fixture
def double() -> Iterator[Doubler]:
    double = Doubler()
    yield double
    double.gate.set()


def begin(grouped: Grouped[int, int], number: int, begun: threading.Event) -> gevent.Greenlet:
    call = gevent.spawn(grouped.call, number)
    gevent.sleep(0)
    assert begun.wait(DEADLINE_S)
    return call


def test_what_waits_while_a_call_runs_shares_the_next_one(double: Doubler) -> None:
    grouped = Grouped(double, threads=1)
    first = begin(grouped, 0, double.begun)
    rest = [gevent.spawn(grouped.call, number) for number in (2, 3, 4)]
    gevent.sleep(0)
    double.gate.set()
    gevent.joinall([first, *rest], timeout=DEADLINE_S)
    assert double.groups == [[0], [2, 3, 4]]
    assert [call.value for call in (first, rest[0], rest[2])] == [0, 4, 8]
    assert isinstance(rest[1].exception, NotFound)
    grouped.close()


def test_what_the_function_raises_goes_to_all_of_its_group() -> None:
    def fail(numbers: Sequence[int]) -> list[int | MrError]:
        raise ZeroDivisionError(str(sorted(numbers)))

    grouped = Grouped(fail, threads=1)
    with pytest.raises(ZeroDivisionError):
        grouped.call(1)
    grouped.close()


def test_a_long_line_is_refused_and_nothing_has_happened(double: Doubler) -> None:
    grouped = Grouped(double, threads=1, line_max=1)
    first = begin(grouped, 0, double.begun)
    second = gevent.spawn(grouped.call, 2)
    gevent.sleep(0)
    with pytest.raises(StoreUnavailable) as caught:
        grouped.call(4)
    assert not caught.value.unknown
    double.gate.set()
    gevent.joinall([first, second], timeout=DEADLINE_S, raise_error=True)
    grouped.close()


def test_a_call_that_is_given_up_is_unknown_only_if_it_was_begun(double: Doubler) -> None:
    grouped = Grouped(double, threads=1, answer_s=0.05)
    first = begin(grouped, 0, double.begun)
    second = gevent.spawn(grouped.call, 2)
    gevent.joinall([first, second], timeout=DEADLINE_S)
    assert isinstance(first.exception, StoreUnavailable)
    assert first.exception.unknown
    assert isinstance(second.exception, StoreUnavailable)
    assert not second.exception.unknown
    double.gate.set()
    grouped.close()
    for thread in grouped._threads:
        thread.join(DEADLINE_S)
    assert double.groups == [[0]]


def test_a_closed_one_makes_no_calls(double: Doubler) -> None:
    grouped = Grouped(double)
    grouped.close()
    with pytest.raises(StoreUnavailable):
        grouped.call(2)
