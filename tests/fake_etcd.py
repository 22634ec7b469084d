"""An etcd that says what a test wants, in HTTP/1 and in HTTP/2, on one port.

HTTP/2 is written here by hand, apart from the adapter's own: what both get wrong together would pass.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Sequence

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REFUSED_STREAM = 7

Frame = tuple[int, int, int, bytes]


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "big")


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return number(len(payload), 3) + bytes((kind, flags)) + number(stream) + payload


def frames(data: bytes) -> list[Frame]:
    """Kind, flags, stream and payload of each; all must be whole."""
    found = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        assert len(data) >= end, "a frame is cut off"
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return found


def fields(**values: str) -> bytes:
    """A block of plain fields; `_` in a name is `-`, `status` is HTTP's."""
    block = b""
    for name, value in values.items():
        text = (":status" if name == "status" else name.replace("_", "-")).encode()
        assert len(text) < 127 > len(value), "written in one byte each"
        block += b"\0" + number(len(text), 1) + text + number(len(value), 1) + value.encode()
    return block


HELLO = frame(SETTINGS, payload=number(5, 2) + number(16_384)) + frame(SETTINGS, ACK)
SILENCE = b""
OPENING = fields(status="200", content_type="application/grpc")
WELL = fields(grpc_status="0", grpc_message="")


def grpc_body(message: bytes) -> bytes:
    return b"\0" + number(len(message)) + message


def grpc_answer(message: bytes, stream: int = 1) -> bytes:
    """A whole answer, as etcd gives it."""
    body = grpc_body(message)
    parts = [frame(HEADERS, END_HEADERS, stream, OPENING)]
    parts += [frame(DATA, 0, stream, body[at : at + 16_384]) for at in range(0, len(body), 16_384)]
    return b"".join([*parts, frame(HEADERS, END_HEADERS | END_STREAM, stream, WELL)])


def grpc_refusal(code: int, message: str, stream: int = 1) -> bytes:
    """An answer of nothing but trailers; the message has been percent-encoded."""
    block = fields(status="200", content_type="application/grpc", grpc_status=str(code), grpc_message=message)
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block)


def http_refusal(status: int, code: int, message: str) -> bytes:
    """As the gateway gives it: chunked, with trailers."""
    body = json.dumps({"error": message, "message": message, "code": code}).encode()
    head = b"HTTP/1.1 %d No\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n" % status
    return head + b"%x\r\n%b\r\n0\r\nT: x\r\n\r\n" % (len(body), body)


class FakeEtcd:
    """Counts who asked. `asked` are questions, not connections; `grpc` has one answer for each of them by HTTP/2.

    An answer is made from the stream of its question; without one the connection is closed. `http` answers every
    question by HTTP/1. Another `hello` makes it a server that does not speak HTTP/2, and hangs up or stays silent.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.hello = HELLO
        self.grpc: Sequence[Callable[[int], bytes]] = ()
        self.http = b""
        self.asked: list[str] = []
        self.connections = 0
        self._opened: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._opened.append(client)
                threading.Thread(target=self._attend, args=(client,), daemon=True).start()

    def _attend(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(20.0)
            data = client.recv(65_536)
            if data.startswith(b"PRI"):
                self._speak_http2(client, data)
            elif data:
                self.asked.append("http")
                client.sendall(self.http)

    def _speak_http2(self, client: socket.socket, data: bytes) -> None:
        client.sendall(self.hello)
        if self.hello != HELLO:
            if self.hello == SILENCE:
                client.recv(65_536)
            return
        data = data.removeprefix(PREFACE)
        while True:
            size = 9 + int.from_bytes(data[:3], "big")
            while len(data) < max(9, size):
                more = client.recv(65_536)
                if not more:
                    return
                data += more
                size = 9 + int.from_bytes(data[:3], "big")
            kind, flags, stream = data[3], data[4], int.from_bytes(data[5:9], "big")
            data = data[size:]
            if kind == DATA and flags & END_STREAM:
                self.asked.append("grpc")
                if len(self.asked) > len(self.grpc):
                    return
                client.sendall(self.grpc[len(self.asked) - 1](stream))

    def hang_up(self) -> None:
        """End every connection; new ones are taken."""
        for client in self._opened:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.hang_up()
