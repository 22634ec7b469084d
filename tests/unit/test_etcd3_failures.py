"""Failures of etcd v3, by gRPC and through its gateway: each is an error of ours, and nothing is asked twice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from mr.adapters.stores.etcd3 import Etcd3Store, endpoint
from mr.errors import NotFound, StoreFull, StoreUnavailable, ValueRefused
from mr.ports.store import Put, Transaction
from tests.fake_etcd import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    OPENING,
    PING,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    SILENCE,
    WELL,
    FakeEtcd,
    fields,
    frame,
    grpc_answer,
    grpc_refusal,
    http_refusal,
    number,
)

WRITE = Transaction(operations=[Put("k", b"v")])
# A TxnResponse: revision 7, succeeded.
DONE = b"\x0a\x02\x18\x07\x10\x01"
HTTP_DONE = b'{"header":{"revision":"7"},"succeeded":true}'
HTTP_OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(HTTP_DONE), HTTP_DONE)
HTTP_REFUSED = b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def etcd() -> Iterator[FakeEtcd]:
    etcd = FakeEtcd()
    yield etcd
    etcd.close()


@pytest.fixture
def open_store(etcd: FakeEtcd) -> Iterator[Callable[..., Etcd3Store]]:
    opened: list[Etcd3Store] = []

    def build(**options) -> Etcd3Store:
        opened.append(Etcd3Store([etcd.endpoint], **options))
        return opened[-1]

    yield build
    for store in opened:
        store.close()


# Refusals


@pytest.mark.parametrize("grpc", [True, False], ids=["grpc", "gateway"])
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
        (400, 11, "etcdserver: mvcc: required revision has been compacted", NotFound, None),
        (403, 7, "etcdserver: permission denied", StoreUnavailable, False),
        (412, 9, "etcdserver: unhealthy cluster", StoreUnavailable, False),
        (401, 16, "etcdserver: invalid auth token", StoreUnavailable, False),
        (503, 14, "etcdserver: request timed out", StoreUnavailable, True),
        (503, 14, "etcdserver: leader changed", StoreUnavailable, True),
        (504, 4, "context deadline exceeded", StoreUnavailable, True),
        (500, 2, "100 % new: \u2013", StoreUnavailable, True),
    ],
)
def test_every_refusal_of_etcd_has_its_error(
    status: int,
    code: int,
    message: str,
    kind: type[Exception],
    unknown: bool | None,
    grpc: bool,
    etcd: FakeEtcd,
    open_store,
):
    etcd.http = http_refusal(status, code, message)
    etcd.grpc = [lambda stream: grpc_refusal(code, quote(message), stream)]
    with pytest.raises(kind) as raised:
        open_store(grpc=grpc).commit(WRITE)
    assert getattr(raised.value, "unknown", None) == unknown
    assert message in str(raised.value)
    assert etcd.asked == ["grpc" if grpc else "http"]


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
def test_an_answer_of_the_gateway_that_is_none_leaves_a_write_in_doubt(
    answer: bytes, unknown: bool, etcd: FakeEtcd, open_store
):
    etcd.http = answer
    store = open_store(grpc=False)
    with pytest.raises(StoreUnavailable) as raised:
        store.commit(WRITE)
    assert raised.value.unknown is unknown
    assert etcd.asked == ["http"]
    with pytest.raises(StoreUnavailable) as raised:
        store.get("k")
    assert raised.value.unknown is False


def headers(**values: str) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, fields(**values))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        grpc_answer(DONE)[:-1],
        grpc_answer(DONE)[:30],
        grpc_answer(b"\xff"),
        grpc_answer(DONE + b"\x0a\x7f"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, OPENING),
        frame(HEADERS, END_HEADERS, 1, OPENING) + frame(HEADERS, END_HEADERS | END_STREAM, 1, WELL),
        frame(HEADERS, END_HEADERS, 1, OPENING)
        + frame(DATA, 0, 1, b"\1" + number(len(DONE)) + DONE)
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, WELL),
        headers(status="200", grpc_status="well"),
        headers(status="502"),
        headers(status="503", content_type="text/html"),
        frame(RST_STREAM, 0, 1, number(2)),
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_an_answer_of_grpc_that_is_none_leaves_a_write_in_doubt(answer: bytes, etcd: FakeEtcd, open_store):
    etcd.grpc = [lambda _: answer]
    store = open_store(timeout_s=0.3)
    with pytest.raises(StoreUnavailable) as raised:
        store.commit(WRITE)
    assert raised.value.unknown
    assert etcd.asked == ["grpc"]


@pytest.mark.parametrize("piece", [b"", frame(PING, payload=b"12345678"), frame(DATA, 0, 1, b"x")])
def test_a_deadline_holds_for_the_whole_answer_whatever_comes_meanwhile(piece: bytes, etcd: FakeEtcd, open_store):
    def drip(_: int) -> bytes:
        stop = time.monotonic() + 5.0
        while piece and time.monotonic() < stop:
            etcd._opened[-1].sendall(piece * 100)
            time.sleep(0.001)
        return frame(HEADERS, END_HEADERS, 1, OPENING)

    etcd.grpc = [drip]
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match="in time") as raised:
        open_store(timeout_s=0.4).commit(WRITE)
    assert raised.value.unknown
    assert 0.3 < time.monotonic() - start < 4.0


# Connections


def test_one_connection_serves_many_calls(etcd: FakeEtcd, open_store):
    etcd.grpc = [lambda stream: grpc_answer(DONE, stream)] * 5
    store = open_store()
    assert [store.commit(WRITE).revision for _ in range(5)] == [7] * 5
    assert etcd.connections == 1


def test_a_refusal_leaves_the_connection_well(etcd: FakeEtcd, open_store):
    etcd.grpc = [lambda stream: grpc_refusal(5, "no lease", stream), lambda stream: grpc_answer(DONE, stream)]
    store = open_store()
    with pytest.raises(NotFound):
        store.commit(WRITE)
    store.commit(WRITE)
    assert etcd.connections == 1


def goes_away(stream: int) -> bytes:
    return frame(GOAWAY, payload=number(stream - 2) + number(0))


def refuses(stream: int) -> bytes:
    return frame(RST_STREAM, 0, stream, number(REFUSED_STREAM))


@pytest.mark.parametrize("no", [goes_away, refuses])
def test_what_a_leaving_server_did_not_look_at_is_asked_again_on_a_new_connection(
    no: Callable[[int], bytes], etcd: FakeEtcd, open_store
):
    etcd.grpc = [lambda stream: grpc_answer(DONE, stream), no, lambda stream: grpc_answer(DONE, stream)]
    store = open_store()
    store.commit(WRITE)
    assert store.commit(WRITE).succeeded
    assert etcd.connections == 2


def test_a_server_that_looks_at_nothing_is_not_in_doubt(etcd: FakeEtcd, open_store):
    etcd.grpc = [refuses] * 9
    with pytest.raises(StoreUnavailable) as raised:
        open_store().commit(WRITE)
    assert not raised.value.unknown
    assert etcd.asked == ["grpc"]


def test_a_connection_whose_server_leaves_is_replaced_without_doubt(etcd: FakeEtcd, open_store):
    def last(stream: int) -> bytes:
        return grpc_answer(DONE, stream) + frame(GOAWAY, payload=number(stream) + number(0))

    etcd.grpc = [last, last, last]
    store = open_store()
    for _ in range(3):
        store.commit(WRITE)
    assert etcd.connections == 3


def test_a_connection_that_was_cut_while_nobody_used_it_is_replaced_without_doubt(etcd: FakeEtcd, open_store):
    etcd.grpc = [lambda stream: grpc_answer(DONE, stream)] * 2
    store = open_store()
    store.commit(WRITE)
    etcd.hang_up()
    assert store.commit(WRITE).succeeded
    assert etcd.connections == 2


# The way


@pytest.mark.parametrize("hello", [HTTP_REFUSED, SILENCE, b"SSH-2.0-OpenSSH\r\n", frame(SETTINGS)[:5]])
def test_who_does_not_speak_http2_is_asked_through_the_gateway_and_one_line_says_so(
    hello: bytes, etcd: FakeEtcd, open_store, caplog: pytest.LogCaptureFixture
):
    etcd.hello, etcd.http = hello, HTTP_OK
    store = open_store(timeout_s=0.5)
    with caplog.at_level(logging.WARNING):
        assert [store.commit(WRITE).revision for _ in range(3)] == [7] * 3
    assert etcd.asked == ["http"] * 3
    (said,) = (record.getMessage() for record in caplog.records)
    assert "JSON gateway" in said
    assert etcd.endpoint in said


@pytest.mark.parametrize(
    "no",
    [
        lambda stream: grpc_refusal(12, "unknown service", stream),
        lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, fields(status="404")),
        lambda stream: frame(HEADERS, END_HEADERS | END_STREAM, stream, fields(status="415", content_type="text/html")),
    ],
)
def test_who_speaks_http2_but_knows_no_such_call_is_asked_through_the_gateway(
    no: Callable[[int], bytes], etcd: FakeEtcd, open_store
):
    etcd.grpc, etcd.http = [no], HTTP_OK
    store = open_store()
    assert [store.commit(WRITE).revision for _ in range(2)] == [7, 7]
    assert etcd.asked == ["grpc", "http", "http"]


def test_grpc_is_tried_again_after_a_while_and_one_line_is_enough(
    etcd: FakeEtcd, open_store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(endpoint, "GRPC_AGAIN_S", 0.0)
    etcd.grpc = [
        lambda stream: grpc_refusal(12, "not yet", stream),
        lambda _: b"",  # The second question is asked of the gateway.
        lambda stream: grpc_refusal(12, "not yet", stream),
        lambda _: b"",
        lambda stream: grpc_answer(DONE, stream),
    ]
    etcd.http = HTTP_OK
    store = open_store()
    assert [store.commit(WRITE).revision for _ in range(3)] == [7] * 3
    assert etcd.asked == ["grpc", "http", "grpc", "http", "grpc"]
    assert len(caplog.records) == 1


def test_a_write_that_grpc_left_in_doubt_is_not_asked_of_the_gateway(etcd: FakeEtcd, open_store):
    etcd.http = HTTP_OK
    with pytest.raises(StoreUnavailable) as raised:
        open_store().commit(WRITE)
    assert raised.value.unknown
    assert etcd.asked == ["grpc"]


def test_where_nobody_answers_either_way_grpc_is_tried_first_again(etcd: FakeEtcd, open_store):
    hello, etcd.hello = etcd.hello, b"no"
    store = open_store()
    with pytest.raises(StoreUnavailable):
        store.commit(WRITE)
    etcd.hello = hello
    etcd.asked.clear()
    etcd.grpc = [lambda stream: grpc_answer(DONE, stream)]
    assert store.commit(WRITE).revision == 7
