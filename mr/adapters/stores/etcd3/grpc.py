"""Calls of gRPC on blocking sockets: a pool of connections, each with one call at a time.

    body of a call or an answer = 0 (not compressed) | length (32 bits) | message

A connection is opened by the one who finds none free, and counts as open when the server has spoken HTTP/2 and
has taken our settings. Before that nothing is asked, so whoever turns out to speak something else (`NoGrpc`) has
been asked nothing.

The hard part is a connection that died while nobody used it. Before each call its socket is looked at, without
waiting: what the server said meanwhile is taken in, and one that ended is thrown away while nothing is lost.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import time
from urllib.parse import unquote

from mr.adapters.stores.etcd3 import hpack
from mr.adapters.stores.etcd3.http import CONNECT_TIMEOUT_S, SOCKET_OPTIONS
from mr.adapters.stores.etcd3.http2 import Answer, Broken, Exchange, Unprocessed
from mr.adapters.stores.etcd3.refusals import UNIMPLEMENTED, NoGrpc, Refused, Trouble, Unreached

CONNECTIONS_KEPT = 64
# Statuses of HTTP by which a proxy says that it has nothing of the kind, and passed nothing on.
_NOT_HERE = (b"404", b"405", b"415", b"501")


class GrpcPool:
    """Connections to one endpoint. Safe to use from several threads."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        # Appending and popping are atomic. The one used last is used first: it is the most likely to live.
        self._free: list[GrpcConnection] = []
        self._closed = False

    def call(self, path: str, message: bytes, token: str, timeout_s: float) -> bytes:
        """Ask once, and return the message of the answer.

        Raises: Unreached, NoGrpc if nothing was asked; Refused; Trouble.
        """
        fields = hpack.encode_call(path, self._authority, token)
        body = b"\0%b%b" % (len(message).to_bytes(4, "big"), message)
        while True:
            connection = self._find()
            is_new = connection is None
            if connection is None:
                connection = GrpcConnection(self._address, timeout_s)
            answer = None
            try:
                answer = connection.call(fields, body, timeout_s)
            except Unprocessed as error:
                if is_new:
                    raise Unreached(str(error)) from error
                continue
            except (Broken, OSError) as error:
                raise Trouble(str(error) or type(error).__name__) from error
            finally:
                if answer is None or not connection.reusable or self._closed or len(self._free) >= CONNECTIONS_KEPT:
                    connection.close()
                else:
                    self._free.append(connection)
            return _message(answer)

    def close(self) -> None:
        """Close what is free; what is in use is closed after its call."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._free.pop().close()

    def _find(self) -> GrpcConnection | None:
        with contextlib.suppress(IndexError):
            while True:
                connection = self._free.pop()
                if connection.lives():
                    return connection
                connection.close()
        return None


class GrpcConnection:
    """One connection, for one call at a time."""

    def __init__(self, address: tuple[str, int], timeout_s: float) -> None:
        """Connect and agree on HTTP/2. Raises: Unreached; NoGrpc."""
        patience_s = min(timeout_s, CONNECT_TIMEOUT_S)
        try:
            self._sock = socket.create_connection(address, patience_s)
        except OSError as error:
            raise Unreached(f"no connection to {address[0]}:{address[1]}: {error}") from error
        self._exchange = Exchange()
        self._patience_s = 0.0
        try:
            for option in SOCKET_OPTIONS:
                self._sock.setsockopt(*option)
            # The kernel keeps the time: Python's own timeouts would cost two more calls of it for each piece.
            self._sock.settimeout(None)
            deadline = time.monotonic() + patience_s
            self._wait_at_most(patience_s)
            self._sock.sendall(self._exchange.take())
            while not self._exchange.ready:
                self._receive(deadline)
        except (Broken, OSError) as error:
            self.close()
            raise NoGrpc(str(error) or type(error).__name__) from error

    @property
    def reusable(self) -> bool:
        return self._exchange.reusable

    def lives(self) -> bool:
        """Take in what came while nobody asked; whether a call can still be made."""
        try:
            while data := self._sock.recv(65_536, socket.MSG_DONTWAIT):
                self._exchange.feed(data)
        except BlockingIOError:
            return self._exchange.reusable
        except (Broken, OSError):
            return False
        return False

    def call(self, fields: bytes, body: bytes, timeout_s: float) -> Answer:
        """Raises: Unprocessed, Broken, OSError."""
        deadline = time.monotonic() + timeout_s
        exchange = self._exchange
        exchange.ask(fields, body)
        self._wait_at_most(timeout_s)
        self._sock.sendall(exchange.take())
        while exchange.answer is None:
            self._receive(deadline)
        return exchange.answer

    def close(self) -> None:
        self._sock.close()

    def _receive(self, deadline: float) -> None:
        # Memory for more than 128 KiB would be mapped anew for each call: 50 µs of CPU.
        try:
            data = self._sock.recv(65_536)
        except BlockingIOError as error:
            raise TimeoutError("there was no answer in time") from error
        if not data:
            raise ConnectionError("the connection ended within an answer")
        exchange = self._exchange
        exchange.feed(data)
        if exchange.ready and exchange.answer is not None:
            return  # What is due to the server now, an acknowledgement perhaps, goes out with the next call.
        if due := exchange.take():
            self._sock.sendall(due)
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("there was no whole answer in time")
        self._wait_at_most(left_s)

    def _wait_at_most(self, seconds: float) -> None:
        """For each piece, sent or received."""
        # Whole milliseconds above: 0 would be for ever.
        if not 0.95 * self._patience_s <= seconds <= self._patience_s:
            self._patience_s = seconds
            span = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000) + 1)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)


def _message(answer: Answer) -> bytes:
    """The message of an answer. Raises: Refused; NoGrpc; Trouble if it is no answer of gRPC."""
    fields, body = answer.fields, answer.body
    code = fields.get(b"grpc-status")
    if code == b"0":
        if len(body) < 5 or body[0] or len(body) - 5 != int.from_bytes(body[1:5], "big"):
            raise Trouble("an answer is no single message of gRPC")
        return body[5:]
    if code is not None and re.fullmatch(rb"[0-9]{1,3}", code):
        text = unquote(fields.get(b"grpc-message", b"").decode(errors="replace"))
        if int(code) == UNIMPLEMENTED:
            raise NoGrpc(f"it does not know this call: {text}")
        raise Refused(int(code), text)
    status = fields.get(b":status", b"none")
    if status in _NOT_HERE:
        raise NoGrpc(f"it answered HTTP {status.decode()}")
    raise Trouble(f"an answer has no status of gRPC (HTTP {status.decode(errors='replace')})")
