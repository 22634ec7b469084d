"""The writer `http`, against a listener on the loopback."""

from __future__ import annotations

import json
import socket
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from mr import addresses
from mr.adapters.writers.http import MEMORY_MAX, HttpWriter
from mr.codec import Items, encode
from mr.errors import NotDelivered
from mr.ports.result_writer import Origin
from tests.receivers import Listener, listener

R = "0123456789" * 4
ORIGIN = Origin(workflow="w", job="j", request_id=R)


@pytest.fixture(scope="module")
def running() -> Iterator[Listener]:
    with listener() as found:
        yield found


@pytest.fixture
def server(running: Listener) -> Listener:
    running.posted.clear()
    running.headers.clear()
    return running


def writer(server: Listener, form: str = "json", user: str = "") -> HttpWriter:
    return HttpWriter(addresses.parse_http(f"http://{user}127.0.0.1:{server.port}/in?a=b"), form)


def pieces(*pairs: Any) -> Iterator[Items]:
    for pair in pairs:
        yield Items.of([encode(pair)])


def test_JX_83_the_pairs_are_posted_as_a_list(server: Listener) -> None:
    told = writer(server).write(ORIGIN, pieces(["a", 1], [[1, 2], {"é": None}]))
    (posted,) = server.posted
    assert posted.path == "/in?a=b"
    assert json.loads(posted.body) == [["a", 1], [[1, 2], {"é": None}]]
    wanted = {"content-type": "application/json", "x-request-id": R, "x-workflow-name": "w", "x-job-name": "j"}
    assert wanted.items() <= posted.headers.items()
    assert told == {"url": f"http://127.0.0.1:{server.port}/in?a=b", "status": 204}


def test_JX_83_an_empty_result_is_an_empty_list(server: Listener) -> None:
    writer(server).write(ORIGIN, pieces())
    assert server.posted[0].body == b"[]"


def test_pairs_may_be_lines(server: Listener) -> None:
    writer(server, "ndjson").write(ORIGIN, pieces(["a", 1], ["b", "x\ny"]))
    assert server.posted[0].headers["content-type"] == "application/x-ndjson"
    assert server.posted[0].body == b'["a",1]\n["b","x\\ny"]\n'


def test_a_repeat_can_be_told_from_a_new_result(server: Listener) -> None:
    for _ in range(2):
        writer(server).write(ORIGIN, pieces(["a", 1]))
    first, second = server.posted
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"] == R
    assert first.body == second.body


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_a_result_need_not_fit_into_memory(server: Listener, form: str) -> None:
    piece = "x" * 250_000
    count = 80

    def many() -> Iterator[Items]:
        for n in range(count):
            yield Items.of([encode([n, piece])])

    tracemalloc.start()
    try:
        # What the listener receives stands in this process, too; it is taken off.
        writer(server, form).write(ORIGIN, many())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (posted,) = server.posted
    assert len(posted.body) > count * len(piece) > 10 * MEMORY_MAX
    assert peak < 2.5 * len(posted.body)
    pairs = json.loads(posted.body) if form == "json" else [json.loads(line) for line in posted.body.splitlines()]
    assert [n for n, _ in pairs] == list(range(count))


@pytest.mark.parametrize("status", [199 + 101, 301, 400, 404, 500, 503])
def test_JX_83_an_answer_that_is_not_2xx_fails_the_write(server: Listener, status: int) -> None:
    server.headers["Location"] = f"http://127.0.0.1:{server.port}/elsewhere"
    server.answers = [(status, b"not\nnow")]
    with pytest.raises(NotDelivered, match=rf"/in\?a=b answers {status}: not now"):
        writer(server).write(ORIGIN, pieces(["a", 1]))
    assert len(server.posted) == 1


def test_a_password_goes_to_the_server_and_nowhere_else(server: Listener) -> None:
    server.answers = [(200, b""), (403, b"")]
    one = writer(server, user="ana:se%20cret@")
    told = one.write(ORIGIN, pieces())
    assert server.posted[0].headers["authorization"] == "Basic YW5hOnNlIGNyZXQ="
    assert "cret" not in repr(told)
    with pytest.raises(NotDelivered) as caught:
        one.write(ORIGIN, pieces())
    assert "cret" not in str(caught.value)


def test_no_server_is_an_error_with_its_address() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with pytest.raises(NotDelivered, match=url):
            HttpWriter(addresses.parse_http(url)).write(ORIGIN, pieces())


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("http://h", "http://h:80/"),
        ("https://h:8443/a?b=c", "https://h:8443/a?b=c"),
        ("https://h?b", "https://h:443/?b"),
        ("http://[::1]:8/x", "http://[::1]:8/x"),
        ("http://ana:x@h/y", "http://ana:***@h:80/y"),
    ],
)
def test_urls_are_read_and_printed_without_passwords(text: str, printed: str) -> None:
    assert str(addresses.parse_http(text)) == printed


@pytest.mark.parametrize(
    "text", ["h/x", "ftp://h", "http://", "http://h x/", "http://h/é", "http://h/\r\nX: y", "http://a,b/"]
)
def test_what_is_no_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"http://host\[:port\]/path|host:port|once"):
        addresses.parse_http(text)
