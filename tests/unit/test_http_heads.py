"""Heads that are known again: the same requests as gunicorn's parser finds, and the same answers."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config

from mr.http import heads
from mr.http.heads import Heads, Known, Parser
from tests.unit.front_ends import Ending, fails, succeeds, succeeds_in_chunks, worker
from tests.unit.test_http_server import DEADLINE_S, Server, serving, until

LINE = b"POST /job/w/j?blocking=0 HTTP/1.1\r\n"
PLAIN = b"Host: x\r\nContent-Type: application/json\r\n"
BODY = b'{"arguments": {}}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
POST = LINE + PLAIN + LENGTH + b"\r\n" + BODY
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

PEER, LISTENER = ("192.0.2.1", 1234), ("192.0.2.2", 80)


class Line:
    """The two ends of a connection: what is sent, and a parser behind it."""

    def __init__(self, known: Heads, peer: Any = PEER) -> None:
        self._client, self._server = socket.socketpair()
        self._server.settimeout(DEADLINE_S)
        self.parser = Parser(Config(), self._server, peer, LISTENER, known)

    def send(self, data: bytes) -> None:
        self._client.sendall(data)

    def next(self, data: bytes = b"") -> Any:
        self.send(data)
        return next(self.parser)

    def end(self) -> None:
        self._client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._client.close()
        self._server.close()


@pytest.fixture
def known() -> Heads:
    return Heads()


@pytest.fixture
def line(known: Heads) -> Iterator[Line]:
    """A connection on which a plain post has been read."""
    line = Line(known)
    assert read(line.next(POST)) == BODY
    yield line
    line.close()


def read(request: Any) -> bytes:
    """The body of a request, as the application reads it."""
    stream = request.environ["wsgi.input"] if isinstance(request, Known) else request.body
    return bytes(stream.read())


def test_a_head_is_known_the_second_time_whatever_the_length(line: Line) -> None:
    for body in (BODY, b"x" * 3000, b""):
        request = line.next(POST.replace(LENGTH + b"\r\n" + BODY, b"Content-Length: %d\r\n\r\n%s" % (len(body), body)))
        assert isinstance(request, Known)
        assert request.environ["CONTENT_LENGTH"] == str(len(body))
        assert read(request) == body
    line.end()
    with pytest.raises(StopIteration):
        next(line.parser)


def test_its_environment_is_the_one_that_gunicorn_makes(line: Line) -> None:
    request = line.next(POST)
    made = {name: text for name, text in request.environ.items() if isinstance(text, str)}
    assert made.pop("SERVER_SOFTWARE").startswith("gunicorn")
    assert made == {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/job/w/j",
        "QUERY_STRING": "blocking=0",
        "RAW_URI": "/job/w/j?blocking=0",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "192.0.2.2",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "1234",
        "HTTP_HOST": "x",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(BODY)),
        "wsgi.url_scheme": "http",
    }
    request.environ["HTTP_HOST"] = "y"
    assert line.next(POST).environ["HTTP_HOST"] == "x", "each request has a copy of its own"


def test_requests_in_one_piece_come_one_after_the_other(line: Line) -> None:
    line.send(POST + POST + GET + POST)
    assert [read(next(line.parser)) for _ in range(4)] == [BODY, BODY, b"", BODY]


def test_a_body_that_comes_later_is_waited_for(line: Line) -> None:
    request = line.next(POST[:-10])
    assert isinstance(request, Known)
    line.send(POST[-10:] + POST)
    assert read(request) == BODY
    assert read(line.next()) == BODY


def test_what_the_application_leaves_of_a_body_is_no_request(line: Line) -> None:
    smuggled = LINE + PLAIN + b"Content-Length: %d\r\n\r\n" % len(POST)
    assert isinstance(line.next(smuggled), Known)
    request = line.next(POST + POST)
    assert read(request) == BODY
    line.end()
    with pytest.raises(StopIteration):
        next(line.parser)


def test_a_head_is_known_to_its_peer_alone(line: Line, known: Heads) -> None:
    another = Line(known, ("192.0.2.9", 1234))
    assert not isinstance(another.next(POST), Known)
    another.close()
    again = Line(known, ("192.0.2.1", 999))
    assert again.next(POST).environ["REMOTE_PORT"] == "999"
    again.close()


@pytest.mark.parametrize(
    "data",
    [
        GET,
        POST.replace(b"POST", b"PUT"),
        POST.replace(b"HTTP/1.1", b"HTTP/1.0"),
        POST.replace(PLAIN, PLAIN + b"Connection: close\r\n"),
        POST.replace(PLAIN, PLAIN + b"Expect: 100-continue\r\n"),
        POST.replace(PLAIN, PLAIN + b"X: %s\r\n" % (b"x" * heads.HEAD_MAX_BYTES)),
        LINE + PLAIN + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\r\n" + POST,
    ],
)
def test_what_is_not_plain_is_never_known(known: Heads, data: bytes) -> None:
    for _ in range(2):
        line = Line(known)
        assert not isinstance(line.next(data), Known)
        line.close()


def test_when_there_are_too_many_heads_it_begins_anew(known: Heads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "KEPT_MAX", 2)
    line = Line(known)
    for host in (b"a", b"b", b"c"):
        read(line.next(POST.replace(b"Host: x", b"Host: " + host)))
    assert isinstance(line.next(POST.replace(b"Host: x", b"Host: c")), Known)
    assert not isinstance(line.next(POST.replace(b"Host: x", b"Host: a")), Known)
    line.close()


# -- with the whole server -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """One that knows heads again, and one where gunicorn serves alone."""
    with (
        serving(tmp_path_factory.mktemp("knowing")) as knowing,
        serving(tmp_path_factory.mktemp("plain"), MAX_REQUESTS="1000000") as plain,
    ):
        yield knowing, plain


def answers(server: Server, *pieces: bytes) -> list[bytes]:
    """All that a server says to these pieces on one connection, without what differs each time."""
    connection = server.raw(b"")
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    received = b""
    try:
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(1 << 16):
            received += data
    except ConnectionError:
        received += b"(reset)"
    connection.close()
    received = re.sub(rb"Date: [^\r]*|[0-9a-f]{40}", b"*", received)
    return re.split(rb"(?=HTTP/1\.)", received)[1:]


def with_header(header: bytes) -> bytes:
    return LINE + header + PLAIN + LENGTH + b"\r\n" + BODY


@pytest.mark.parametrize(
    "data",
    [
        POST,
        POST + POST + POST,
        POST + GET + POST,
        POST + b"\r\n" + POST,
        POST + b"\r\n\r\n" + POST,
        b"\r\n" + POST,
        POST + BODY + POST,
        LINE + PLAIN + b"Content-Length: 5\r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: 18\r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: 9999999\r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: 10000000000\r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: 017\r\n\r\n" + BODY + POST,
        LINE + PLAIN + b"Content-Length:17\r\n\r\n" + BODY + POST,
        LINE + PLAIN + b"Content-Length:\t17 \r\n\r\n" + BODY + POST,
        LINE + PLAIN + b"content-length: 17\r\n\r\n" + BODY + POST,
        LINE + PLAIN + b"Content-Length: +17\r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: -1\r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: 1_7\r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: 0x11\r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: 17, 17\r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: \r\n\r\n" + BODY,
        LINE + PLAIN + b"Content-Length: \xb2\r\n\r\n" + BODY,
        LINE + PLAIN + b"\r\n" + BODY,
        with_header(LENGTH),
        with_header(b"Content-Length: 5\r\n"),
        with_header(b"Content-Length: \r\n"),
        with_header(b"Content-Length : 17\r\n"),
        with_header(b"Transfer-Encoding: chunked\r\n"),
        with_header(b"Transfer-Encoding: identity\r\n"),
        with_header(b"Transfer-Encoding: \x0bchunked\r\n"),
        with_header(b"X-A: b\r\n Content-Length: 5\r\n"),
        with_header(b" Content-Length: 5\r\n"),
        with_header(b"X-A: b\nContent-Length: 5\r\n"),
        with_header(b"X A: b\r\n"),
        with_header(b"X_A: b\r\n"),
        with_header(b"X-A\xff: b\r\n"),
        with_header(b"X-A: \x00\r\n"),
        with_header(b": b\r\n"),
        with_header(b"X-A\r\n"),
        with_header(b"X-A: b\r\n" * 200),
        with_header(b"X-A: %s\r\n" % (b"x" * 9000)),
        with_header(b"Host: y\r\n"),
        with_header(b"Content-Type: text/plain\r\n"),
        with_header(b"Content-Encoding: gzip\r\n"),
        with_header(b"Expect: 100-continue\r\n"),
        with_header(b"Expect: 200-ok\r\n"),
        with_header(b"Connection: close\r\n") + POST,
        with_header(b"Connection: keep-alive\r\n") + POST,
        with_header(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
        LINE + PLAIN + b"Transfer-Encoding: chunked\r\n\r\n11\r\n" + BODY + b"\r\n0\r\n\r\n" + POST,
        POST.replace(b"HTTP/1.1", b"HTTP/1.0") + POST,
        POST.replace(b"HTTP/1.1", b"HTTP/2.0"),
        POST.replace(b"HTTP/1.1", b"HTTP/1.1 "),
        POST.replace(b"POST /job", b"POST  /job"),
        POST.replace(b"POST /job", b"POST http://x/job"),
        POST.replace(b"/w/j", b"/%77/j"),
        POST.replace(b"/w/j", b"/w/no"),
        POST.replace(b"/w/j", b"/w%2Fj"),
        POST.replace(b"/w/j", b"//w/j"),
        POST.replace(b"POST", b"post"),
        POST.replace(BODY, b'{"arguments": []}'),
        POST.replace(BODY, b"\xff" * len(BODY)),
    ],
)
def test_the_server_answers_as_gunicorn_alone_does(servers: tuple[Server, Server], data: bytes) -> None:
    knowing, plain = servers
    expected = answers(plain, POST + POST + data)
    assert len(expected) >= 2, "the plain posts must be answered"
    for _ in range(2):  # the second time it may be known
        assert answers(knowing, POST + POST + data) == expected
    assert knowing.ids(), "posts must be accepted"


def test_a_head_in_many_pieces_is_read_as_in_one(servers: tuple[Server, Server]) -> None:
    knowing, _ = servers
    whole = answers(knowing, POST + POST)
    assert answers(knowing, POST, *(POST[place : place + 1] for place in range(len(POST)))) == whole
    assert answers(knowing, POST[:50], POST[50:] + POST[:100], POST[100:]) == whole


def in_turn(endings: list[Ending]) -> Ending:
    """The first request ends as the first one says, and so on."""
    left = iter(endings)

    def ending(*what: Any) -> None:
        next(left)(*what)

    return ending


def test_results_are_answered_as_by_gunicorn_alone(tmp_path: Path) -> None:
    post = POST.replace(b"?blocking=0", b"")
    endings = [succeeds(("a", 1)), fails(), succeeds_in_chunks(*[[["b", "x" * 90_000]]] * 8)]
    answered = []
    for name, variables in (("knowing", {}), ("plain", {"MAX_REQUESTS": "1000000"})):
        (tmp_path / name).mkdir()
        with serving(tmp_path / name, **variables) as server, worker(server.parts, in_turn(2 * endings)):
            connection = server.connect()
            connection.connect()
            for _ in range(2 * len(endings)):  # what was new in the first round is known in the second
                connection.sock.sendall(post)
                answer = connection.response_class(connection.sock, method="POST")
                answer.begin()
                answered.append((answer.status, answer.read(), [header for header, _ in answer.getheaders()]))
    assert [status for status, _, _ in answered[:3]] == [200, 500, 200]
    for number in range(len(endings)):
        assert all(other == answered[number] for other in answered[number :: len(endings)])
        assert json.loads(answered[number][1])


def test_the_end_lets_go_of_known_clients(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        post = POST.replace(b"?blocking=0", b"")
        clients = [server.raw(post)]
        until(lambda: server.count() == 1)
        clients += [server.raw(post), server.raw(post)]  # the head of these is known
        until(lambda: server.count() == 3)
        server.process.terminate()
        for client in clients:
            received = b""
            while data := client.recv(1000):
                received += data
            assert received.startswith(b"HTTP/1.1 202")
        assert server.process.wait(DEADLINE_S) == 0
