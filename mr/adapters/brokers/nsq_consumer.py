"""Consuming from NSQ: one number, how many deliveries may be unfinished, shared among many connections.

There is one connection for every topic and nsqd, and each has its own limit at nsqd (RDY). The hard part is to spread
the number so that no topic starves, no room stays empty, little is taken that cannot be run now, and the hot path
sends no commands for it. `NsqConsumer` says how; what is on the wire lies in `nsq_reader`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Final

from mr.adapters.brokers.nsq import CHANNEL, DELAY_MAX_S
from mr.adapters.brokers.nsq_lookup import Lookup
from mr.adapters.brokers.nsq_reader import Link, NsqDelivery, TopicReader
from mr.ports.broker import Consumer, Delivery

_TICK_S: Final = 0.1
_REOPEN_S: Final = 0.005
"""After an answer nsqd needs a fraction of this to send the next message of the same topic."""

_HELD_MAX_S: Final = 1.0
_DRAIN_S: Final = 2.0


class NsqConsumer(Consumer):
    """Consumes topics from every nsqd given or found, at most `allow` deliveries at a time.

    Each connection (a topic at an nsqd) has its own limit, RDY: nsqd sends while less is in flight on it. So that
    one busy topic gets everything, and a topic that wakes up is heard at once, RDY is on each connection:

    - there is room: what it has in flight plus the room; 1 if it has nothing. The first message raises it.
    - there is none: what it has in flight, so that an answer makes room for its own topic's next message without
      another command. A connection with nothing in flight keeps 1 while answers come quickly.
    - full, and no answer for 0.1 s: all connections are *shut*: RDY is what they have in flight, and sinks with
      each answer. What becomes free is offered to a few connections at a time, those longest shut first, until
      it is taken: topics take turns, even when every message takes an hour.

    The second case lets a message in that there is no room for, at most one for each connection without one, or
    what was on its way: it is held here, and takes the next room, before the topic that made it. After a second
    it goes back to nsqd for others (and counts as an attempt there). So what is unfinished never exceeds `allow`,
    and no more than one message per connection, usually none, waits here in addition.

    `lookupds` are (host, HTTP port) of nsqlookupd; what they know is consumed beside `nsqds`.
    """

    def __init__(
        self,
        nsqds: Sequence[tuple[str, int, int]],
        lookupds: Sequence[tuple[str, int]] = (),
        channel: str = CHANNEL,
        *,
        msg_timeout_s: float = 3.0,
        heartbeat_s: int = 2,
        reconnect_s: float = 0.2,
        lookup_s: float = 5.0,
    ) -> None:
        self._nsqds = {(host, tcp_port) for host, tcp_port, _ in nsqds}
        self._lookup = Lookup(lookupds) if lookupds else None
        self._channel = channel
        self._msg_timeout_s = msg_timeout_s
        self._heartbeat_s = heartbeat_s
        self._reconnect_s = reconnect_s
        self._lookup_s = lookup_s
        self._readers: dict[str, TopicReader] = {}
        self._links: list[Link] = []
        self._raised: set[Link] = set()
        """Those whose RDY leaves room above what is in flight."""
        self._shut: deque[Link] = deque()
        self._held: deque[NsqDelivery] = deque()
        self._unanswered: set[NsqDelivery] = set()
        self._allowed = 0
        self._paused: Set[str] = frozenset()
        self._answered_at = 0.0
        self._reopening: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closed = False

    async def start(self, on_delivery: Callable[[Delivery], None]) -> None:
        self._on_delivery = on_delivery
        self._tasks = [asyncio.create_task(self._tick())]
        if self._lookup is not None:
            self._tasks.append(asyncio.create_task(self._look_up(self._lookup)))

    async def subscribe(self, topics: Sequence[str]) -> None:
        """As the port says; returns when the nsqds that answer have the topics, after a second at most."""
        for topic in self._readers.keys() - set(topics):
            for link in self._readers.pop(topic).stop():
                link.is_retired = True
                link.set_rdy(0)
        for topic in dict.fromkeys(topics):
            if topic not in self._readers:
                self._readers[topic] = TopicReader(functools.partial(self._make_link, topic), self._reconnect_s)
                self._readers[topic].follow(self._nsqds)
        self._hand_back([delivery for delivery in self._held if delivery.link.is_retired])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                for link in list(self._links):
                    await link.settled.wait()

    def allow(self, in_flight: int) -> None:
        if in_flight == self._allowed:
            return
        self._allowed = in_flight
        if in_flight == 0:
            self._open(self._links)
            self._hand_back(list(self._held))
        elif self._shut:
            self._reopen_soon()
        else:
            self._spread(self._links)
        self._serve_held()

    def pause(self, topics: Set[str]) -> None:
        changed = self._paused ^ topics
        self._paused = frozenset(topics)
        self._spread([link for link in self._links if link.topic in changed])

    async def close(self) -> None:
        """As the port says; what is unanswered goes back to nsqd at once, and nsqd confirms all that was sent."""
        if self._is_closed:
            return
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        if self._reopening:
            self._reopening.cancel()
        for reader in self._readers.values():
            reader.stop()
        self._allowed = 0
        self._spread(self._links)
        for delivery in [*self._held, *self._unanswered]:
            delivery.requeue()
        links = list(self._links)
        for link in links:
            link.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                for link in links:
                    await link.ended.wait()
        for link in links:
            await link.shut_down()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._lookup is not None:
            self._lookup.close()

    # What the wire reports (`nsq_reader.Receiver`).

    def on_ready(self, link: Link) -> None:
        if link.topic in self._readers:
            self._readers[link.topic].on_ready(link)
        self._spread([link])

    def on_closed(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)
        self._raised.discard(link)
        if link.is_shut:
            self._shut.remove(link)
        self._held = deque(delivery for delivery in self._held if delivery.link is not link)
        if link.topic in self._readers:
            self._readers[link.topic].on_closed(link)

    def on_message(self, delivery: NsqDelivery) -> None:
        if self._is_closed or delivery.link.is_retired or not self._allowed:
            delivery.requeue()
        elif self._held or len(self._unanswered) >= self._allowed:
            self._held.append(delivery)
            self._spread([delivery.link])
        else:
            self._unanswered.add(delivery)
            # Before the delivery is handed over: it may be answered at once, and would never raise the limit.
            self._spread([delivery.link] if self._room else [delivery.link, *self._raised])
            self._on_delivery(delivery)

    def on_answer(self, delivery: NsqDelivery) -> None:
        if delivery not in self._unanswered:
            return
        self._unanswered.remove(delivery)
        self._answered_at = time.monotonic()
        if self._is_closed:
            return
        if self._held or delivery.link.is_shut or delivery.link.topic in self._paused:
            # Sent before the answer, so that nsqd does not fill the place from the same topic.
            delivery.link.set_rdy(len(delivery.link.live))
            asyncio.get_running_loop().call_soon(self._serve_held)
        self._reopen_soon()

    # How RDY is spread; the docstring of the class says why.

    @property
    def _room(self) -> int:
        return max(0, self._allowed - len(self._unanswered) - len(self._held))

    def _spread(self, links: Iterable[Link]) -> None:
        """Set RDY on these connections to what they should have now."""
        room = self._room
        for link in list(links):
            live = len(link.live)
            if not self._allowed or link.is_retired:
                rdy = 0
            elif link.is_shut or link.topic in self._paused:
                rdy = live
            else:
                rdy = live + room if live else 1
            link.set_rdy(rdy)
            if room and rdy > 1:
                self._raised.add(link)
            else:
                self._raised.discard(link)

    def _serve_held(self) -> None:
        """Hand over what waits here, as far as there is room."""
        while self._held and len(self._unanswered) < self._allowed and not self._is_closed:
            delivery = self._held.popleft()
            if delivery.is_live:
                self._unanswered.add(delivery)
                self._on_delivery(delivery)

    def _hand_back(self, deliveries: Iterable[NsqDelivery]) -> None:
        """Give what waits here to others. RDY goes first, otherwise it would come back at once."""
        for delivery in deliveries:
            self._held.remove(delivery)
            delivery.link.set_rdy(len(delivery.link.live) - 1 if delivery.is_live else len(delivery.link.live))
            delivery.requeue()

    def _reopen_soon(self) -> None:
        if self._reopening is None:
            self._reopening = asyncio.get_running_loop().call_later(_REOPEN_S, self._reopen)

    def _reopen(self) -> None:
        """Offer the room that nobody took since the answer: to all, or to the next few if they are shut."""
        self._reopening = None
        if not self._shut:
            self._spread(self._links)
        elif room := self._room:
            self._open(itertools.islice(self._shut, max(room, len(self._links) // 8)))
            self._reopen_soon()

    def _open(self, links: Iterable[Link]) -> None:
        links = list(links)
        for link in links:
            if link.is_shut:
                link.is_shut = False
                self._shut.remove(link)
        self._spread(links)

    def _shut_all(self) -> None:
        """Behind those that are shut already, so that these are offered room first."""
        links = [link for link in self._links if not link.is_shut and link.is_ready]
        random.shuffle(links)
        for link in links:
            link.is_shut = True
        self._shut.extend(links)
        self._spread(links)

    # What happens by time.

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            for link in list(self._links):
                link.expire(now)
                if link.is_silent or (link.is_retired and not link.live and not link.stream.writing()):
                    link.close()
            self._keep_held(now)
            if self._allowed and not self._room and now - self._answered_at > _TICK_S:
                self._shut_all()
            else:
                self._reopen_soon()

    def _keep_held(self, now: float) -> None:
        """While answers come, what waits here will have its turn; when none come, others should have it."""
        for delivery in list(self._held):
            if delivery.link.is_shut and now - delivery.arrived_at > _HELD_MAX_S:
                self._hand_back([delivery])
            elif delivery.expires_at - now < self._msg_timeout_s / 2:
                delivery.touch()

    async def _look_up(self, lookup: Lookup) -> None:
        """Ask nsqlookupd where the topics are, again and again."""
        while True:
            producers = await asyncio.to_thread(lookup.producers)
            for topic, reader in self._readers.items():
                reader.follow(self._nsqds | {producer.address for producer in producers if producer.has(topic)})
            await asyncio.sleep(self._lookup_s if self._readers else _TICK_S)

    def _make_link(self, topic: str, address: tuple[str, int]) -> Link:
        link = Link(
            address,
            topic,
            self._channel,
            self,
            msg_timeout_s=self._msg_timeout_s,
            heartbeat_s=self._heartbeat_s,
            delay_max_s=DELAY_MAX_S,
        )
        self._links.append(link)
        return link
