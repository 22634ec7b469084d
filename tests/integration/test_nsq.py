"""What only the NSQ adapter has: its server dies, freezes, forgets; and the traps of its protocol.

Each test has its own topics. Tests that hurt a server start one of their own.
"""

from __future__ import annotations

import asyncio
import http.server
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from mr.adapters.brokers.nsq import DELAY_MAX_S, NsqPublisher
from mr.adapters.brokers.nsq_consumer import NsqConsumer
from mr.adapters.brokers.nsq_reader import Link, NsqDelivery
from mr.errors import BrokerUnavailable, ValueRefused
from mr.model.condition import Health
from mr.ports.broker import MESSAGE_MAX_BYTES, Backlog, Delivery, Publication
from tests.servers_nsq import NsqdServer, NsqlookupdServer

# nsqd looks for timeouts and delays in a new channel only from its next round on, each 5 s; no flag changes that.
NEW_CHANNEL_S = 6.0


class Inbox:
    """A consumer and what it got."""

    def __init__(self, consumer: NsqConsumer) -> None:
        self.consumer = consumer
        self.deliveries: list[Delivery] = []
        self.on_delivery: Callable[[Delivery], None] = lambda delivery: None

    def take(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.on_delivery(delivery)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]

    async def get(self, count: int, within_s: float = 10.0) -> list[Delivery]:
        """The first `count` deliveries, as soon as there are so many."""
        await until(lambda: len(self.deliveries) >= count, within_s, lambda: f"{len(self.deliveries)} of {count} came")
        return self.deliveries[:count]


class RecordingLink(Link):
    """A connection to nowhere; its frames come from the test, and what it would send is noted."""

    def __init__(self) -> None:
        self.got: list[NsqDelivery] = []
        self.sent: list[bytes] = []
        super().__init__(("127.0.0.1", 1), "t", "c", self, msg_timeout_s=3.0, heartbeat_s=2, delay_max_s=1.0)

    def receive(self, message_id: bytes, attempts: int) -> None:
        frame = struct.pack(">iqH", 2, 0, attempts) + message_id + b"body"
        self._on_frame(frame, time.monotonic())

    def command(self, command: bytes) -> None:
        self.sent.append(command)

    def on_message(self, delivery: NsqDelivery) -> None:
        self.got.append(delivery)

    def on_ready(self, link: Link) -> None: ...

    def on_closed(self, link: Link) -> None: ...

    def on_answer(self, delivery: NsqDelivery) -> None: ...


Open = Callable[..., Awaitable[Inbox]]


async def until(condition: Callable[[], bool], within_s: float = 10.0, say: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {say()}"
        await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def shared() -> Iterator[NsqdServer]:
    server = NsqdServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def nsqd() -> Iterator[NsqdServer]:
    server = NsqdServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def second() -> Iterator[NsqdServer]:
    server = NsqdServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def topic() -> str:
    return f"mr.test.{uuid.uuid4().hex[:12]}"


@pytest.fixture
def publisher(shared: NsqdServer) -> Iterator[NsqPublisher]:
    one = NsqPublisher([shared.address])
    yield one
    one.close()


@pytest_asyncio.fixture
async def open_inbox() -> AsyncIterator[Open]:
    """Opens consumers: `await open_inbox([server], [topic], allow=…)`."""
    opened: list[NsqConsumer] = []

    async def open_(servers: Sequence[NsqdServer], topics: Sequence[str], allow: int = 10, **options) -> Inbox:
        consumer = NsqConsumer([server.address for server in servers], **options)
        opened.append(consumer)
        inbox = Inbox(consumer)
        await consumer.start(inbox.take)
        await consumer.subscribe(topics)
        consumer.allow(allow)
        return inbox

    yield open_
    for consumer in opened:
        await consumer.close()


def publish(to: NsqPublisher, topic: str, *bodies: bytes, delay_s: float = 0.0) -> str:
    return to.publish([Publication(topic, body, delay_s) for body in bodies])


# Delivery


async def test_messages_arrive_in_milliseconds_although_the_consumer_allows_more(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic], allow=200)
    arrived: dict[bytes, float] = {}
    # Nothing is answered: nsqd sends at once when RDY is used up, and that would hide its buffer.
    inbox.on_delivery = lambda delivery: arrived.setdefault(delivery.body, time.perf_counter())
    sent: dict[bytes, float] = {}

    def send() -> None:
        for number in range(100):
            body = b"%d" % number
            sent[body] = time.perf_counter()
            publish(publisher, topic, body)
            time.sleep(0.003)

    await asyncio.to_thread(send)
    await inbox.get(100)
    waited = sorted(arrived[body] - sent[body] for body in sent)
    assert waited[50] < 0.020, f"p50 {waited[50] * 1000:.1f} ms; nsqd keeps messages back unless told not to"


async def test_a_burst_uses_the_whole_allowance_at_once(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic, topic + ".idle"], allow=20)
    publish(publisher, topic, *[b"x"] * 30)
    await inbox.get(20, within_s=2)
    await until(lambda: publisher.backlog([topic])[topic].in_flight == 20)


async def test_raising_the_allowance_while_messages_are_held_lets_more_in(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic], allow=2)
    publish(publisher, topic, *[b"x"] * 10)
    await inbox.get(2)
    inbox.consumer.allow(5)
    await inbox.get(5, within_s=2)
    inbox.consumer.allow(0)
    inbox.consumer.allow(7)
    await inbox.get(7, within_s=2)
    inbox.on_delivery = lambda delivery: delivery.finish()
    for delivery in list(inbox.deliveries):
        delivery.finish()
    await until(lambda: publisher.backlog([topic])[topic] == Backlog())
    assert len(inbox.deliveries) == 10


async def test_a_consumer_that_allows_nothing_gets_nothing_until_it_does(shared, publisher, topic, open_inbox):
    paused = await open_inbox([shared], [topic], allow=0)
    publish(publisher, topic, b"x")
    # Somebody else gets it, which shows that it was there to be had.
    other = await open_inbox([shared], [topic])
    (delivery,) = await other.get(1)
    other.consumer.allow(0)
    assert paused.deliveries == []
    delivery.requeue()
    paused.consumer.allow(1)
    await paused.get(1, within_s=2)


async def test_a_message_is_delivered_again_however_often_it_was_tried(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic])
    inbox.on_delivery = lambda delivery: delivery.requeue() if delivery.attempts < 9 else delivery.finish()
    publish(publisher, topic, b"x")
    deliveries = await inbox.get(9)
    assert [delivery.attempts for delivery in deliveries] == list(range(1, 10))
    await until(lambda: publisher.backlog([topic])[topic] == Backlog())


async def test_attempts_are_counted_beyond_what_fits_a_signed_number():
    link = RecordingLink()
    link.receive(b"0123456789abcdef", attempts=65_535)
    assert (link.got[0].attempts, link.got[0].body) == (65_535, b"body")


async def test_a_requeue_with_delay_does_not_stop_other_messages(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic])
    inbox.on_delivery = lambda delivery: delivery.requeue(60.0)
    publish(publisher, topic, *[b"later"] * 3)
    await inbox.get(3)
    publish(publisher, topic, b"now")
    await inbox.get(4, within_s=1)
    assert inbox.bodies[-1] == b"now"


async def test_a_delay_is_a_fraction_of_a_second_if_asked(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic])
    publish(publisher, topic, b"x")
    (delivery,) = await inbox.get(1)
    started = time.monotonic()
    delivery.requeue(0.4)
    await inbox.get(2)
    assert 0.35 < time.monotonic() - started < 0.4 + NEW_CHANNEL_S


async def test_a_delay_beyond_what_nsqd_takes_is_cut(shared, publisher, topic, open_inbox):
    publish(publisher, topic, b"published later", delay_s=100 * DELAY_MAX_S)
    inbox = await open_inbox([shared], [topic])
    publish(publisher, topic, b"x")
    (delivery,) = await inbox.get(1)
    delivery.requeue(100 * DELAY_MAX_S)
    await until(lambda: publisher.backlog([topic])[topic].delayed == 2)
    assert len(shared.clients(topic)) == 1


# Answers that come late


async def test_only_the_newest_delivery_of_a_message_may_answer_and_only_in_its_time():
    link = RecordingLink()
    link.receive(b"0123456789abcdef", attempts=1)
    link.receive(b"0123456789abcdef", attempts=2)
    link.receive(b"fedcba9876543210", attempts=1)
    first, second, other = link.got
    first.touch()
    first.finish()
    other.expires_at = time.monotonic() - 0.001
    other.touch()
    other.requeue()
    assert link.sent == []
    second.finish()
    assert link.sent == [b"FIN 0123456789abcdef\n"]
    assert link.live == {}


async def test_the_late_finish_of_a_first_delivery_does_not_finish_the_second(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic], msg_timeout_s=1.0)
    publish(publisher, topic, b"x")
    first, second = await inbox.get(2)
    assert (first.attempts, second.attempts) == (1, 2)
    first.finish()
    first.touch()
    second.requeue()
    third = (await inbox.get(3))[2]
    assert third.attempts == 3
    third.finish()
    await until(lambda: publisher.backlog([topic])[topic] == Backlog())


async def test_touching_keeps_a_message_for_longer_than_its_timeout(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic], msg_timeout_s=1.0)
    publish(publisher, topic, b"x")
    (delivery,) = await inbox.get(1)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        delivery.touch()
        await asyncio.sleep(0.25)
    assert len(inbox.deliveries) == 1
    delivery.finish()
    await until(lambda: publisher.backlog([topic])[topic] == Backlog())


async def test_a_second_answer_does_nothing(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic])
    publish(publisher, topic, b"x")
    (delivery,) = await inbox.get(1)
    delivery.finish()
    delivery.requeue()
    delivery.finish()
    delivery.touch()
    publish(publisher, topic, b"y")
    await inbox.get(2)
    assert inbox.bodies == [b"x", b"y"]


async def test_answers_to_a_server_that_is_gone_do_nothing(nsqd, topic, open_inbox):
    publisher = NsqPublisher([nsqd.address])
    inbox = await open_inbox([nsqd], [topic])
    publish(publisher, topic, b"a", b"b", b"c")
    first, second, third = await inbox.get(3)
    nsqd.kill()
    first.finish()
    await until(lambda: not any(link.connected() for link in inbox.consumer._links))
    second.requeue(1.0)
    third.touch()
    third.finish()
    publisher.close()


async def test_a_loop_that_was_blocked_answers_stale_deliveries_without_harm(shared, publisher, topic, open_inbox):
    inbox = await open_inbox([shared], [topic], allow=2, msg_timeout_s=1.0, heartbeat_s=1)
    publish(publisher, topic, *[b"%d" % number for number in range(6)])
    held = await inbox.get(2)
    time.sleep(3.5)  # what is tested: the loop does not run, nsqd drops the connection
    inbox.on_delivery = lambda delivery: delivery.finish()
    for delivery in held:
        delivery.finish()
    await until(lambda: publisher.backlog([topic])[topic] == Backlog(), 15)
    assert set(inbox.bodies) == {b"%d" % number for number in range(6)}


# One allowance for many topics


async def test_what_is_unfinished_never_exceeds_the_allowance_over_many_topics(shared, publisher, topic, open_inbox):
    topics = [f"{topic}.{number}" for number in range(8)]
    inbox = await open_inbox([shared], topics, allow=0)
    publisher.publish([Publication(one, b"x") for one in topics for _ in range(25)])
    unfinished = 0
    most = 0
    seen_after: dict[str, int] = {}
    loop = asyncio.get_running_loop()

    def end(delivery: Delivery) -> None:
        nonlocal unfinished
        unfinished -= 1
        delivery.finish()

    def begin(delivery: Delivery) -> None:
        nonlocal unfinished, most
        unfinished += 1
        most = max(most, unfinished)
        seen_after.setdefault(delivery.topic, len(inbox.deliveries))
        loop.call_later(0.005, end, delivery)

    inbox.on_delivery = begin
    inbox.consumer.allow(3)
    await inbox.get(200, within_s=15)
    await until(lambda: unfinished == 0)
    assert most == 3
    assert max(seen_after.values()) < 100, f"a topic starved: {seen_after}"
    assert Counter(delivery.attempts for delivery in inbox.deliveries) == {1: 200}


async def test_topics_take_turns_even_when_each_message_takes_long(shared, publisher, topic, open_inbox):
    topics = [f"{topic}.{number}" for number in range(3)]
    inbox = await open_inbox([shared], topics, allow=0)
    publisher.publish([Publication(one, b"x") for one in topics for _ in range(4)])
    loop = asyncio.get_running_loop()
    inbox.on_delivery = lambda delivery: loop.call_later(0.4, delivery.finish)
    inbox.consumer.allow(1)
    first = await inbox.get(7, within_s=15)
    assert {delivery.topic for delivery in first} == set(topics)


async def test_a_busy_consumer_leaves_the_messages_of_other_topics_to_others(shared, publisher, topic, open_inbox):
    topics = [topic, topic + ".other"]
    busy = await open_inbox([shared], topics, allow=1)
    publish(publisher, topics[0], b"takes for ever")
    (delivery,) = await busy.get(1)
    busy.on_delivery = lambda delivery: pytest.fail("it allowed one")
    publish(publisher, topics[1], b"quick")
    free = await open_inbox([shared], topics, allow=1)
    for _ in range(2):
        (taken, *_rest) = await free.get(1, within_s=4)
        delivery.touch()
    assert taken.body == b"quick"
    delivery.finish()


async def test_a_topic_is_heard_again_after_a_long_message_of_another(shared, publisher, topic, open_inbox):
    topics = [topic, *(f"{topic}.{number}" for number in range(20))]
    inbox = await open_inbox([shared], topics, allow=1, msg_timeout_s=30.0)
    publish(publisher, topic, b"long")
    (delivery,) = await inbox.get(1)
    await until(lambda: len(inbox.consumer._shut) == len(topics))
    publish(publisher, topics[-1], b"waits")
    delivery.finish()
    await inbox.get(2, within_s=1)


# Ending


async def test_close_gives_back_at_once_what_is_unanswered_and_leaves_nothing_behind(
    shared, publisher, topic, open_inbox
):
    leaving = await open_inbox([shared], [topic], msg_timeout_s=60.0)
    publish(publisher, topic, b"a", b"b", b"c")
    deliveries = await leaving.get(3)
    deliveries[0].finish()
    started = time.monotonic()
    await leaving.consumer.close()
    await leaving.consumer.close()
    assert time.monotonic() - started < 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await until(lambda: shared.clients(topic) == [])
    assert publisher.backlog([topic])[topic] == Backlog(waiting=2)
    deliveries[1].finish()
    staying = await open_inbox([shared], [topic])
    await staying.get(2, within_s=2)
    assert set(staying.bodies) == {b"b", b"c"}


async def test_a_closed_consumer_does_not_come_back_when_its_server_does(nsqd, topic, open_inbox):
    inbox = await open_inbox([nsqd], [topic], reconnect_s=0.05)
    nsqd.kill()
    await until(lambda: not any(link.connected() for link in inbox.consumer._links))
    await inbox.consumer.close()
    nsqd.start()
    # Another consumer, opened later with the same pace, has time to break and to come back meanwhile.
    other = await open_inbox([nsqd], [topic], reconnect_s=0.05)
    nsqd.restart()
    await until(lambda: len(nsqd.clients(topic)) > 0)
    publisher = NsqPublisher([nsqd.address])
    publish(publisher, topic, *[b"x"] * 20)
    await until(lambda: len(other.deliveries) == 10)
    assert inbox.deliveries == []
    assert len(nsqd.clients(topic)) == 1
    publisher.close()


async def test_a_topic_that_is_dropped_is_left_but_what_it_delivered_can_be_finished(
    shared, publisher, topic, open_inbox
):
    inbox = await open_inbox([shared], [topic, topic + ".stays"], allow=2)
    publish(publisher, topic, *[b"x"] * 5)
    first, second = await inbox.get(2)
    await inbox.consumer.subscribe([topic + ".stays"])
    first.finish()
    second.finish()
    await until(lambda: shared.clients(topic) == [])
    assert publisher.backlog([topic])[topic] == Backlog(waiting=3)
    publish(publisher, topic + ".stays", b"y")
    await inbox.get(3, within_s=2)
    await inbox.consumer.subscribe([topic])
    await inbox.get(4, within_s=2)


@pytest.mark.kills
async def test_the_messages_of_a_killed_consumer_come_back_after_their_timeout(shared, publisher, topic, open_inbox):
    publish(publisher, topic, b"x")
    script = f"""
import asyncio
from mr.adapters.brokers.nsq_consumer import NsqConsumer
async def main():
    consumer = NsqConsumer([{shared.address!r}], msg_timeout_s=1.0)
    await consumer.start(lambda delivery: print("got", delivery.attempts, flush=True))
    await consumer.subscribe([{topic!r}])
    consumer.allow(1)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    checkout = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=checkout) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "got 1\n"
        killed = time.monotonic()
        victim.kill()
    assert victim.returncode == -signal.SIGKILL
    inbox = await open_inbox([shared], [topic])
    (delivery,) = await inbox.get(1)
    assert delivery.attempts == 2
    assert time.monotonic() - killed < 1 + NEW_CHANNEL_S
    delivery.finish()


# Servers that die, freeze, forget


@pytest.mark.kills
async def test_a_consumer_is_back_within_two_seconds_after_its_server_even_if_that_forgot_all(nsqd, topic, open_inbox):
    publisher = NsqPublisher([nsqd.address])
    inbox = await open_inbox([nsqd], [topic])
    publish(publisher, topic, b"before")
    await inbox.get(1)
    nsqd.restart(wipe=True)
    publish(publisher, topic, b"after")
    await inbox.get(2, within_s=2)
    assert inbox.bodies == [b"before", b"after"]
    publisher.close()


@pytest.mark.kills
async def test_a_consumer_that_starts_before_its_server_finds_it(nsqd, topic, open_inbox):
    nsqd.kill()
    inbox = await open_inbox([nsqd], [topic])
    nsqd.start()
    publisher = NsqPublisher([nsqd.address])
    publish(publisher, topic, b"x")
    await inbox.get(1, within_s=2)
    publisher.close()


@pytest.mark.kills
async def test_a_frozen_server_is_noticed_and_used_again_when_it_thaws(nsqd, topic, open_inbox):
    publisher = NsqPublisher([nsqd.address])
    inbox = await open_inbox([nsqd], [topic], heartbeat_s=1)
    inbox.on_delivery = lambda delivery: delivery.finish()
    (link,) = inbox.consumer._links
    nsqd.freeze()
    await until(link.closed, 4)
    nsqd.thaw()
    publish(publisher, topic, b"x")
    await inbox.get(1, within_s=5)
    publisher.close()


@pytest.mark.kills
def test_publishing_to_a_frozen_server_ends_with_an_error_in_time(nsqd, topic):
    publisher = NsqPublisher([nsqd.address])
    publish(publisher, topic, b"x")
    nsqd.freeze()
    started = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=nsqd.instance):
        publish(publisher, topic, b"y")
    assert 1.5 < time.monotonic() - started < 2.6
    nsqd.thaw()
    assert publish(publisher, topic, b"z") == nsqd.instance
    publisher.close()


@pytest.mark.kills
def test_publishing_goes_past_a_frozen_server_and_then_avoids_it(nsqd, second, topic):
    publisher = NsqPublisher([nsqd.address, second.address], deadline_s=0.5)
    nsqd.freeze()
    assert {publish(publisher, topic, b"x") for _ in range(2)} == {second.instance}
    started = time.monotonic()
    assert {publish(publisher, topic, b"y") for _ in range(10)} == {second.instance}
    assert time.monotonic() - started < 0.4
    publisher.close()


@pytest.mark.kills
def test_publishing_goes_past_a_dead_server_and_instances_and_backlog_tell(nsqd, second, topic):
    publisher = NsqPublisher([nsqd.address, second.address])
    assert {publish(publisher, topic, b"x") for _ in range(4)} == {nsqd.instance, second.instance}
    assert publisher.backlog([topic, "unknown"]) == {topic: Backlog(waiting=4), "unknown": Backlog()}
    assert publisher.instances().keys() == {nsqd.instance, second.instance}
    nsqd.kill()
    assert {publish(publisher, topic, b"x") for _ in range(4)} == {second.instance}
    assert publisher.instances().keys() == {second.instance}
    with pytest.raises(BrokerUnavailable, match=nsqd.instance):
        publisher.backlog([topic])
    second.kill()
    with pytest.raises(BrokerUnavailable):
        publish(publisher, topic, b"x")
    publisher.close()


@pytest.mark.kills
def test_an_instance_has_another_word_after_a_restart(nsqd):
    publisher = NsqPublisher([nsqd.address])
    before = publisher.instances()
    assert publisher.instances() == before
    deadline = time.monotonic() + 5
    while int(time.time()) <= int(before[nsqd.instance]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    nsqd.restart()
    after = publisher.instances()
    assert after.keys() == before.keys()
    assert after != before
    publisher.close()


async def test_every_server_is_consumed_however_small_the_allowance(nsqd, second, topic, open_inbox):
    publisher = NsqPublisher([nsqd.address, second.address])
    publisher.ensure(topic)
    inbox = await open_inbox([nsqd, second], [topic], allow=1)
    inbox.on_delivery = lambda delivery: delivery.finish()
    for number in range(20):
        publish(publisher, topic, b"%d" % number)
    await inbox.get(20, within_s=3)
    assert set(inbox.bodies) == {b"%d" % number for number in range(20)}
    publisher.close()


async def test_servers_are_found_through_nsqlookupd(topic, open_inbox):
    lookupd = NsqlookupdServer()
    lookupd.start()
    nsqd = NsqdServer([f"--lookupd-tcp-address=127.0.0.1:{lookupd.tcp_port}"])
    nsqd.start()
    publisher = NsqPublisher([nsqd.address])
    try:
        publish(publisher, topic, b"x")
        inbox = await open_inbox([], [topic], lookupds=[lookupd.address, ("127.0.0.1", 1)], lookup_s=0.2)
        (delivery,) = await inbox.get(1)
        delivery.finish()
        await inbox.consumer.close()
    finally:
        publisher.close()
        nsqd.stop()
        lookupd.stop()


# Publishing


def test_bodies_are_refused_by_their_size_before_anything_is_sent(publisher, topic):
    for body in (b"", b"x" * (MESSAGE_MAX_BYTES + 1)):
        with pytest.raises(ValueRefused, match="bytes"):
            publish(publisher, topic, b"good", body)
    assert publisher.backlog([topic])[topic] == Backlog()


async def test_the_biggest_bodies_arrive_whole_and_more_of_them_than_fit_one_request(
    shared, publisher, topic, open_inbox
):
    bodies = [bytes([number]) * MESSAGE_MAX_BYTES for number in range(12)]
    publish(publisher, topic, *bodies)
    assert publisher.backlog([topic])[topic].waiting == 12
    inbox = await open_inbox([shared], [topic], allow=12)
    inbox.on_delivery = lambda delivery: delivery.finish()
    await inbox.get(12)
    assert sorted(inbox.bodies) == bodies


def test_many_small_bodies_of_several_topics_go_in_one_call(publisher, topic):
    topics = [f"{topic}.{number}" for number in range(3)]
    publisher.publish([Publication(one, b"x", delay_s) for one in topics for delay_s in (0.0, 0.0, 60.0)])
    assert publisher.backlog(topics) == dict.fromkeys(topics, Backlog(waiting=3))  # no channel yet: not delayed yet


def test_a_name_that_is_no_topic_is_refused(publisher):
    with pytest.raises(ValueRefused, match="INVALID_TOPIC"):
        publish(publisher, "no topic", b"x")


def test_the_channels_of_others_do_not_count(shared, publisher, topic):
    publisher.ensure(topic)
    shared.post("/channel/create", topic=topic, channel="somebody_else")
    publish(publisher, topic, b"x", b"y")
    assert publisher.backlog([topic])[topic] == Backlog(waiting=2)


def test_publishing_is_safe_from_many_threads(publisher, topic):
    threads = [
        threading.Thread(target=lambda: [publish(publisher, topic, b"x") for _ in range(50)] and None) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.backlog([topic])[topic].waiting == 400


@pytest.mark.parametrize(
    "answer", ["500 x", "503 EXITING", "404 x", "403 TLS_REQUIRED", "302 x", "200 no json", "hang up"]
)
def test_an_answer_that_is_none_means_unavailable(answer):
    class Odd(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if answer == "hang up":
                return
            status, text = answer.split(" ", 1)
            self.send_response(int(status))
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        publisher = NsqPublisher([("127.0.0.1", 1, server.server_address[1])])
        try:
            with pytest.raises(BrokerUnavailable) as caught:
                publisher.backlog(["t"])
            assert caught.value.__cause__ is not None or "answers" in str(caught.value)
            assert publisher.instances() == {}
        finally:
            publisher.close()
            server.shutdown()
            thread.join()


# Conditions


def healths(publisher: NsqPublisher) -> dict[str, Health]:
    found = {one.subject: one.health for one in publisher.conditions()}
    publisher.close()
    return found


def test_good_servers_have_nothing_to_be_done(shared):
    lookupd = NsqlookupdServer()
    lookupd.start()
    try:
        found = healths(NsqPublisher([shared.address], [lookupd.address]))
    finally:
        lookupd.stop()
    names = (f"nsqd {shared.instance}", f"nsqlookupd {lookupd.address[0]}:{lookupd.address[1]}")
    assert found == dict.fromkeys([*names, *(f"{name} clock" for name in names)], Health.OK)


def test_one_nsqd_that_is_away_is_a_warning_and_all_a_failure(shared):
    found = healths(NsqPublisher([("127.0.0.1", 1, 2), shared.address]))
    assert found["nsqd 127.0.0.1:1"] is Health.WARN
    assert found[f"nsqd {shared.instance}"] is Health.OK
    assert healths(NsqPublisher([("127.0.0.1", 1, 2)])) == {"nsqd 127.0.0.1:1": Health.FAIL}


def test_an_old_sick_nsqd_whose_clock_is_wrong_is_told():
    class Sick(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_ping = self.path == "/ping"
            self.send_response_only(500 if is_ping else 200)
            self.send_header("Date", "Sat, 01 Jan 2000 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(b"NOK - disk" if is_ping else b'{"version": "1.1.0", "start_time": 1}')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Sick) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            found = healths(NsqPublisher([("127.0.0.1", 1, server.server_address[1])]))
        finally:
            server.shutdown()
            thread.join()
    name = "nsqd 127.0.0.1:1"
    assert found == dict.fromkeys((name, f"{name} health", f"{name} clock"), Health.FAIL)
