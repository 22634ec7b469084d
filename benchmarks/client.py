"""The HTTP client of all contestants: a process of its own, one thread, any number of kept connections.

    python -m benchmarks.client < plan.json > outcome.json

Each connection posts again as soon as it has its answer. The client must cost little, because it shares the cores
with what it measures: requests are bytes made once, one selector serves all connections, answers are only collected.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

from benchmarks.processes import HOST, BenchmarkError

DRAIN_S = 60.0
"""How long the last answers may take."""
ROOT = Path(__file__).resolve().parent.parent


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`body` is posted to `path` over `connections`: `count` times in all, or for `seconds`."""

    port: int
    path: str
    body: str
    connections: int = 1
    count: int | None = None
    seconds: float | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came back.

    `latencies_ms` of all answers, `in_time` of which came within `seconds`. `answers` counts the distinct ones, as
    `<status> <body>`. `request_id` is that of the last answer, empty where the server sends none.
    """

    latencies_ms: list[float]
    in_time: int
    seconds: float
    answers: dict[str, int]
    request_id: str
    cpu_s: float


class _Connection:
    """One kept connection with at most one request on it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._received = bytearray()
        self._is_fresh = True
        self.sent_at = 0.0
        self.socket = self._connect()

    def _connect(self) -> socket.socket:
        made = socket.create_connection((HOST, self._port), timeout=DRAIN_S)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._is_fresh = True
        return made

    def send(self, request: bytes) -> None:
        self.socket.sendall(request)

    def receive(self) -> tuple[bytes, bytes] | None:
        """Head and body of an answer, None while it is not complete.

        Raises: ConnectionResetError if the server closed the connection first.
        """
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the server closed the connection before it answered")
        received = self._received
        received += data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(received[: end + 2])
        length = header(head, b"content-length")
        if not length:
            raise BenchmarkError(f"an answer without Content-Length: {head!r}")
        whole = end + 4 + int(length)
        if len(received) < whole:
            return None
        body = bytes(received[end + 4 : whole])
        received.clear()
        self._is_fresh = False
        return head, body

    def reopen(self) -> None:
        """Take a new connection, as after `Connection: close`; an idle one may be closed by any server.

        Raises: BenchmarkError if nothing was ever answered on the old one.
        """
        if self._is_fresh or self._received:
            raise BenchmarkError("the server closed a connection in the middle of an answer")
        self.socket.close()
        self.socket = self._connect()


def header(head: bytes, name: bytes) -> bytes:
    """A header's value, empty if there is none."""
    lowered = head.lower()
    start = lowered.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    start += len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


def execute(plan: Plan) -> Outcome:
    """Carry out a plan in this process."""
    body = plan.body.encode()
    request = (
        f"POST {plan.path} HTTP/1.1\r\nHost: {HOST}:{plan.port}\r\nContent-Type: application/json\r\n"
        f"Accept: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    connections = [_Connection(plan.port) for _ in range(min(plan.connections, plan.count or plan.connections))]
    left = plan.count if plan.count is not None else sys.maxsize
    latencies: list[float] = []
    answers: Counter[tuple[bytes, bytes]] = Counter()
    in_time = 0
    last_head = b""
    selector = selectors.DefaultSelector()
    clock = time.perf_counter
    cpu_before = time.process_time()
    begun = clock()
    stop_at = begun + (plan.seconds if plan.seconds is not None else float("inf"))
    waiting = 0
    for one in connections:
        selector.register(one.socket, selectors.EVENT_READ, one)
        one.sent_at = clock()
        one.send(request)
        waiting, left = waiting + 1, left - 1
    while waiting:
        ready = selector.select(DRAIN_S)
        if not ready:
            raise BenchmarkError(f"{waiting} requests were not answered within {DRAIN_S:g} s")
        for key, _ in ready:
            connection: _Connection = key.data
            try:
                answer = connection.receive()
            except ConnectionResetError:
                _reopen(selector, connection)
                connection.send(request)
                continue
            if answer is None:
                continue
            now = clock()
            last_head, text = answer
            latencies.append((now - connection.sent_at) * 1000)
            answers[last_head[9:12], text] += 1
            if now <= stop_at:
                in_time += 1
            if left > 0 and now < stop_at:
                if header(last_head, b"connection").lower() == b"close":
                    _reopen(selector, connection)
                left -= 1
                connection.sent_at = clock()
                connection.send(request)
            else:
                waiting -= 1
    return Outcome(
        latencies_ms=latencies,
        in_time=in_time,
        seconds=plan.seconds if plan.seconds is not None else clock() - begun,
        answers={f"{status.decode()} {text.decode()}": count for (status, text), count in answers.items()},
        request_id=header(last_head, b"x-mr-request-id").decode(),
        cpu_s=time.process_time() - cpu_before,
    )


def _reopen(selector: selectors.BaseSelector, connection: _Connection) -> None:
    selector.unregister(connection.socket)
    connection.reopen()
    selector.register(connection.socket, selectors.EVENT_READ, connection)


def post(plan: Plan) -> Outcome:
    """Carry out a plan in a process of its own.

    Raises: BenchmarkError.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.client"], cwd=ROOT, input=msgspec.json.encode(plan), capture_output=True
    )
    if done.returncode != 0:
        raise BenchmarkError(f"the client failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return msgspec.json.decode(done.stdout, type=Outcome)


if __name__ == "__main__":
    try:
        outcome = execute(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))
    except (BenchmarkError, OSError) as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
