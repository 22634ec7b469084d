"""Several nsqd: one of two dies under load, a new one joins, and nsqlookupd comes and goes."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from mr import codec
from mr.adapters.brokers.nsq import NsqPublisher
from mr.adapters.brokers.nsq_consumer import NsqConsumer
from mr.errors import BrokerUnavailable
from mr.model import ids
from mr.ports.broker import Publication
from mr.rules import routing
from mr.services.acceptance import Posting
from mr.services.sweeper import AGAIN_S, DUE_S, GONE_S, Sweeper
from mr.settings import Settings
from mr.wiring import Parts
from tests.clocks import StillClock
from tests.integration.test_nsq import Inbox, until
from tests.servers_nsq import NsqdServer, NsqlookupdServer
from tests.unit import front_ends

pytestmark = [pytest.mark.kills]

TOPIC = routing.topic("w", "map", "general")


@pytest.fixture
def pair() -> Iterator[tuple[NsqdServer, NsqdServer]]:
    servers = NsqdServer(), NsqdServer()
    for server in servers:
        server.start()
    yield servers
    for server in servers:
        server.stop()


@pytest_asyncio.fixture
async def inboxes() -> AsyncIterator[list[Inbox]]:
    opened: list[Inbox] = []
    yield opened
    for inbox in opened:
        await inbox.consumer.close()


async def opened(
    inboxes: list[Inbox], servers: Sequence[NsqdServer], lookupds: Sequence[NsqlookupdServer] = ()
) -> Inbox:
    """A consumer that finishes whatever comes."""
    consumer = NsqConsumer(
        [server.address for server in servers], [lookupd.address for lookupd in lookupds], lookup_s=0.2
    )
    inbox = Inbox(consumer)
    inboxes.append(inbox)
    inbox.on_delivery = lambda delivery: delivery.finish()
    await consumer.start(inbox.take)
    await consumer.subscribe([TOPIC])
    consumer.allow(20)
    return inbox


# Publishing and consuming


async def test_publishing_falls_over_and_consuming_comes_back_when_one_of_two_dies_under_load(
    pair: tuple[NsqdServer, NsqdServer], inboxes: list[Inbox]
) -> None:
    first, second = pair
    publisher = NsqPublisher([first.address, second.address])
    inbox = await opened(inboxes, pair)
    taken: dict[bytes, str] = {}
    problems: list[BrokerUnavailable] = []
    stopped = threading.Event()

    def publish() -> None:
        number = 0
        while not stopped.is_set():
            body = b"%d" % number
            try:
                taken[body] = publisher.publish([Publication(TOPIC, body)])
            except BrokerUnavailable as error:
                problems.append(error)
            number += 1
            time.sleep(0.001)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        await until(lambda: set(taken.values()) == {first.instance, second.instance})
        first.kill()
        before = len(taken)
        await until(lambda: len(taken) > before + 200)
        after = len(taken)
        first.start()
        await until(lambda: first.instance in list(taken.values())[after:], within_s=20)
        back_at = len(taken)
        await until(lambda: len(taken) > back_at + 100)
    finally:
        stopped.set()
        thread.join()
    assert not problems
    # What the dead one had in memory is the sweeper's business; everything else arrives.
    kept = {body for number, (body, who) in enumerate(taken.items()) if who == second.instance or number > back_at}
    await until(lambda: kept <= set(inbox.bodies))
    publisher.close()


async def test_an_nsqd_that_joins_while_consumers_run_is_found(inboxes: list[Inbox], pair) -> None:
    lookupd = NsqlookupdServer()
    lookupd.start()
    joins = NsqdServer([f"--lookupd-tcp-address=127.0.0.1:{lookupd.tcp_port}"])
    try:
        inbox = await opened(inboxes, pair, [lookupd])
        joins.start()
        publisher = NsqPublisher([joins.address])
        publisher.publish([Publication(TOPIC, b"from the new one")])
        await inbox.get(1)
        publisher.close()
    finally:
        joins.stop()
        lookupd.stop()


async def test_the_death_of_nsqlookupd_changes_nothing(inboxes: list[Inbox]) -> None:
    lookupd = NsqlookupdServer()
    lookupd.start()
    found = NsqdServer([f"--lookupd-tcp-address=127.0.0.1:{lookupd.tcp_port}"])
    found.start()
    publisher = NsqPublisher([found.address])
    try:
        publisher.publish([Publication(TOPIC, b"before")])
        inbox = await opened(inboxes, [], [lookupd])
        await inbox.get(1)
        lookupd.kill()
        publisher.publish([Publication(TOPIC, b"after")])
        await inbox.get(2)
        # Nobody can ask where the nsqd is any more, and yet it is found again.
        found.terminate()
        await until(lambda: not inbox.consumer._links)
        found.start()
        publisher.publish([Publication(TOPIC, b"anew")])
        await inbox.get(3)
        assert inbox.bodies == [b"before", b"after", b"anew"]
    finally:
        publisher.close()
        found.stop()
        lookupd.stop()


# Sweeping


class Swept:
    """Requests that wait for a worker on two nsqd, and a sweeper. Each has a receipt that names its nsqd."""

    def __init__(self, folder: Path, pair: Sequence[NsqdServer]) -> None:
        tcp = ",".join(f"127.0.0.1:{server.tcp_port}" for server in pair)
        http = ",".join(f"127.0.0.1:{server.http_port}" for server in pair)
        self.parts = Parts(
            Settings.from_env({"MR_STORE": f"sqlite:///{folder}/mr.db", "MR_BROKER": f"nsq://{tcp}?http={http}"})
        )
        front_ends.define(self.parts)
        self.clock = StillClock()
        parts = self.parts
        self._sweeper = Sweeper(parts.store, parts.publisher, parts.registry.definitions, self.clock, parts.message_key)
        for _ in range(10):
            posting = Posting(request_id=ids.new_request_id(), workflow="w", job="j", arguments={})
            parts.submission.accept([posting])
        self.sweep_until(lambda: len(self.places()) == 10)

    def sweep_until(self, condition: Callable[[], bool]) -> int:
        """Sweep, and let time pass; how often something was published again."""
        again = 0
        for _ in range(60):
            again += self._sweeper.sweep()
            if condition():
                return again
            self.clock.seconds += 1.0
        raise AssertionError("a minute of sweeping did not bring it about")

    def sweep_for(self, seconds: float) -> int:
        """Sweep for so long; how often something was published again."""
        end = self.clock.seconds + seconds
        return self.sweep_until(lambda: self.clock.seconds >= end)

    def places(self) -> dict[str, str]:
        """The nsqd at which each request waits, as its receipt says."""
        found = {}
        for entry in self.parts.store.range("published/").entries:
            receipt = codec.loads(entry.value)
            found[entry.key] = receipt["broker"]
        return found


@pytest.fixture
def swept(tmp_path: Path, pair: tuple[NsqdServer, NsqdServer]) -> Iterator[Swept]:
    swept = Swept(tmp_path, pair)
    yield swept
    swept.parts.close()


def test_what_lay_on_an_nsqd_that_lost_its_data_is_published_again_and_nothing_else(swept: Swept, pair) -> None:
    first, _ = pair
    lost = [place for place in swept.places().values() if place == first.instance]
    assert 0 < len(lost) < 10
    assert swept.sweep_for(4 * (DUE_S + AGAIN_S)) == 0, "what waits is left alone"
    # It tells its start in whole seconds.
    started = int(swept.parts.publisher.instances()[first.instance])
    while int(time.time()) <= started:
        time.sleep(0.01)
    first.restart(wipe=True)
    assert swept.sweep_for(DUE_S + AGAIN_S) == len(lost)
    assert swept.sweep_for(4 * (DUE_S + AGAIN_S)) == 0


def test_what_lay_on_an_nsqd_that_is_gone_is_published_again_after_a_while(swept: Swept, pair) -> None:
    first, second = pair
    lost = [place for place in swept.places().values() if place == first.instance]
    first.kill()
    assert swept.sweep_for(GONE_S - 1.0) == 0, "it may come back, with what it has"
    assert swept.sweep_for(GONE_S) == len(lost)
    assert set(swept.places().values()) == {second.instance}
    assert swept.sweep_for(4 * (DUE_S + AGAIN_S)) == 0
    with pytest.raises(BrokerUnavailable):
        swept.parts.publisher.backlog([TOPIC])
    first.start()
    assert swept.parts.publisher.backlog([TOPIC])[TOPIC].waiting >= 10
