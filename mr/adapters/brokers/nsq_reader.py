"""The wire to nsqd: one connection per topic and nsqd, kept up, and the deliveries that came over it.

pynsq's `Reader` is not used. Its close() does not stop, its reconnecting takes 15 s, its RDY logic stalls when the
limit changes while messages are held, and it starts timers that nothing ends. What is used is the layer below,
`nsq.AsyncConn`: connecting, negotiating, framing of commands. Reconnecting, RDY and answers are here and in
`nsq_consumer`.

The hard part is answering late. nsqd gives a message that was redelivered to the same connection the same id, so
the answer to the first delivery would count for the second. Therefore a connection knows, by id, the one delivery
that may still answer (`Link.live`); a delivery whose time ran out, that was superseded, or whose connection is
gone is not `live` and its answers go nowhere.

A message frame, numbers big endian:

    | size 4 | frame type 4 | timestamp ns 8 | attempts 2 | id 16, hex | body ... |
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import nsq
from nsq import event, protocol
from tornado.iostream import StreamClosedError

from mr.ports.broker import Delivery

logger = logging.getLogger(__name__)

_RECONNECT_MAX_S: Final = 1.0
_CHUNK_BYTES: Final = 256 * 1024
_SIZE = struct.Struct(">i")
_MESSAGE = struct.Struct(">qH")  # pynsq reads attempts as signed, which turns negative at 32,768
_MESSAGE_FRAME = struct.pack(">i", protocol.FRAME_TYPE_MESSAGE)
_ID_END: Final = 4 + _MESSAGE.size + 16


class Receiver(Protocol):
    """Who is told what happens on the wire."""

    def on_ready(self, link: Link) -> None:
        """The connection is subscribed; it gets nothing before `rdy`."""

    def on_message(self, delivery: NsqDelivery) -> None:
        """A message arrived, and is in `live`."""

    def on_closed(self, link: Link) -> None:
        """The connection is gone, and so are its deliveries."""

    def on_answer(self, delivery: NsqDelivery) -> None:
        """The delivery was answered for the first time; the answer is not sent yet."""


class NsqDelivery(Delivery):
    """One delivered message; see the module about the answers that are not sent."""

    def __init__(self, link: Link, message_id: bytes, body: bytes, attempts: int, now: float) -> None:
        self.topic = link.topic
        self.body = body
        self.attempts = attempts
        self.message_id = message_id
        self.link = link
        self.arrived_at = now
        """Monotonic, as `expires_at`."""
        self.expires_at = now + link.msg_timeout_s
        self._is_answered = False

    @property
    def is_live(self) -> bool:
        """Whether nsqd still waits for the answer to this very delivery, as far as we can know."""
        return self.link.live.get(self.message_id) is self and time.monotonic() < self.expires_at

    def finish(self) -> None:
        self._answer(protocol.finish(self.message_id))

    def requeue(self, delay_s: float = 0.0) -> None:
        delay_ms = round(min(max(delay_s, 0.0), self.link.delay_max_s) * 1000)
        self._answer(protocol.requeue(self.message_id, delay_ms))

    def touch(self) -> None:
        if not self._is_answered and self.is_live:
            self.expires_at = time.monotonic() + self.link.msg_timeout_s
            self.link.command(protocol.touch(self.message_id))

    def _answer(self, command: bytes) -> None:
        if self._is_answered:
            return
        self._is_answered = True
        is_live = self.is_live
        if self.link.live.get(self.message_id) is self:
            del self.link.live[self.message_id]
        self.link.receiver.on_answer(self)
        if is_live:
            self.link.command(command)


class Link(nsq.AsyncConn):  # type: ignore[misc]  # pynsq has no types
    """One connection to one nsqd for one topic. `live` has the deliveries that may still answer, by message id."""

    def __init__(
        self,
        address: tuple[str, int],
        topic: str,
        channel: str,
        receiver: Receiver,
        *,
        msg_timeout_s: float,
        heartbeat_s: int,
        delay_max_s: float,
    ) -> None:
        super().__init__(*address, heartbeat_interval=heartbeat_s, msg_timeout=msg_timeout_s)
        self.topic = topic
        self.channel = channel
        self.receiver = receiver
        self.msg_timeout_s = msg_timeout_s
        self.delay_max_s = delay_max_s
        self.live: dict[bytes, NsqDelivery] = {}
        self.rdy: int = 0
        self.is_ready = False
        self.is_retired = False
        """No new messages wanted; it closes when `live` is empty."""
        self.is_shut = False
        """Offered no room of its own accord (`NsqConsumer`)."""
        self.settled = asyncio.Event()
        """Subscribed, or refused."""
        self.ended = asyncio.Event()
        """nsqd confirmed CLS, and with it every answer before it; or the connection is gone."""
        self._silence_max_s = 2.0 * heartbeat_s
        # Monotonic, unlike pynsq's own time stamps: a clock set forward must not cut connections.
        self._heard_at = time.monotonic()
        self._reading: asyncio.Task[None] | None = None
        self.on(event.IDENTIFY, self._on_identify)
        self.on(event.READY, self._on_negotiated)
        self.on(event.RESPONSE, self._on_ok)
        self.on(event.ERROR, self._on_error)
        self.on(event.CLOSE, self._on_close)

    @property
    def is_silent(self) -> bool:
        """Whether nothing came for two heartbeats: nsqd, or the way to it, hangs."""
        return time.monotonic() - self._heard_at > self._silence_max_s

    def command(self, command: bytes) -> None:
        """Send it, or nothing if the connection is gone: then what it is about comes back anyway."""
        if self.connected():
            try:
                self.send(command)
            except (StreamClosedError, OSError):
                self.close()

    def set_rdy(self, count: int) -> None:
        """How many messages nsqd lets be in flight on this connection; sent only when it changes."""
        count = min(count, self.max_rdy_count)
        if self.is_ready and count != self.rdy:
            self.rdy = count
            self.command(protocol.ready(count))

    def end(self) -> None:
        """Ask nsqd to send nothing more; `ended` is set when it has read this and all that was sent before."""
        if self.is_ready:
            self.command(b"CLS\n")
        else:
            self.close()

    async def shut_down(self) -> None:
        """Close, and wait until nothing of it runs any more."""
        self.close()
        if self._reading:
            await asyncio.wait([self._reading])

    def expire(self, now: float) -> None:
        """Forget deliveries whose time ran out: nsqd counts them no longer."""
        for delivery in [delivery for delivery in self.live.values() if delivery.expires_at <= now]:
            del self.live[delivery.message_id]

    def _on_identify(self, data: dict[str, Any], **_: Any) -> None:
        # Otherwise nsqd keeps every message back for up to 250 ms. pynsq refuses the value as an argument.
        data["output_buffer_size"] = -1

    def _on_negotiated(self, **_: Any) -> None:
        self.command(protocol.subscribe(self.topic, self.channel))

    def _on_ok(self, data: bytes, **_: Any) -> None:
        if data == b"OK":
            self.is_ready = True
            self.settled.set()
            self.receiver.on_ready(self)
        elif data == b"CLOSE_WAIT":
            self.ended.set()

    def _on_error(self, error: Exception, **_: Any) -> None:
        # E_FIN_FAILED and the like: the message timed out meanwhile and is delivered again. Worse errors make
        # nsqd close the connection, which is reported as that.
        logger.debug("nsqd %s, topic %s: %s", self.id, self.topic, error)

    def _on_close(self, **_: Any) -> None:
        self.is_ready = False
        self.live.clear()
        self.settled.set()
        self.ended.set()
        self.receiver.on_closed(self)

    def _connect_callback(self, future: Any) -> None:
        # A refused connection is reported by the close event; the parent would log a traceback each time.
        if future.exception() is None:
            super()._connect_callback(future)

    def _start_read(self) -> None:
        # The parent waits twice per message; reading what there is and cutting it here costs a fraction.
        self._reading = asyncio.ensure_future(self._read_frames(self.stream))

    async def _read_frames(self, stream: Any) -> None:
        rest = b""
        try:
            while True:
                chunk = rest + await stream.read_bytes(_CHUNK_BYTES, partial=True)
                self._heard_at = now = time.monotonic()
                start = 0
                while len(chunk) - start >= 4:
                    (size,) = _SIZE.unpack_from(chunk, start)
                    if len(chunk) - start - 4 < size:
                        break
                    start += 4
                    self._on_frame(chunk[start : start + size], now)
                    start += size
                rest = chunk[start:]
        except StreamClosedError:
            pass
        finally:
            # Also when a callback failed: a connection that nobody reads would hold its messages for ever.
            stream.close()

    def _on_frame(self, frame: bytes, now: float) -> None:
        if not frame.startswith(_MESSAGE_FRAME):
            self._on_data(frame)
            return
        _, attempts = _MESSAGE.unpack_from(frame, 4)
        message_id = frame[_ID_END - 16 : _ID_END]
        delivery = NsqDelivery(self, message_id, frame[_ID_END:], attempts, now)
        self.live[message_id] = delivery
        self.receiver.on_message(delivery)


class TopicReader:
    """Keeps a Link up to each address for one topic, trying again soon, with one timer per address."""

    def __init__(self, make_link: Callable[[tuple[str, int]], Link], reconnect_s: float) -> None:
        self._make_link = make_link
        self._reconnect_s = reconnect_s
        self._links: dict[tuple[str, int], Link] = {}
        self._delays_s: dict[tuple[str, int], float] = {}
        self._timers: dict[tuple[str, int], asyncio.TimerHandle] = {}
        self._wanted: set[tuple[str, int]] = set()

    @property
    def links(self) -> Iterable[Link]:
        """Those that exist, ready or not."""
        return self._links.values()

    def follow(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Connect to these. One that is no longer among them stays until it breaks."""
        self._wanted = set(addresses)
        for address in self._wanted:
            if address not in self._links and address not in self._timers:
                self._connect(address)

    def on_ready(self, link: Link) -> None:
        """From now on a break is followed by a quick attempt again."""
        self._delays_s.pop((link.host, link.port), None)

    def on_closed(self, link: Link) -> None:
        """Try again after a moment that doubles up to a second."""
        address = (link.host, link.port)
        if self._links.get(address) is not link:
            return
        del self._links[address]
        if address in self._wanted:
            delay_s = self._delays_s.get(address, self._reconnect_s)
            self._delays_s[address] = min(2 * delay_s, _RECONNECT_MAX_S)
            self._timers[address] = asyncio.get_running_loop().call_later(delay_s, self._connect, address)

    def stop(self) -> list[Link]:
        """Connect no more; the links that remain are the caller's."""
        self._wanted = set()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        links = list(self._links.values())
        self._links.clear()
        return links

    def _connect(self, address: tuple[str, int]) -> None:
        self._timers.pop(address, None)
        link = self._links[address] = self._make_link(address)
        link.connect()
