"""The real server: gunicorn with our worker, spoken to over sockets, and ended by signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from mr.model.request import RequestState
from mr.rules import keys
from mr.wiring import Parts
from tests.unit import front_ends

DEADLINE_S = 20.0
POST = b"POST /job/w/j?blocking=0 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
PROGRAM = """
import os, sys
from mr.http import gunicorn_config, gunicorn_worker
from mr.http.server import serve
from mr.settings import Settings
gunicorn_worker.SEND_S = float(os.environ.pop("SEND_S", "60"))
gunicorn_config.keepalive = int(os.environ.pop("KEEPALIVE", "15"))
gunicorn_config.max_requests = int(os.environ.pop("MAX_REQUESTS", "0"))
code = serve(Settings.from_env(os.environ), {bind!r}, on_ready=lambda addresses: print(addresses[0], flush=True))
print("served", code, flush=True)
sys.exit(code)
"""


class Server:
    """A front end in processes of its own, and the parts that it shares with this one through the file."""

    def __init__(self, parts: Parts, process: subprocess.Popen[str], address: str) -> None:
        self.parts, self.process = parts, process
        self.opened: list[HTTPConnection | socket.socket] = []
        self.address = address
        self.host, _, port = address.removeprefix("http://").rpartition(":")
        self.port = int(port) if port.isdigit() else 0

    def connect(self) -> HTTPConnection:
        connection = HTTPConnection(self.host, self.port, timeout=DEADLINE_S)
        self.opened.append(connection)
        return connection

    def raw(self, data: bytes) -> socket.socket:
        """A connection on which these bytes were sent."""
        connection = socket.create_connection((self.host, self.port), timeout=DEADLINE_S)
        self.opened.append(connection)
        connection.sendall(data)
        return connection

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[HTTPResponse, Any]:
        connection = self.connect()
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        return answer_on(connection)

    def blocking(self) -> HTTPConnection:
        """A client that waits; its request is accepted."""
        before = self.count()
        connection = self.connect()
        connection.request("POST", "/job/w/j", b'{"arguments": {}}', {"Content-Type": "application/json"})
        until(lambda: self.count() > before)
        return connection

    def connections(self) -> int:
        """Connections that the server holds: established (01), or left by the client and not closed yet (08)."""
        local = f":{self.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return sum(row[1].endswith(local) and row[3] in ("01", "08") for row in rows)

    def count(self) -> int:
        return self.parts.store.count(keys.requests("w"))

    def finish(self, r: str, *pairs: Any) -> None:
        front_ends.end(
            self.parts.store,
            self.parts.retention,
            "w",
            r,
            RequestState.SUCCEEDED,
            inline=[list(pair) for pair in pairs],
        )

    def ids(self) -> list[str]:
        return [r for r, _ in self.parts.results.requests("w")]


def answer_on(connection: HTTPConnection) -> tuple[HTTPResponse, Any]:
    """The answer and its body, read to its end."""
    with connection.getresponse() as answer:
        data = answer.read()
        return answer, json.loads(data) if answer.getheader("Content-Type") == "application/json" else data


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
    return found


@contextmanager
def serving(folder: Path, bind: str = "127.0.0.1:0", **variables: str) -> Iterator[Server]:
    parts = front_ends.parts(folder)
    front_ends.enlist(parts.store)
    environment = {**os.environ, "MR_STORE": f"sqlite:///{folder}/mr.db", **variables}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(bind=bind)],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        server = Server(parts, process, process.stdout.readline().strip())
        yield server
        for connection in server.opened:
            connection.close()
    finally:
        if process.poll() is None:
            process.terminate()
        process.stdout.close()
        process.wait(DEADLINE_S)
        parts.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as server:
        yield server


def test_a_blocking_post_is_answered_when_its_request_ends(server: Server) -> None:
    client = server.blocking()
    assert server.ask("GET", "/")[1] == b"Map me. Reduce me."
    (r,) = server.ids()
    server.finish(r, ("a", 1))
    answer, body = answer_on(client)
    assert body == {"result": {"pairs": [["a", 1]]}}
    assert answer.getheader("X-MR-REQUEST-ID") == r
    until(lambda: not server.parts.store.count("replies/"))
    record = server.parts.results.request("w", r)
    assert record.context == {"requester_ip": "127.0.0.1"}


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_the_end_answers_who_waits_and_loses_nothing(server: Server, sign: signal.Signals) -> None:
    waiting = [server.blocking() for _ in range(5)]
    idle = server.connect()
    idle.request("GET", "/")
    assert answer_on(idle)[0].status == 200
    server.raw(b"")  # a connection on which nothing is asked
    started = time.monotonic()
    server.process.send_signal(sign)
    answers = [answer_on(client) for client in waiting]
    assert {answer.status for answer, _ in answers} == {202}
    assert {answer.getheader("X-MR-REQUEST-ID") for answer, _ in answers} == set(server.ids())
    assert server.process.wait(DEADLINE_S) == 0
    assert time.monotonic() - started < 5.0
    assert server.process.stdout is not None
    assert server.process.stdout.read() == "served 0\n", "the worker process must not return to the caller"


def test_a_client_that_hangs_up_frees_its_place_and_its_request_goes_on(server: Server) -> None:
    client = server.blocking()
    (r,) = server.ids()
    client.close()
    record = server.parts.results.request("w", r)
    assert record.reply_to is not None
    # Once nobody waits, a reply is removed and the result stays for its day.
    until(lambda: not server.connections())
    server.finish(r, ("a", 1))
    until(lambda: not server.parts.store.count("replies/"))
    assert server.parts.store.count(keys.DUE) == 1
    assert server.ask("GET", f"/request/w/{r}/result")[1] == {"result": {"pairs": [["a", 1]]}}


def test_clients_that_hang_up_leave_nothing_behind(server: Server) -> None:
    clients = [server.blocking() for _ in range(20)]
    assert server.connections() == 20
    for client in clients:
        client.close()
    until(lambda: not server.connections())
    assert server.count() == 20


def test_a_client_that_does_not_take_its_answer_is_left_and_its_result_stays(tmp_path: Path) -> None:
    big = [[["a", "x" * 400_000]]] * 50
    with serving(tmp_path, SEND_S="1.5") as server:
        lazy = socket.socket()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect((server.host, server.port))
        server.opened.append(lazy)
        lazy.sendall(
            b"POST /job/w/j HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n"
        )
        lazy.sendall(b'{"arguments": {}}')
        (r,) = until(server.ids)
        retention = server.parts.retention
        front_ends.end(server.parts.store, retention, "w", r, RequestState.SUCCEEDED, chunks=big)
        assert lazy.recv(100).startswith(b"HTTP/1.1 200")
        until(lambda: not server.connections())
        assert len(server.ask("GET", f"/request/w/{r}/result")[1]["result"]["pairs"]) == 50


def test_who_takes_too_long_to_ask_is_left(tmp_path: Path) -> None:
    with serving(tmp_path, KEEPALIVE="1") as server:
        before, within, after = server.raw(b""), server.raw(b"POST /job/w/j HT"), server.connect()
        waiting = server.blocking()
        after.request("GET", "/livez")
        assert answer_on(after)[0].status == 200
        for silent in (before, within, after.sock):
            assert silent.recv(1) == b"", "whoever does not ask must be hung up on"
        (r,) = server.ids()
        server.finish(r, ("a", 1))
        assert answer_on(waiting)[1] == {"result": {"pairs": [["a", 1]]}}, "whoever waits is not idle"


def test_a_body_in_chunks_is_read_and_limited(server: Server) -> None:
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n"
    good = server.raw(head + b'8\r\n{"argume\r\nb\r\nnts": {}   \r\n1\r\n}\r\n0\r\n\r\n')
    assert good.recv(100).startswith(b"HTTP/1.1 200")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    endless = server.raw(head + 20 * chunk)
    assert endless.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_that_is_announced_too_large_is_refused_unread(server: Server) -> None:
    huge = server.raw(POST + b"Content-Length: 10000000000\r\n\r\n")
    answer = huge.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 413")
    while b"shared file system" not in answer:
        more = huge.recv(10_000)
        assert more, answer
        answer += more
    assert server.ask("GET", "/livez")[0].status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /job/w/j HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
        b"GET /job/\xff\xfe/j HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_nonsense_is_refused_or_hung_up_on(server: Server, data: bytes) -> None:
    connection = server.raw(data)
    answer = connection.recv(10_000)
    assert not answer or answer.startswith(b"HTTP/1.1 4"), answer
    assert server.ask("GET", "/")[0].status == 200


def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    with serving(tmp_path, f"unix:{tmp_path}/web.sock"):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(DEADLINE_S)
        client.connect(f"{tmp_path}/web.sock")
        body = b'{"arguments": {}}'
        client.sendall(POST + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.close()


def test_a_store_that_cannot_be_opened_ends_the_start_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "mr.db").write_text("no database, but long enough to be looked at " * 10)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(bind="127.0.0.1:0")],
        env={**os.environ, "MR_STORE": f"sqlite:///{tmp_path}/mr.db"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ran.returncode not in (0, None)
    assert "Traceback" not in ran.stderr
    assert f"{tmp_path}/mr.db" in ran.stderr
