"""Placing: who posts is told what nobody could run, and however many ask, the fleet is read once."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest

from mr.errors import MrError, StoreUnavailable
from mr.http.placing import FRESH_S, Placing
from mr.http.threads import NativeThreads
from mr.services.placement import Placement, Unplaced
from tests.clocks import StillClock

NOBODY = Placement(Unplaced(capability="gpu"), [Unplaced(capability="gpu")])


class Counted:
    """A fleet that counts how often it was read."""

    def __init__(self) -> None:
        self.asked = 0
        self.gate = threading.Event()
        self.error: MrError | None = None

    def place(self, workflow: str, job: str) -> Placement:
        self.asked += 1
        assert self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return NOBODY


@pytest.fixture
def site() -> Any:
    threads = NativeThreads(4)
    fleet, clock = Counted(), StillClock()
    yield SimpleNamespace(fleet=fleet, clock=clock, placing=Placing(cast(Any, fleet), clock, threads))
    threads.close()


def ask(site: Any, count: int) -> list[Placement]:
    asking = [gevent.spawn(site.placing.place, "w", "j") for _ in range(count)]
    gevent.sleep(0)
    site.fleet.gate.set()
    gevent.joinall(asking, timeout=20, raise_error=True)
    return [one.value for one in asking]


def test_however_many_ask_at_once_the_fleet_is_read_once_for_all(site: Any) -> None:
    assert ask(site, 500) == [NOBODY] * 500
    assert site.fleet.asked == 1


def test_what_was_read_holds_for_a_second(site: Any) -> None:
    ask(site, 1)
    site.clock.seconds += FRESH_S
    ask(site, 1)
    assert site.fleet.asked == 1
    site.clock.seconds += 0.1
    ask(site, 1)
    assert site.fleet.asked == 2


def test_who_cannot_be_told_is_told_nothing_and_asks_again_next_time(site: Any) -> None:
    site.fleet.error = StoreUnavailable("away")
    assert ask(site, 3) == [Placement()] * 3
    site.fleet.error = None
    assert ask(site, 1) == [NOBODY]
    assert site.fleet.asked == 2
