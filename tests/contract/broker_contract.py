"""The promises of the broker port. A backend makes a subclass that says how to get publishers and consumers.

    class TestMine(BrokerContract):
        @pytest.fixture
        def publisher(self): ...      # closed afterwards
        @pytest.fixture
        def make_consumer(self): ...  # a function that makes one more consumer of the same broker

What a test bench can also do it says by overriding `abandon`. Each test has topics of its own, so a broker may
serve many of them. Delays and redeliveries may be late; the tests only fix when they must not be early.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import pytest_asyncio

from mr.errors import ValueRefused
from mr.model.condition import Health
from mr.ports.broker import MESSAGE_MAX_BYTES, Backlog, Consumer, Delivery, Publication, Publisher

DEADLINE_S = 20.0

Abandon = Callable[[Consumer], Awaitable[None]]


async def until(condition: Callable[[], object], within_s: float = DEADLINE_S) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not so within {within_s} s"
        await asyncio.sleep(0.01)


class Inbox:
    """A consumer and what it got. `on_delivery` may be set to answer at once."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.deliveries: list[Delivery] = []
        self.arrived_at: list[float] = []
        self.on_delivery: Callable[[Delivery], None] = lambda delivery: None

    def take(self, delivery: Delivery) -> None:
        """What the consumer calls."""
        self.deliveries.append(delivery)
        self.arrived_at.append(time.monotonic())
        self.on_delivery(delivery)

    @property
    def bodies(self) -> list[bytes]:
        """Bodies so far, sorted, for there is no order."""
        return sorted(delivery.body for delivery in self.deliveries)

    async def get(self, count: int) -> list[Delivery]:
        """The first `count` deliveries, as soon as there are so many."""
        try:
            await until(lambda: len(self.deliveries) >= count)
        except AssertionError:
            raise AssertionError(f"{len(self.deliveries)} of {count} came: {self.bodies}") from None
        return self.deliveries[:count]


OpenInbox = Callable[..., Awaitable[Inbox]]


def finish(delivery: Delivery) -> None:
    """An `on_delivery` that finishes at once."""
    delivery.finish()


class BrokerContract:
    """All that services may rely on."""

    redelivery_s = 2.0
    """How long at least a message stays with a consumer that says nothing more."""

    @pytest.fixture
    def publisher(self) -> Iterator[Publisher]:
        """A publisher of the broker."""
        raise NotImplementedError

    @pytest.fixture
    def make_consumer(self) -> Callable[[], Consumer]:
        """Makes a consumer of the broker that was not started; the test closes it."""
        raise NotImplementedError

    @pytest.fixture
    def abandon(self) -> Abandon:
        """Lets a consumer die as if its process were killed; closing it later is harmless."""
        raise NotImplementedError

    @pytest.fixture
    def topic(self) -> str:
        return f"t{uuid.uuid4().hex[:12]}"

    @pytest_asyncio.fixture
    async def open_inbox(self, make_consumer: Callable[[], Consumer]) -> AsyncIterator[OpenInbox]:
        """Opens inboxes: `await open_inbox([topic], allow=10)`."""
        opened: list[Consumer] = []

        async def open_(topics: Sequence[str], allow: int = 10) -> Inbox:
            consumer = make_consumer()
            inbox = Inbox(consumer)
            opened.append(consumer)
            await consumer.start(inbox.take)
            await consumer.subscribe(topics)
            consumer.allow(allow)
            return inbox

        yield open_
        for consumer in opened:
            await consumer.close()

    # Publishing and delivering

    async def test_a_message_is_delivered_to_who_waits_for_it(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic])
        instance = publish(publisher, topic, b"hello")
        (delivery,) = await inbox.get(1)
        assert (delivery.topic, delivery.body, delivery.attempts) == (topic, b"hello", 1)
        assert instance in publisher.instances()

    async def test_a_message_waits_for_who_comes_later(self, publisher, topic, open_inbox):
        publish(publisher, topic, b"hello")
        inbox = await open_inbox([topic])
        assert (await inbox.get(1))[0].body == b"hello"

    async def test_bodies_may_be_any_bytes_up_to_the_limit(self, publisher, topic, open_inbox):
        bodies = [b"\0", bytes(range(256)), b"x" * MESSAGE_MAX_BYTES]
        publish(publisher, topic, *bodies)
        inbox = await open_inbox([topic])
        await inbox.get(3)
        assert inbox.bodies == sorted(bodies)

    @pytest.mark.parametrize("body", [b"", b"x" * (MESSAGE_MAX_BYTES + 1)], ids=["empty", "too big"])
    async def test_a_body_that_is_empty_or_too_big_refuses_the_whole(self, publisher, topic, body, open_inbox):
        with pytest.raises(ValueRefused):
            publish(publisher, topic, b"good", body)
        assert publisher.backlog([topic])[topic] == Backlog()

    async def test_publishing_nothing_is_harmless(self, publisher):
        publisher.publish([])

    async def test_many_messages_all_arrive_once(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic], allow=7)
        inbox.on_delivery = finish
        expected = [b"%d" % number for number in range(300)]
        publish(publisher, topic, *expected)
        await inbox.get(300)
        assert inbox.bodies == sorted(expected)

    async def test_publishing_is_safe_from_many_threads(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic], allow=50)
        inbox.on_delivery = finish
        with ThreadPoolExecutor(4) as pool:
            sent = [asyncio.wrap_future(pool.submit(publish, publisher, topic, b"%d" % number)) for number in range(40)]
            await asyncio.gather(*sent)
        await inbox.get(40)
        assert inbox.bodies == sorted(b"%d" % number for number in range(40))

    async def test_a_delayed_message_is_not_early(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic])
        inbox.on_delivery = finish
        at = time.monotonic()
        publish(publisher, topic, b"later", delay_s=0.5)
        publish(publisher, topic, b"now")
        await inbox.get(2)
        later = [delivery.body for delivery in inbox.deliveries].index(b"later")
        assert inbox.arrived_at[later] - at >= 0.5
        assert inbox.deliveries[later].attempts == 1

    # Topics

    async def test_a_consumer_receives_its_topics_and_no_others(self, publisher, topic, open_inbox):
        inbox = await open_inbox([f"{topic}a", f"{topic}b"])
        publish(publisher, f"{topic}c", b"c")
        publish(publisher, f"{topic}a", b"a")
        publish(publisher, f"{topic}b", b"b")
        other = await open_inbox([f"{topic}c"])
        await asyncio.gather(inbox.get(2), other.get(1))
        assert inbox.bodies == [b"a", b"b"]
        assert {delivery.topic for delivery in inbox.deliveries} == {f"{topic}a", f"{topic}b"}
        assert other.bodies == [b"c"]

    async def test_topics_can_be_added_and_dropped_later(self, publisher, topic, open_inbox):
        inbox = await open_inbox([f"{topic}a"])
        inbox.on_delivery = finish
        publish(publisher, f"{topic}b", b"b")
        publish(publisher, f"{topic}a", b"a")
        await inbox.get(1)
        await inbox.consumer.subscribe([f"{topic}a", f"{topic}b"])
        await inbox.get(2)
        await inbox.consumer.subscribe([f"{topic}b"])
        publish(publisher, f"{topic}a", b"a2")
        publish(publisher, f"{topic}b", b"b2")
        other = await open_inbox([f"{topic}a"])
        await asyncio.gather(inbox.get(3), other.get(1))
        assert inbox.bodies == [b"a", b"b", b"b2"]
        assert other.bodies == [b"a2"]

    async def test_no_topic_starves_behind_a_full_one(self, publisher, topic, open_inbox):
        publish(publisher, f"{topic}a", *[b"many"] * 300)
        publish(publisher, f"{topic}b", b"one")
        inbox = await open_inbox([f"{topic}a", f"{topic}b"], allow=2)
        inbox.on_delivery = finish
        await until(lambda: b"one" in inbox.bodies)
        assert len(inbox.deliveries) < 300

    # Sharing

    async def test_two_consumers_share_a_topic(self, publisher, topic, open_inbox):
        first, second = await open_inbox([topic], allow=1), await open_inbox([topic], allow=1)
        publish(publisher, topic, b"1", b"2")
        await asyncio.gather(first.get(1), second.get(1))
        assert sorted(first.bodies + second.bodies) == [b"1", b"2"]

    async def test_no_message_is_delivered_to_two_consumers(self, publisher, topic, open_inbox):
        inboxes = [await open_inbox([topic], allow=5) for _ in range(3)]
        for inbox in inboxes:
            inbox.on_delivery = finish
        expected = [b"%d" % number for number in range(200)]
        publish(publisher, topic, *expected)
        await until(lambda: sum(len(inbox.deliveries) for inbox in inboxes) >= 200)
        assert Counter(body for inbox in inboxes for body in inbox.bodies) == Counter(expected)

    # The allowance

    async def test_no_more_is_delivered_than_allowed_until_something_is_answered(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic], allow=3)
        unfinished: set[Delivery] = set()
        most = 0

        def on_delivery(delivery: Delivery) -> None:
            nonlocal most
            unfinished.add(delivery)
            most = max(most, len(unfinished))
            asyncio.get_running_loop().call_later(0.01, answer, delivery)

        def answer(delivery: Delivery) -> None:
            unfinished.discard(delivery)
            delivery.finish()

        inbox.on_delivery = on_delivery
        publish(publisher, topic, *[b"%d" % number for number in range(40)])
        await inbox.get(40)
        assert most == 3

    async def test_a_consumer_that_allows_nothing_leaves_all_to_others(self, publisher, topic, open_inbox):
        paused = await open_inbox([topic], allow=5)
        paused.on_delivery = finish
        publish(publisher, topic, b"before")
        await paused.get(1)
        paused.consumer.allow(0)
        await until(lambda: publisher.backlog([topic])[topic].total == 0)
        other = await open_inbox([topic], allow=5)
        other.on_delivery = finish
        publish(publisher, topic, *[b"%d" % number for number in range(20)])
        await other.get(20)
        assert len(paused.deliveries) == 1
        await other.consumer.close()
        publish(publisher, topic, b"after")
        paused.consumer.allow(1)
        await paused.get(2)
        assert paused.deliveries[1].body == b"after"

    async def test_a_paused_topic_waits_and_others_go_on(self, publisher, topic, open_inbox):
        paused, other = f"{topic}.paused", f"{topic}.other"
        inbox = await open_inbox([paused, other])
        inbox.on_delivery = finish
        inbox.consumer.pause({paused})
        for number in range(20):
            publisher.publish([Publication(paused, b"later"), Publication(other, b"now")])
            await until(partial(lambda count: inbox.bodies.count(b"now") == count, number + 1))
        # What was on its way when the topic was paused may have come, no more.
        assert inbox.bodies.count(b"later") <= 2
        inbox.consumer.pause(set())
        await inbox.get(40)
        assert inbox.bodies == [*[b"later"] * 20, *[b"now"] * 20]

    async def test_an_answer_lets_nothing_in_of_a_paused_topic(self, publisher, topic, open_inbox):
        inbox, other = await open_inbox([topic]), await open_inbox([topic])
        other.on_delivery = finish
        publisher.publish([Publication(topic, b"1")] * 20)
        await until(lambda: len(inbox.deliveries) + len(other.deliveries) == 20 and inbox.deliveries)
        inbox.consumer.pause({topic})
        deadline = time.monotonic() + DEADLINE_S
        while True:  # what was on its way may still come; soon it is none of 20
            for delivery in inbox.deliveries:
                delivery.finish()
            had = len(inbox.deliveries)
            total = had + len(other.deliveries) + 20
            publisher.publish([Publication(topic, b"2")] * 20)
            await until(partial(lambda count: len(inbox.deliveries) + len(other.deliveries) == count, total))
            if len(inbox.deliveries) == had:
                break
            assert time.monotonic() < deadline, "messages of a paused topic keep coming"

    async def test_the_allowance_can_be_raised_while_messages_are_in_flight(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic], allow=1)
        publish(publisher, topic, b"1", b"2", b"3")
        await inbox.get(1)
        inbox.consumer.allow(3)
        await inbox.get(3)
        assert inbox.bodies == [b"1", b"2", b"3"]

    # Answers

    async def test_a_finished_message_is_gone(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic])
        publish(publisher, topic, b"x")
        (delivery,) = await inbox.get(1)
        delivery.finish()
        await until(lambda: publisher.backlog([topic])[topic] == Backlog())
        await inbox.consumer.close()
        other = await open_inbox([topic])
        publish(publisher, topic, b"later")
        await other.get(1)
        assert other.bodies == [b"later"]

    async def test_a_requeued_message_comes_again_and_counts_its_attempts(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic])
        inbox.on_delivery = lambda delivery: delivery.requeue() if delivery.attempts < 4 else delivery.finish()
        publish(publisher, topic, b"x")
        await inbox.get(4)
        assert [delivery.attempts for delivery in inbox.deliveries] == [1, 2, 3, 4]
        assert {delivery.body for delivery in inbox.deliveries} == {b"x"}
        await until(lambda: publisher.backlog([topic])[topic] == Backlog())

    async def test_a_message_requeued_with_delay_is_not_early(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic])
        publish(publisher, topic, b"x")
        (delivery,) = await inbox.get(1)
        at = time.monotonic()
        delivery.requeue(0.5)
        inbox.on_delivery = finish
        publish(publisher, topic, b"between")
        await inbox.get(3)
        assert inbox.bodies == [b"between", b"x", b"x"]
        (again,) = [number for number, delivery in enumerate(inbox.deliveries) if delivery.attempts == 2]
        assert inbox.arrived_at[again] - at >= 0.5

    async def test_a_requeued_message_may_go_to_another_consumer(self, publisher, topic, open_inbox):
        first = await open_inbox([topic], allow=1)
        publish(publisher, topic, b"x")
        (delivery,) = await first.get(1)
        first.consumer.allow(0)
        second = await open_inbox([topic])
        delivery.requeue()
        (again,) = await second.get(1)
        assert (again.body, again.attempts) == (b"x", 2)

    async def test_a_second_answer_does_nothing(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic], allow=1)
        publish(publisher, topic, b"1")
        (delivery,) = await inbox.get(1)
        delivery.finish()
        delivery.finish()
        delivery.requeue()
        publish(publisher, topic, b"2", b"3")
        await inbox.get(2)
        # Had the second answer made room as well, both would be here.
        publish(publisher, f"{topic}other", b"mark")
        await (await open_inbox([f"{topic}other"])).get(1)
        assert len(inbox.deliveries) == 2
        inbox.deliveries[1].requeue()
        inbox.deliveries[1].finish()
        inbox.on_delivery = finish
        await inbox.get(4)
        assert Counter(inbox.bodies) in (Counter([b"1", b"2", b"2", b"3"]), Counter([b"1", b"3", b"3", b"2"]))

    async def test_a_touched_message_stays_where_it_is(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic])
        other = await open_inbox([topic], allow=0)
        publish(publisher, topic, b"x")
        (delivery,) = await inbox.get(1)
        other.consumer.allow(5)
        until_ = time.monotonic() + self.redelivery_s * 2
        while time.monotonic() < until_:
            delivery.touch()
            await asyncio.sleep(0.2)
        delivery.finish()
        await until(lambda: publisher.backlog([topic])[topic] == Backlog())
        assert len(inbox.deliveries) + len(other.deliveries) == 1

    # Death

    async def test_close_gives_back_at_once_what_is_unanswered(self, publisher, topic, open_inbox):
        first = await open_inbox([topic])
        publish(publisher, topic, b"1", b"2")
        await first.get(2)
        first.deliveries[0].finish()
        second = await open_inbox([topic])
        at = time.monotonic()
        await first.consumer.close()
        await first.consumer.close()
        (again,) = await second.get(1)
        assert time.monotonic() - at < self.redelivery_s
        assert (again.body, again.attempts) == (first.deliveries[1].body, 2)
        again.finish()
        await until(lambda: publisher.backlog([topic])[topic] == Backlog())

    async def test_the_messages_of_a_dead_consumer_come_back(self, publisher, topic, open_inbox, abandon: Abandon):
        dead, heir = await open_inbox([topic]), await open_inbox([topic], allow=0)
        publish(publisher, topic, b"1", b"2")
        await dead.get(2)
        dead.deliveries[0].finish()
        await until(lambda: publisher.backlog([topic])[topic].total == 1)
        await abandon(dead.consumer)
        heir.consumer.allow(5)
        (again,) = await heir.get(1)
        assert (again.body, again.attempts) == (dead.deliveries[1].body, 2)

    async def test_a_late_finish_does_not_finish_what_another_has(self, publisher, topic, open_inbox, abandon: Abandon):
        dead, heir = await open_inbox([topic]), await open_inbox([topic], allow=0)
        publish(publisher, topic, b"x")
        (lost,) = await dead.get(1)
        await abandon(dead.consumer)
        heir.consumer.allow(5)
        (again,) = await heir.get(1)
        lost.finish()
        again.requeue()
        (_, third) = await heir.get(2)
        assert (third.body, third.attempts) == (b"x", 3)

    async def test_answers_after_close_are_harmless(self, publisher, topic, open_inbox):
        inbox = await open_inbox([topic])
        publish(publisher, topic, b"1", b"2", b"3")
        await inbox.get(3)
        await inbox.consumer.close()
        inbox.deliveries[0].finish()
        inbox.deliveries[1].requeue()
        inbox.deliveries[2].touch()
        other = await open_inbox([topic])
        await other.get(3)
        assert other.bodies == [b"1", b"2", b"3"]

    # What can be asked

    async def test_the_backlog_tells_waiting_in_flight_and_delayed(self, publisher, topic, open_inbox):
        # A topic has a place for delayed messages only once somebody has consumed it.
        inbox = await open_inbox([topic], allow=2)
        publish(publisher, topic, b"1", b"2")
        await inbox.get(2)
        publish(publisher, topic, b"3", b"4", b"5")
        publish(publisher, topic, b"6", delay_s=60)
        expected = Backlog(waiting=3, in_flight=2, delayed=1)
        await until(lambda: publisher.backlog([topic])[topic] == expected)
        assert publisher.backlog([topic])[topic].total == 6

    async def test_the_backlog_of_an_unknown_topic_is_empty(self, publisher, topic):
        publish(publisher, topic, b"x")
        found = publisher.backlog([f"{topic}unknown", topic])
        assert found[f"{topic}unknown"] == Backlog()
        assert found[topic].total == 1

    async def test_a_topic_that_holds_messages_is_named_once(self, publisher, topic):
        publisher.publish([Publication(topic, b"a"), Publication(topic, b"b")])
        assert list(publisher.topics()).count(topic) == 1

    async def test_a_broker_that_is_well_has_nothing_that_fails(self, publisher):
        found = publisher.conditions()
        assert [one for one in found if one.health is Health.FAIL] == []
        assert all(one.found and bool(one.advice) is (one.health is not Health.OK) for one in found)

    async def test_an_instance_keeps_its_word(self, publisher):
        first = dict(publisher.instances())
        assert first
        assert all(first.values())
        assert publisher.instances() == first

    async def test_closing_a_publisher_twice_is_harmless(self, publisher):
        publisher.close()
        publisher.close()


def publish(to: Publisher, topic: str, *bodies: bytes, delay_s: float = 0.0) -> str:
    """Publish some bodies; returns the instance."""
    return to.publish([Publication(topic, body, delay_s) for body in bodies])
