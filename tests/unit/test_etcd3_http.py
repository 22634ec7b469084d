"""The small HTTP of the etcd v3 adapter: bytes in any pieces, and every refusal of etcd as an error of ours."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from mr.adapters.stores.etcd3 import Etcd3Store
from mr.adapters.stores.etcd3.http import Chunks, Head
from mr.errors import NotFound, StoreFull, StoreUnavailable, ValueRefused
from mr.ports.store import Put, Transaction

CHUNKED = b'4\r\n{"a"\r\n5;x=y\r\n:1}\r\n\r\n0\r\nGrpc-Trailer-Content-Type: application/grpc\r\n\r\n'


@pytest.mark.parametrize("size", range(1, len(CHUNKED) + 1))
def test_a_chunked_body_is_read_whatever_pieces_it_comes_in(size: int):
    chunks = Chunks()
    body = b""
    for start in range(0, len(CHUNKED), size):
        assert not chunks.ended
        body += chunks.feed(CHUNKED[start : start + size])
    assert body == b'{"a":1}\r\n'
    assert chunks.ended


def test_a_head_says_how_long_the_body_is():
    head = Head.parse(b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 12\r\nConnection: Close")
    assert head == Head(status=200, length=12, chunked=False, closes=True)
    head = Head.parse(b"HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked")
    assert head == Head(status=429, length=None, chunked=True, closes=False)


class Answers:
    """A server that gives one answer to everybody and counts who asked."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.answer = b""
        self.asked = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def refuse(self, status: int, code: int, message: str) -> None:
        body = json.dumps({"error": message, "message": message, "code": code}).encode()
        self.answer = (
            b"HTTP/1.1 %d No\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nT: x\r\n\r\n"
            % (
                status,
                len(body),
                body,
            )
        )

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, contextlib.suppress(OSError):
                    client.settimeout(5.0)
                    client.recv(65536)
                    self.asked += 1
                    client.sendall(self.answer)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def answers() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    answers.close()


WRITE = Transaction(operations=[Put("k", b"v")])


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "unknown"),
    [
        (429, 8, "etcdserver: mvcc: database space exceeded", StoreFull, None),
        (429, 8, "etcdserver: too many requests", StoreUnavailable, False),
        (429, 8, "grpc: received message larger than max (3 vs. 2)", ValueRefused, None),
        (400, 3, "etcdserver: request is too large", ValueRefused, None),
        (400, 3, "etcdserver: too many operations in txn request", ValueRefused, None),
        (400, 3, "etcdserver: user name is empty", StoreUnavailable, False),
        (404, 5, "etcdserver: requested lease not found", NotFound, None),
        (403, 7, "etcdserver: permission denied", StoreUnavailable, False),
        (412, 9, "etcdserver: unhealthy cluster", StoreUnavailable, False),
        (401, 16, "etcdserver: invalid auth token", StoreUnavailable, False),
        (503, 14, "etcdserver: request timed out", StoreUnavailable, True),
        (503, 14, "etcdserver: leader changed", StoreUnavailable, True),
        (504, 4, "context deadline exceeded", StoreUnavailable, True),
        (500, 2, "something new", StoreUnavailable, True),
    ],
)
def test_every_refusal_of_etcd_has_its_error(
    status: int, code: int, message: str, kind: type[Exception], unknown: bool | None, answers: Answers
):
    answers.refuse(status, code, message)
    store = Etcd3Store([answers.endpoint])
    with pytest.raises(kind) as raised:
        store.commit(WRITE)
    assert getattr(raised.value, "unknown", None) == unknown
    assert message in str(raised.value)
    assert answers.asked == 1
    store.close()


@pytest.mark.parametrize(
    ("answer", "unknown"),
    [
        (b"", True),
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", True),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops", True),
        (b"SSH-2.0\r\n\r\n", True),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops", True),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\n404 page not found", False),
    ],
)
def test_an_answer_that_is_none_leaves_a_write_in_doubt(answer: bytes, unknown: bool, answers: Answers):
    answers.answer = answer
    store = Etcd3Store([answers.endpoint])
    with pytest.raises(StoreUnavailable) as raised:
        store.commit(WRITE)
    assert raised.value.unknown is unknown
    assert answers.asked == 1
    with pytest.raises(StoreUnavailable) as raised:
        store.get("k")
    assert raised.value.unknown is False
    store.close()
