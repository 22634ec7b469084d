"""Calls beside the event loop: they do not block it, and a store that is stuck has bounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import gevent
import pytest

from mr.errors import StoreUnavailable
from mr.http.threads import NativeThreads

DEADLINE_S = 20.0


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def threads() -> Iterator[NativeThreads]:
    threads = NativeThreads(2, line_max=2, answer_s=DEADLINE_S)
    yield threads
    threads.close()


def test_a_call_returns_and_raises_what_the_function_does(threads: NativeThreads) -> None:
    assert threads.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.call(divmod, 7, 0)
    assert threads.call(threading.get_ident) != threading.get_ident()


def test_the_event_loop_goes_on_while_a_callblocks(threads: NativeThreads, gate: threading.Event) -> None:
    blocked = gevent.spawn(threads.call, gate.wait, DEADLINE_S)
    gevent.spawn(gate.set)
    assert blocked.get(timeout=DEADLINE_S) is True


def test_a_call_beyond_the_line_is_refused_at_once(gate: threading.Event) -> None:
    threads = NativeThreads(1, line_max=1, answer_s=DEADLINE_S)
    begun = threading.Event()

    def block() -> None:
        begun.set()
        gate.wait(DEADLINE_S)

    first = gevent.spawn(threads.call, block)
    while not begun.is_set():
        gevent.sleep(0.001)
    second = gevent.spawn(threads.call, int)
    gevent.sleep(0)
    with pytest.raises(StoreUnavailable) as caught:
        threads.call(int)
    assert not caught.value.unknown
    gate.set()
    gevent.joinall([first, second], timeout=DEADLINE_S, raise_error=True)
    threads.close()


def test_who_waited_too_long_learns_whether_the_call_was_begun(gate: threading.Event) -> None:
    threads = NativeThreads(1, answer_s=0.05)
    made: list[str] = []

    def first_call() -> None:
        gate.wait(DEADLINE_S)
        made.append("first")

    with pytest.raises(StoreUnavailable) as begun:
        threads.call(first_call)
    with pytest.raises(StoreUnavailable) as waiting:
        threads.call(lambda: made.append("second"))
    gate.set()
    threads.close()
    for thread in threads._threads:
        thread.join(DEADLINE_S)
    assert begun.value.unknown
    assert not waiting.value.unknown
    assert made == ["first"], "what was given up must not happen later"


def test_a_closed_front_end_makes_no_calls(threads: NativeThreads) -> None:
    threads.close()
    with pytest.raises(StoreUnavailable):
        threads.call(int)
