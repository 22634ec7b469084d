"""Clients that wait: one thread, one selector, a connection and a job for each.

Each posts its number and has to be told its square. One that is told to come back does: after 503 it posts again,
after 202 it asks for the result. A machine has some 28,000 ports for one source address to one server, so the
clients come from several addresses of the loopback.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
import time
from collections import Counter, deque
from typing import Any

from mr.errors import ConfigError

FROM_EACH_ADDRESS = 5000
OPENING_MAX = 500
"""Connections that are opened but not accepted yet: fewer than fit the line of the listening socket."""
AGAIN_S = 1.0


class Client:
    """One of them. `answered` is what it was told in the end, None as long as it waits."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.socket: socket.socket | None = None
        self.received = bytearray()
        self.request_id = ""
        self.answered: Any = None

    def request(self, workflow: str, job: str) -> bytes:
        """What it says next: the job, or the question for the result of the one that it has posted."""
        if self.request_id:
            path = f"/request/{workflow}/{self.request_id}/result"
            return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
        body = json.dumps({"arguments": {"number": self.number}})
        head = f"POST /job/{workflow}/{job} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        return f"{head}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def read(self) -> int | None:
        """Take in what has come; the status once the answer is whole, 0 if the connection broke before."""
        assert self.socket is not None
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        except OSError:
            return 0
        self.received += data
        head, end, body = bytes(self.received).partition(b"\r\n\r\n")
        if data and not (end and len(body) >= int(header(head, "content-length") or 0)):
            return None
        if not end:
            return 0
        self.request_id = header(head, "x-mr-request-id") or self.request_id
        status = int(head[9:12])
        if status in (200, 500):
            self.answered = json.loads(body)
        return status


class Crowd:
    """`count` clients of one front end. `answers` counts what they were told, by status, 0 for a broken connection."""

    def __init__(self, port: int, workflow: str, job: str, count: int) -> None:
        self._port, self._workflow, self._job = port, workflow, job
        self.clients = [Client(number) for number in range(count)]
        self.answers: Counter[int] = Counter()
        self._selector = selectors.DefaultSelector()
        self._to_open = deque(self.clients)
        self._come_back: deque[tuple[float, Client]] = deque()
        self._opening = 0
        _allow_files(count + 100)

    @property
    def waiting(self) -> int:
        """Clients whose question was sent and not answered."""
        return len(self._selector.get_map()) - self._opening

    @property
    def left(self) -> int:
        """Clients that have no last answer."""
        return sum(client.answered is None for client in self.clients)

    def turn(self, timeout_s: float) -> None:
        """Do what can be done now, and wait for something to do at most so long."""
        now = time.monotonic()
        while self._come_back and self._come_back[0][0] <= now:
            self._to_open.append(self._come_back.popleft()[1])
        while self._to_open and self._opening < OPENING_MAX:
            self._open(self._to_open.popleft())
        for key, events in self._selector.select(timeout_s):
            client: Client = key.data
            if events & selectors.EVENT_WRITE:
                self._ask(client)
            elif (status := client.read()) is not None:
                self._done(client, status)

    def close(self) -> None:
        """Hang up, whoever still waits."""
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()

    def _open(self, client: Client) -> None:
        client.received.clear()
        client.socket = socket.socket()
        client.socket.setblocking(False)
        # The address is chosen here, its port only when it is connected: then it has to be free for this pair alone.
        client.socket.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        client.socket.bind((f"127.0.0.{2 + client.number // FROM_EACH_ADDRESS}", 0))
        client.socket.connect_ex(("127.0.0.1", self._port))
        self._selector.register(client.socket, selectors.EVENT_WRITE, client)
        self._opening += 1

    def _ask(self, client: Client) -> None:
        assert client.socket is not None
        self._opening -= 1
        try:
            client.socket.sendall(client.request(self._workflow, self._job))
        except OSError:
            self._done(client, 0)
        else:
            self._selector.modify(client.socket, selectors.EVENT_READ, client)

    def _done(self, client: Client, status: int) -> None:
        assert client.socket is not None
        self._selector.unregister(client.socket)
        client.socket.close()
        self.answers[status] += 1
        if client.answered is None:
            self._come_back.append((time.monotonic() + AGAIN_S, client))


def header(head: bytes, name: str) -> str:
    """A header's value, empty if there is none."""
    for line in head.decode("latin-1").split("\r\n")[1:]:
        found, _, value = line.partition(":")
        if found.lower() == name:
            return value.strip()
    return ""


def _allow_files(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise ConfigError([f"{count} connections need as many files, this system allows {hard}: see ulimit -Hn"])
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
