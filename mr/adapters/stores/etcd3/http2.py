"""HTTP/2 without I/O, for one call at a time: bytes of the server in, bytes for the server and an answer out.

    frame = length (24 bits) | kind (8) | flags (8) | stream (32) | payload

A call is HEADERS and DATA on a stream of its own, the answer HEADERS, DATA, and HEADERS again: the trailers, where
gRPC says how it went. An answer without a body is trailers only.

The hard part is windows. Each side may send only as much as the other has made room for, on the whole connection
and on the stream: a big call waits here until the server gives room, and room is given back while a big answer comes
in. The other one is what is known when it fails: a stream that the server refused, or that is behind the last one it
names when it goes away, was never looked at (`Unprocessed`); of every other loss nothing is known (`Broken`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec

from mr.adapters.stores.etcd3 import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_BYTES = 16_384
"""The longest payload that each side takes without being asked; neither side of ours goes beyond."""
WINDOW_BYTES = 1 << 20
"""Room for an answer. With HTTP's 65,535 etcd would wait for us after every 64 KiB of a page."""
FIELDS_BYTES = 65_536
LAST_STREAM = (1 << 31) - 1

_FIRST_WINDOW = 65_535
_FRAME = struct.Struct(">HBBBI")
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    0, 1, 3, 4, 5, 6, 7, 8, 9,
)  # fmt: skip
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW = 1, 2, 4
_REFUSED_STREAM = 7


class Broken(Exception):
    """The connection or the call is lost; what became of the call is not known."""


class Unprocessed(Broken):
    """The server says that it did not look at the call."""


class Answer(msgspec.Struct, frozen=True):
    """Fields of an answer, its trailers among them, and its body."""

    fields: Mapping[bytes, bytes]
    body: bytes


class Exchange:
    """One connection, from its first byte.

    Send what `take` gives, feed what comes. Once it is `ready`, `ask`; `answer` is set when it is complete.
    After an error nothing more can be done with it.
    """

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self._settled = self._acknowledged = False
        self._gone = False
        self._data = b""
        settings = struct.pack(">HIHIHI", _TABLE_SIZE, 0, _ENABLE_PUSH, 0, _INITIAL_WINDOW, WINDOW_BYTES)
        self._out = [PREFACE, _frame(_SETTINGS, 0, 0, settings)]
        self._give_room(0, WINDOW_BYTES - _FIRST_WINDOW)
        self._pongs: list[bytes] = []
        # Room that the server gave: on the connection, on a new stream, on this one.
        self._room = self._room_at_first = self._room_here = _FIRST_WINDOW
        # What was read and not yet given back as room: on the connection, on this stream.
        self._read = self._read_here = 0
        self._stream = -1
        self._unsent = memoryview(b"")
        self._fields: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._block: bytes | None = None
        self._block_ends = False

    @property
    def ready(self) -> bool:
        """Whether the server has said what it takes, and has taken what we said: no table of fields."""
        return self._settled and self._acknowledged

    @property
    def reusable(self) -> bool:
        """Whether another call may be made after the answer. Not so when the server goes away."""
        return not self._gone and not self._unsent and self._stream + 2 <= LAST_STREAM

    def ask(self, fields: bytes, body: bytes) -> None:
        """Begin a call with an encoded block of fields and a body that is not empty.

        Raises: Unprocessed if the server is going away.
        """
        if not self.reusable:
            raise Unprocessed("the server is going away")
        self._stream += 2
        self.answer, self._fields, self._body = None, {}, []
        self._room_here, self._read_here = self._room_at_first, 0
        self._unsent = memoryview(body)
        self._out.append(_frame(_HEADERS, _END_HEADERS, self._stream, fields))
        self._fill()

    def take(self) -> bytes:
        """The bytes that are due to the server, once.

        etcd sends a ping with the first byte of nearly every call, to learn how far away we are. An answer of its
        own would cost both sides as much as a tenth of a small call, so it goes out behind whatever is sent next.
        """
        if not self._out:
            return b""
        data = b"".join(self._out + self._pongs)
        self._out.clear()
        self._pongs.clear()
        return data

    def feed(self, data: bytes) -> None:
        """Take in what the server sent, cut anywhere.

        Raises: Unprocessed, Broken.
        """
        if self._data:
            data = self._data + data
        at, end = 0, len(data)
        while end - at >= 9:
            high, low, kind, flags, stream = _FRAME.unpack_from(data, at)
            start = at + 9
            size = high << 8 | low
            if size > FRAME_BYTES or not (self._settled or kind == _SETTINGS):
                raise Broken(f"this is no HTTP/2: {data[at : at + 40]!r}")
            if end - start < size:
                break
            at = start + size
            self._take_in(kind, flags, stream & LAST_STREAM, data[start:at])
        self._data = data[at:]

    def _take_in(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if self._block is not None and (kind != _CONTINUATION or stream != self._stream):
            raise Broken("a block of fields is interrupted")
        if kind == _DATA:
            self._take_data(flags, stream, payload)
        elif kind == _HEADERS and stream == self._stream and self.answer is None:
            self._block, self._block_ends = b"", bool(flags & _END_STREAM)
            payload = _unpadded(flags, payload)
            self._take_fields(flags, payload[5:] if flags & _PRIORITY else payload)
        elif kind == _CONTINUATION and self._block is not None:
            self._take_fields(flags, payload)
        elif kind == _WINDOW_UPDATE:
            self._take_room(stream, _integer(payload) & LAST_STREAM)
        elif kind == _PING:
            if not flags & _ACK:
                self._pongs.append(_frame(_PING, _ACK, 0, payload))
        elif kind == _SETTINGS:
            self._take_settings(flags, payload)
        elif kind == _RST_STREAM:
            if stream == self._stream and self.answer is None:
                code = _integer(payload)
                raise (Unprocessed if code == _REFUSED_STREAM else Broken)(f"the server ended the call, code {code}")
        elif kind == _GOAWAY:
            self._gone = True
            if self.answer is None and _integer(payload[:4]) & LAST_STREAM < self._stream:
                raise Unprocessed(f"the server went away: {payload[8:100].decode(errors='replace')}")
        elif kind in (_HEADERS, _PUSH_PROMISE, _CONTINUATION):
            raise Broken(f"the server sent fields on stream {stream}, nobody asked there")

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._read += len(payload)
        if self._read >= WINDOW_BYTES // 2:
            self._read = self._give_room(0, self._read)
        if stream != self._stream or self.answer is not None:
            raise Broken(f"the server sent data on stream {stream}, nobody asked there")
        self._read_here += len(payload)
        self._body.append(_unpadded(flags, payload))
        if flags & _END_STREAM:
            self._finish()
        elif self._read_here >= WINDOW_BYTES // 2:
            self._read_here = self._give_room(stream, self._read_here)

    def _take_fields(self, flags: int, payload: bytes) -> None:
        assert self._block is not None
        self._block += payload
        if len(self._block) > FIELDS_BYTES:
            raise Broken(f"an answer has more than {FIELDS_BYTES} bytes of fields")
        if not flags & _END_HEADERS:
            return
        try:
            self._fields.update(hpack.decode(self._block))
        except ValueError as error:
            raise Broken(f"the fields of an answer make no sense: {error}") from error
        self._block = None
        if self._block_ends:
            self._finish()

    def _take_settings(self, flags: int, payload: bytes) -> None:
        if flags & _ACK:
            self._acknowledged = True
            return
        self._settled = True
        for at in range(0, len(payload) - 5, 6):
            if _integer(payload[at : at + 2]) == _INITIAL_WINDOW:
                room = _integer(payload[at + 2 : at + 6])
                self._room_here += room - self._room_at_first
                self._room_at_first = room
        self._out.append(_frame(_SETTINGS, _ACK, 0, b""))
        self._fill()

    def _take_room(self, stream: int, size: int) -> None:
        if stream == 0:
            self._room += size
        elif stream == self._stream:
            self._room_here += size
        self._fill()

    def _give_room(self, stream: int, size: int) -> int:
        self._out.append(_frame(_WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big")))
        return 0

    def _fill(self) -> None:
        """Send as much of the body as there is room for."""
        while self._unsent and self.answer is None:
            size = min(len(self._unsent), FRAME_BYTES, self._room, self._room_here)
            if size <= 0:
                return
            part, self._unsent = self._unsent[:size], self._unsent[size:]
            self._out.append(_frame(_DATA, 0 if self._unsent else _END_STREAM, self._stream, part))
            self._room -= size
            self._room_here -= size

    def _finish(self) -> None:
        # An answer may come before the whole call was sent (it is too big). Such a connection is not used again.
        self.answer = Answer(self._fields, b"".join(self._body))


def _frame(kind: int, flags: int, stream: int, payload: bytes | memoryview) -> bytes:
    return b"".join((_FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream), payload))


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Broken("a frame is nothing but padding")
    return payload[1 : len(payload) - payload[0]]
