"""gunicorn's gevent worker, without monkey-patching, and with an end that keeps nobody waiting.

The stock worker patches the whole standard library, so that every lock and socket of every library becomes a
switch point, and blocking C code (SQLite) still stops all clients. Here only what serves HTTP is cooperative: the
listening sockets are gevent's, and so are the connections that they accept. Everything else runs in native threads
(`threads.py`).

At the end (SIGTERM, SIGINT) waiting clients are answered with the ids of their requests, connections on which no
request has begun are closed, and what is being answered is finished.

Nobody holds a place for ever: whoever takes too long to ask is left, and so is whoever does not take the answer.
"""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType
from typing import Any

import gevent
from gevent import socket
from gunicorn.workers.ggevent import GeventWorker

from mr.http.app import EXTENSION

_log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.000_5
"""How long a native thread may keep the event loop from running Python; the interpreter's own 5 ms is felt."""
IDLE_S = 0.5
"""At the end: how long a connection may still begin a request."""
SEND_S = 60.0
"""How long a client may take for one piece of its answer, of half a megabyte at most."""


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn brings no types
    """One process of the front end."""

    sockets: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[_Patience] = set()

    def patch(self) -> None:
        """Make the listening sockets cooperative, and nothing else."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.sockets = [
            socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in self.sockets
        ]

    def init_signals(self) -> None:
        """SIGINT ends in order, as SIGTERM does; whoever cannot wait sends SIGQUIT."""
        super().init_signals()
        signal.signal(signal.SIGINT, self.handle_exit)
        signal.siginterrupt(signal.SIGINT, False)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._drain)

    def timeout_ctx(self) -> _Patience:
        """How long a connection may take to begin a request and send its headers."""
        return _Patience(self.cfg.keepalive if self.alive else IDLE_S, self._idle)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve one request. Whoever does not take the answer is left; its result stays for another time."""
        # For sending it is the time of a whole piece. The body of the request has a shorter time of its own.
        sock.settimeout(SEND_S)
        try:
            super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:
            _log.warning("a client at %s did not take its answer: nothing was read for %g s", addr, SEND_S)
            raise StopIteration from None  # the caller closes the connection, as at the end of any other

    def _drain(self) -> None:
        idle = list(self._idle)
        app = getattr(self, "wsgi", None)
        if app is not None:
            app.extensions[EXTENSION].drain()
        gevent.sleep(IDLE_S)
        for patience in idle:
            gevent.get_hub().loop.run_callback(patience.end)


class _Patience(gevent.Timeout):  # type: ignore[misc]  # gevent brings no types
    """A timeout that ends its block silently, and can be found while the block runs."""

    def __init__(self, seconds: float, register: set[_Patience]) -> None:
        super().__init__(seconds, False)
        self._greenlet = gevent.getcurrent()
        self._register = register

    def end(self) -> None:
        """Let the time be over, if the block still runs. Called by the event loop, as timers are."""
        if self in self._register:
            self._greenlet.throw(self)

    def __enter__(self) -> _Patience:
        self._register.add(self)
        entered: _Patience = super().__enter__()
        return entered

    def __exit__(self, *raised: Any) -> bool | None:
        self._register.discard(self)
        silenced: bool | None = super().__exit__(*raised)
        return silenced
