"""`mr_http_notification_listen`: what it prints of what comes, and what it does not take."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import pytest

from mr.adapters.notifiers.http import HttpNotifier
from mr.addresses import Endpoint, HttpUrl
from mr.cli.listening import BODY_MAX, line, listening
from mr.errors import NotDelivered
from mr.ports.notifier import Notice


def test_JX_94_a_line_is_time_logger_level_and_message() -> None:
    form = {"name": "mr.w.h", "levelname": "ERROR", "msg": "it failed", "created": "1000000000.25"}
    assert line(form) == "2001-09-09 01:46:40  mr.w.h" + " " * 34 + "  ERROR      it failed"
    long = line(form | {"name": "n" * 60, "levelname": "CRITICAL"})
    assert long == "2001-09-09 01:46:40  " + "n" * 40 + "  CRITICAL   it failed"


def test_nobody_writes_to_the_terminal_as_they_like() -> None:
    shown = line({"name": "a\x1b[2J", "levelname": "\r", "msg": "one\n\ttwo\x07\u009b é", "created": "0"})
    assert "\x1b" not in shown
    assert shown.endswith("one\n\ttwo\\x07\\x9b é")


@pytest.mark.parametrize("created", ["", "yesterday", "nan", "1e300"])
def test_a_time_that_is_none_is_now(created: str) -> None:
    assert line({"msg": "m", "created": created}).startswith("20")


@pytest.fixture
def said() -> Iterator[tuple[int, list[str]]]:
    lines: list[str] = []
    server = listening("127.0.0.1", 0, lines.append)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1], lines
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("verb", ["post", "put", "get"])
def test_JX_94_it_understands_what_workers_send(said: tuple[int, list[str]], verb: str) -> None:
    port, lines = said
    url = HttpUrl(scheme="http", endpoint=Endpoint("127.0.0.1", port))
    HttpNotifier(url, verb).notify(Notice(level="info", text="half & half = é", at=0.0, workflow="w", handler="h"))
    assert lines == ["1970-01-01 00:00:00  mr.w.h" + " " * 34 + "  INFO       half & half = é"]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [({"Content-Length": str(BODY_MAX + 1)}, None, 413), ({"Content-Length": "x"}, None, 400), ({}, b"a=b", 400)],
)
def test_what_is_no_notification_is_refused(
    said: tuple[int, list[str]], headers: dict[str, str], body: bytes | None, status: int
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", said[0], timeout=60)
    connection.request("POST", "/", body, headers)
    assert connection.getresponse().status == status
    connection.close()
    assert said[1] == []


def test_a_listener_that_refuses_is_an_error_with_its_address(said: tuple[int, list[str]]) -> None:
    url = HttpUrl(scheme="http", endpoint=Endpoint("127.0.0.1", said[0]))
    with pytest.raises(NotDelivered, match=f"http://127.0.0.1:{said[0]}/ answers 501"):
        HttpNotifier(url, "patch").notify(Notice(level="info", text="x", at=0.0))
