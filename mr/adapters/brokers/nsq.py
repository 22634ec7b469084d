"""Publishing to NSQ, through the HTTP door of nsqd. Consuming is in `nsq_consumer`, so that who only publishes, such
as a front end, never loads tornado.

It is HTTP because it is answered (the TCP writer of pynsq is not, reliably), works from any thread or
greenlet, and `/mpub` takes a thousand messages at the price of one. A publisher asks one nsqd after the other;
whoever takes all of a call is named to the caller, because a receipt must say which nsqd to suspect later.

The hard part is what nsqd does *not* keep: with its default settings everything that waits in memory is gone
when it is killed, and what is in flight or delayed always is. So `instances` tells when each started.
"""

from __future__ import annotations

import itertools
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import urlencode

import msgspec
import urllib3

from mr import codec
from mr.errors import BrokerUnavailable, CorruptEntry, ValueRefused
from mr.model.condition import Condition, Health, broken, fine
from mr.ports.broker import MESSAGE_MAX_BYTES, Backlog, Publication, Publisher
from mr.rules import condition

CHANNEL: Final = "general_worker"
"""The one channel that all workers share, so that each message goes to one of them."""

DELAY_MAX_S: Final = 3600.0
"""nsqd's default `-max-req-timeout`; it refuses to defer longer, so longer delays are cut to this."""

_BODY_MAX_BYTES: Final = 5 * 1024 * 1024
"""nsqd's default `-max-body-size`, for a whole `/mpub`."""

_SHUNNED_S: Final = 5.0
"""How long an nsqd that failed is asked last: a frozen one costs the whole deadline each time."""

_OLDEST: Final = (1, 2, 0)

_STATS: Final = {"format": "json", "include_clients": "false", "include_mem": "false"}

_Address = tuple[str, int, int]


T = TypeVar("T")


class _Channel(msgspec.Struct):
    channel_name: str
    depth: int = 0
    in_flight_count: int = 0
    deferred_count: int = 0


class _Topic(msgspec.Struct):
    topic_name: str
    depth: int = 0
    channels: list[_Channel] | None = None


class _Stats(msgspec.Struct):
    topics: list[_Topic] | None = None  # Go writes an empty list as null


class _Info(msgspec.Struct):
    start_time: int


class _Version(msgspec.Struct):
    version: str


class NsqPublisher(Publisher):
    """Publishes to the first of several nsqd that takes all of a call; they take turns in being first.

    Shape: `nsqds` are (host, TCP port, HTTP port), `lookupds` (host, HTTP port), which are only looked at for
    `conditions`. Guarantee: safe from any thread or greenlet; nothing is sent
    twice to one nsqd, but what one nsqd took in part is sent again, whole, to the next. `deadline_s` is for one
    request to one nsqd.
    """

    def __init__(
        self,
        nsqds: Sequence[tuple[str, int, int]],
        lookupds: Sequence[tuple[str, int]] = (),
        *,
        channel: str = CHANNEL,
        deadline_s: float = 2.0,
    ) -> None:
        self._channel = channel
        # A read that blocks ends at the deadline: `total` covers connecting and waiting for the answer.
        timeout = urllib3.Timeout(total=deadline_s)
        self._doors = [_Door(address, timeout) for address in nsqds]
        self._lookupds = [_Door((host, port, port), timeout) for host, port in lookupds]
        self._turn = itertools.count()

    def publish(self, publications: Sequence[Publication]) -> str:
        requests = list(_requests(publications))
        if not requests:
            return self._doors[0].name
        problems = []
        for door in self._in_order():
            try:
                for path, body in requests:
                    door.ask("POST", path, body)
            except BrokerUnavailable as error:
                problems.append(error.message)
            else:
                return door.name
        raise BrokerUnavailable("no nsqd takes messages: " + "; ".join(problems))

    def backlog(self, topics: Sequence[str]) -> Mapping[str, Backlog]:
        """What lies in each topic for our channel; other channels (somebody's `nsq_tail`) do not count."""
        found = dict.fromkeys(topics, Backlog())
        # One topic is asked for by name; many come cheaper as everything at once (200 topics: 3 ms).
        path = "/stats?" + urlencode(_STATS | ({"topic": topics[0]} if len(topics) == 1 else {}))
        for door in self._doors if topics else ():
            for topic in door.read(path, _Stats).topics or ():
                if topic.topic_name in found:
                    found[topic.topic_name] = self._add(found[topic.topic_name], topic)
        return found

    def instances(self) -> Mapping[str, str]:
        """`{"host:tcp port": when that nsqd started}`, a Unix time in whole seconds, of those that answer."""
        started = {}
        for door in self._doors:
            try:
                started[door.name] = str(door.read("/info", _Info).start_time)
            except BrokerUnavailable:
                continue
        return started

    def topics(self) -> Sequence[str]:
        path = "/stats?" + urlencode(_STATS)
        return sorted({topic.topic_name for door in self._doors for topic in door.read(path, _Stats).topics or ()})

    def conditions(self) -> list[Condition]:
        """Of every nsqd and nsqlookupd: version, health, clock. One nsqd of several may be away without harm."""
        found: list[Condition] = []
        for name, doors in (("nsqd", self._doors), ("nsqlookupd", self._lookupds)):
            looked = [door.conditions(f"{name} {door.name}") for door in doors]
            is_one_well = any(one[0].health is not Health.FAIL for one in looked)
            for one in looked:
                found += [msgspec.structs.replace(one[0], health=Health.WARN)] if _is_away(one) and is_one_well else one
        return found

    def ensure(self, topic: str) -> None:
        """Create topic and channel on every nsqd, so that what is published before any worker came is kept for us.

        Raises: BrokerUnavailable unless every nsqd answered; ValueRefused if it is no name for a topic.
        """
        for door in self._doors:
            door.ask("POST", "/topic/create?" + urlencode({"topic": topic}))
            door.ask("POST", "/channel/create?" + urlencode({"topic": topic, "channel": self._channel}))

    def close(self) -> None:
        for door in (*self._doors, *self._lookupds):
            door.close()

    def _in_order(self) -> list[_Door]:
        """Every nsqd once: turn by turn, and those that failed a moment ago last."""
        first = next(self._turn) % len(self._doors)
        return sorted(self._doors[first:] + self._doors[:first], key=lambda door: door.is_shunned)

    def _add(self, sum_: Backlog, topic: _Topic) -> Backlog:
        ours = [channel for channel in topic.channels or () if channel.channel_name == self._channel]
        return Backlog(
            waiting=sum_.waiting + topic.depth + sum(channel.depth for channel in ours),
            in_flight=sum_.in_flight + sum(channel.in_flight_count for channel in ours),
            delayed=sum_.delayed + sum(channel.deferred_count for channel in ours),
        )


class _Door:
    """The HTTP side of one nsqd, with connections kept open."""

    def __init__(self, address: _Address, timeout: urllib3.Timeout) -> None:
        host, tcp_port, http_port = address
        self.name = f"{host}:{tcp_port}"
        self._http_port = http_port
        self._shunned_until = float("-inf")
        # retries=False: a request repeated behind our back would publish twice and outlive the deadline.
        self._pool = urllib3.HTTPConnectionPool(host, http_port, timeout=timeout, maxsize=32, retries=False)

    @property
    def is_shunned(self) -> bool:
        """Whether it failed within the last seconds."""
        return time.monotonic() < self._shunned_until

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One request; the body of its answer.

        Raises: BrokerUnavailable if there is no good answer in time; ValueRefused if nsqd refuses what was sent.
        """
        try:
            response = self._pool.request(method, path, body=body, redirect=False)
            data = response.data
        except (urllib3.exceptions.HTTPError, OSError) as error:
            self._shunned_until = time.monotonic() + _SHUNNED_S
            raise BrokerUnavailable(f"nsqd {self.name} does not answer: {error}") from error
        if response.status == 200:
            self._shunned_until = float("-inf")
            return data
        text = data.decode("utf-8", "replace").strip()
        if response.status in (400, 413):
            raise ValueRefused(f"nsqd {self.name} refuses {path}: {text}")
        self._shunned_until = time.monotonic() + _SHUNNED_S
        raise BrokerUnavailable(f"nsqd {self.name} answers {response.status} to {path}: {text}")

    def read(self, path: str, shape: type[T]) -> T:
        """GET a JSON document. Raises: BrokerUnavailable, also when it is not of this shape."""
        try:
            return codec.decode(self.ask("GET", path), shape, where=path)
        except CorruptEntry as error:
            raise BrokerUnavailable(f"nsqd {self.name} answers something strange: {error}") from error

    def conditions(self, subject: str) -> list[Condition]:
        """How this server is; one condition alone if it does not answer."""
        asked_at = time.time()
        try:
            response = self._pool.request("GET", "/ping", redirect=False)
            text = response.data.decode("utf-8", "replace").strip()
            ahead_s = condition.ahead(response.headers.get("Date"), asked_at, time.time())
            info = self.read("/info", _Version)
        except (urllib3.exceptions.HTTPError, OSError, BrokerUnavailable) as error:
            advice = f"see whether it runs and listens at {self.name}, and for HTTP at port {self._http_port}"
            return [broken(subject, f"does not answer: {error}", advice)]
        found = [version(subject, info.version)]
        if response.status != 200:
            found.append(broken(f"{subject} health", text, "see its log; its disk may be full or broken"))
        if ahead_s is not None:
            found.append(condition.clock(f"{subject} clock", ahead_s))
        return found

    def close(self) -> None:
        self._pool.close()


def version(subject: str, text: str) -> Condition:
    """Whether a version of nsqd or nsqlookupd is one to work with."""
    numbers = condition.version(text)
    if numbers is None or numbers < _OLDEST:
        least = ".".join(map(str, _OLDEST))
        return broken(subject, f"answers, version {text}, which is too old", f"upgrade it to {least} or newer")
    return fine(subject, f"answers, version {text}")


def _is_away(found: Sequence[Condition]) -> bool:
    return len(found) == 1 and found[0].health is Health.FAIL


def _requests(publications: Sequence[Publication]) -> Iterator[tuple[str, bytes]]:
    """The fewest (path, body) that publish all: one `/mpub` per topic, and one `/pub` for each delayed message.

    `/mpub` knows no delay. Its body, all numbers four bytes, big endian:

        | count | size | body ... | size | body ... | ...

    Raises: ValueRefused, before anything was sent.
    """
    together: defaultdict[str, list[bytes]] = defaultdict(list)
    delayed = []
    for publication in publications:
        size_bytes = len(publication.body)
        if not 0 < size_bytes <= MESSAGE_MAX_BYTES:
            raise ValueRefused(
                f"expected a message of 1 to {MESSAGE_MAX_BYTES} bytes for {publication.topic}, got: {size_bytes}"
            )
        if delay_ms := round(min(publication.delay_s, DELAY_MAX_S) * 1000):
            query = urlencode({"topic": publication.topic, "defer": delay_ms})
            delayed.append((f"/pub?{query}", publication.body))
        else:
            together[publication.topic].append(publication.body)
    for topic, bodies in together.items():
        path = "/mpub?" + urlencode({"topic": topic, "binary": "true"})
        for part in _parts(bodies):
            framed = [piece for body in part for piece in (struct.pack(">i", len(body)), body)]
            yield path, struct.pack(">i", len(part)) + b"".join(framed)
    yield from delayed


def _parts(bodies: list[bytes]) -> Iterator[list[bytes]]:
    """Runs of bodies that each fit one `/mpub`."""
    part: list[bytes] = []
    size_bytes = 4
    for body in bodies:
        framed_bytes = 4 + len(body)
        if part and size_bytes + framed_bytes > _BODY_MAX_BYTES:
            yield part
            part, size_bytes = [], 4
        part.append(body)
        size_bytes += framed_bytes
    yield part
