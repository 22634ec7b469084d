"""HTTP as etcd's JSON gateway speaks it: one request, one answer, or an answer that goes on.

urllib3 keeps the connections; the bytes on them are ours. With its own writing and reading a commit costs 0.25 to
0.33 ms of CPU, nearly as much time as etcd needs for it; with one `sendall` and a parser for the one kind of answer
that Go's server gives 0.13 ms, all included.

The hard part is time. A deadline holds for a whole answer, not for each piece of it. And a watch must be able to
stop waiting in the middle of a line and go on later, which the reader of `http.client` refuses after its first
timeout. Answers with errors are chunked and have trailers.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any

import msgspec
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.response import HTTPResponse

CONNECT_TIMEOUT_S = 1.0

# A peer that vanished without a word (power, cable) is noticed after 11 s, also by a watch that only listens.
SOCKET_OPTIONS: list[tuple[int, int, int | bytes]] = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


class Chunks:
    """Takes HTTP's chunked coding off a body that comes in pieces; trailers are dropped."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """What is complete of the body after these bytes."""
        self._raw += data
        found: list[bytes] = []
        while not self.ended:
            line = self._raw.find(b"\r\n")
            if line < 0:
                break
            size = int(self._raw[:line].partition(b";")[0], 16)
            if size == 0:
                # The last chunk has no data; its line, trailers if any, and an empty line.
                self.ended = self._raw.find(b"\r\n\r\n", line) >= 0
                break
            start = line + 2
            if len(self._raw) < start + size + 2:
                break
            found.append(bytes(self._raw[start : start + size]))
            del self._raw[: start + size + 2]
        return b"".join(found)


class Head(msgspec.Struct, frozen=True):
    """First lines of an answer. `length` is None when the body is chunked, or lasts until the end."""

    status: int
    length: int | None
    chunked: bool
    closes: bool

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Raises: ValueError if it is no head of HTTP."""
        first, *lines = data.lower().split(b"\r\n")
        fields = {name: value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        chunked = fields.get(b"transfer-encoding") == b"chunked"
        length = fields.get(b"content-length")
        return cls(
            status=int(first.partition(b" ")[2][:3]),
            length=None if chunked or length is None else int(length),
            chunked=chunked,
            closes=fields.get(b"connection") == b"close" or (length is None and not chunked),
        )


class _OneAnswer(HTTPConnection):
    """A connection that writes a request with one call and reads one answer, by a deadline for the whole."""

    def request(  # type: ignore[override]
        self,
        method: str,
        url: str,
        body: Any = b"",
        headers: Mapping[str, str] | None = None,
        **_options: Any,
    ) -> None:
        if self.sock is None:
            # A dead endpoint shall not cost the whole time; the next one may be well.
            patience, self.timeout = self.timeout, min(self.timeout or CONNECT_TIMEOUT_S, CONNECT_TIMEOUT_S)
            self.connect()
            self.timeout = patience
        self.sock.settimeout(self.timeout)
        host = f"[{self.host}]" if ":" in self.host else self.host
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items()) if headers else ""
        self.sock.sendall(
            f"{method} {url} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body
        )

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        deadline = time.monotonic() + (self.timeout or 0)
        try:
            data = b""
            while (end := data.find(b"\r\n\r\n")) < 0:
                data += _receive(self.sock, deadline)
            head, rest = Head.parse(data[:end]), data[end + 4 :]
            parts = [rest]
            if head.chunked:
                chunks = Chunks()
                parts = [chunks.feed(rest)]
                while not chunks.ended:
                    parts.append(chunks.feed(_receive(self.sock, deadline)))
            elif head.length is not None:
                missing = head.length - len(rest)
                while missing > 0:
                    parts.append(_receive(self.sock, deadline))
                    missing -= len(parts[-1])
                if missing < 0:
                    raise ConnectionError("an answer is longer than it says")
            else:
                raise ConnectionError("an answer has no length")
        except ValueError as error:
            raise ConnectionError(f"an answer is not HTTP: {error}") from error
        if head.closes:
            self.close()
        return HTTPResponse(body=b"".join(parts), status=head.status)


class GatewayConnection(_OneAnswer):
    """In clear."""


class SecureConnection(_OneAnswer, HTTPSConnection):
    """By TLS."""


class GatewayPool(urllib3.HTTPConnectionPool):
    """urllib3's pool, of connections that write and read as the gateway needs it."""

    ConnectionCls = GatewayConnection


class SecurePool(urllib3.HTTPSConnectionPool):
    """The same by TLS."""

    ConnectionCls = SecureConnection


def pool(host: str, port: int, size: int, context: ssl.SSLContext | None) -> urllib3.HTTPConnectionPool:
    """Connections to one endpoint."""
    if context is None:
        return GatewayPool(host, port, maxsize=size, socket_options=SOCKET_OPTIONS)
    return SecurePool(host, port, maxsize=size, socket_options=SOCKET_OPTIONS, ssl_context=context)


def connect(host: str, port: int, timeout_s: float, context: ssl.SSLContext | None) -> HTTPConnection:
    """One connection by itself; it opens with its first request."""
    if context is None:
        return GatewayConnection(host, port, timeout=timeout_s, socket_options=SOCKET_OPTIONS)
    return SecureConnection(host, port, timeout=timeout_s, socket_options=SOCKET_OPTIONS, ssl_context=context)


class Stream:
    """An answer that goes on: lines of JSON, one for each message."""

    def __init__(self, connection: HTTPConnection, endpoint: str) -> None:
        self.endpoint = endpoint
        self._connection = connection
        self._sock: socket.socket = connection.sock
        self._chunks: Chunks | None = None
        self._raw = b""
        self._text = b""

    def lines(self, timeout_s: float) -> list[bytes]:
        """The complete lines that have come; none if none came in time.

        Raises: ConnectionError, OSError if the stream is over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                data = _receive(self._sock, deadline)
                if self._chunks is None:
                    self._raw += data
                    end = self._raw.find(b"\r\n\r\n")
                    if end < 0:
                        continue
                    head, data = Head.parse(self._raw[:end]), self._raw[end + 4 :]
                    if head.status != 200 or not head.chunked:
                        raise ConnectionError(f"{self.endpoint} answered {head.status}")
                    self._chunks = Chunks()
                self._text += self._chunks.feed(data)
            except TimeoutError:
                return []
            except ValueError as error:
                raise ConnectionError(f"{self.endpoint} does not speak HTTP: {error}") from error
            *lines, self._text = self._text.split(b"\n")
            if lines:
                return [line for line in lines if line]
            if self._chunks.ended:
                raise ConnectionError(f"{self.endpoint} ended the stream")
            if time.monotonic() >= deadline:
                return []

    def close(self) -> None:
        """End it, also under a thread that is reading."""
        with contextlib.suppress(OSError):  # The other side may have been quicker.
            self._sock.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def _receive(sock: socket.socket, deadline: float) -> bytes:
    """Some bytes; TimeoutError if none came until the deadline (monotonic), ConnectionError at the end."""
    sock.settimeout(max(0.001, deadline - time.monotonic()))
    # Memory for more than 128 KiB would be mapped anew for each call: 50 µs of CPU.
    data = sock.recv(65_536)
    if not data:
        raise ConnectionError("the connection ended within an answer")
    return data
