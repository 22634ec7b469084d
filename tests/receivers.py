"""Servers for what mr sends, on the loopback and real: one takes mail, one takes POSTs."""

from __future__ import annotations

import email
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller

from tests.servers import free_ports


class Mail(NamedTuple):
    """One mail as a server got it."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    raw: bytes


class MailServer:
    """`answers` are given to the next mails instead of taking them; `refuses` are recipients."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.answers: list[str] = []
        self.refuses: set[str] = set()
        self.port = 0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refuses:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.answers:
            return self.answers.pop(0)
        message = email.message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.mails.append(Mail(envelope.mail_from, envelope.rcpt_tos, message, envelope.content))
        return "250 OK"


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """A mail server on a free port."""
    server = MailServer()
    (server.port,) = free_ports(1)
    controller = Controller(server, hostname="127.0.0.1", port=server.port)
    controller.start()
    try:
        yield server
    finally:
        controller.stop()


class Posted(NamedTuple):
    """One request as a web server got it."""

    path: str
    headers: dict[str, str]
    body: bytes


class Listener:
    """Takes every request and answers 204; `answers` are given first: status and body."""

    def __init__(self) -> None:
        self.posted: list[Posted] = []
        self.answers: list[tuple[int, bytes]] = []
        self.headers: dict[str, str] = {}
        self.port = 0
        self.came = threading.Condition()

    def wait(self, count: int) -> list[Posted]:
        """The first so many requests, once they are there."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.posted) >= count, 60), f"got {len(self.posted)} of {count}"
            return self.posted[:count]


@contextmanager
def listener() -> Iterator[Listener]:
    """A web server on a free port."""
    found = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with found.came:
                found.posted.append(Posted(self.path, headers, body))
                status, answer = found.answers.pop(0) if found.answers else (204, b"")
                found.came.notify_all()
            self.send_response(status)
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
