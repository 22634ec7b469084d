"""From the bytes of an executor's socket to frames, in the loop of its supervisor."""

from __future__ import annotations

import asyncio
from typing import Protocol

from mr.errors import CorruptEntry
from mr.worker import frames

_BUFFER_BYTES = 256 * 1024


class Owner(Protocol):
    """Whoever talks to the executor."""

    def connected(self, transport: asyncio.Transport) -> None:
        """The socket is open."""

    def received(self, header: memoryview, body: bytes) -> None:
        """One frame. Raises: CorruptEntry."""

    def broken(self, problem: str) -> None:
        """What came is no frame."""

    def writing_paused(self, paused: bool) -> None:
        """The executor is behind with reading, or has caught up."""

    def socket_ended(self) -> None:
        """No more frames will come."""


class FrameStream(asyncio.BufferedProtocol):
    """Cuts the byte stream into frames in one growing buffer: `[start, end)` of it is not yet taken."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._buffer = bytearray(_BUFFER_BYTES)
        self._start = 0
        self._end = 0
        self._needed = frames.PREFIX.size

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._owner.connected(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._start == self._end:
            self._start = self._end = 0
        room = len(self._buffer) - self._end
        if self._start and (room < _BUFFER_BYTES // 4 or self._start + self._needed > len(self._buffer)):
            held = self._buffer[self._start : self._end]
            self._buffer[: len(held)] = held
            self._start, self._end = 0, len(held)
        if self._start + self._needed > len(self._buffer):
            # A new one: the old one cannot grow while the transport has a view of it.
            larger = bytearray(self._start + self._needed + _BUFFER_BYTES)
            larger[: self._end] = self._buffer[: self._end]
            self._buffer = larger
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        view = memoryview(self._buffer)
        prefix = frames.PREFIX
        try:
            while self._end - self._start >= prefix.size:
                header_size, body_size = prefix.unpack_from(view, self._start)
                if header_size > frames.HEADER_BYTES_MAX or body_size > frames.BODY_BYTES_MAX:
                    raise CorruptEntry(f"a frame of {header_size} and {body_size} bytes")
                self._needed = prefix.size + header_size + body_size
                if self._end - self._start < self._needed:
                    break
                header = self._start + prefix.size
                body = header + header_size
                self._start = body + body_size
                self._owner.received(view[header:body], bytes(view[body : self._start]))
                self._needed = prefix.size
        except CorruptEntry as error:
            self._start = self._end = 0
            self._needed = prefix.size
            self._owner.broken(str(error))

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._owner.writing_paused(True)

    def resume_writing(self) -> None:
        self._owner.writing_paused(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.socket_ended()
