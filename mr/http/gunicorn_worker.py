"""gunicorn's gevent worker, without monkey-patching, and with an end that keeps nobody waiting.

The stock worker patches the whole standard library, so that every lock and socket of every library becomes a
switch point, and blocking C code (SQLite) still stops all clients. Here only what serves HTTP is cooperative: the
listening sockets are gevent's, and so are the connections that they accept. Everything else runs in native threads
(`threads.py`).

A request whose head was seen before is served without gunicorn's parser (`heads.py`), by the same application, and
its answer is gunicorn's too.

At the end (SIGTERM, SIGINT) waiting clients are answered with the ids of their requests, connections on which no
request has begun are closed, and what is being answered is finished.

Nobody holds a place for ever: whoever takes too long to ask is left, and so is whoever does not take the answer.
"""

from __future__ import annotations

import errno
import gc
import logging
import signal
import sys
import time
from types import FrameType
from typing import Any

import gevent
from gevent import socket
from gunicorn.http.errors import NoMoreData
from gunicorn.http.wsgi import Response
from gunicorn.util import close
from gunicorn.workers.ggevent import GeventWorker

from mr.http.app import EXTENSION
from mr.http.heads import Heads, Known, Parser

_log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.000_5
"""How long a native thread may keep the event loop from running Python; the interpreter's own 5 ms is felt."""
IDLE_S = 0.5
"""At the end: how long a connection may still begin a request."""
SEND_S = 60.0
"""How long a client may take for one piece of its answer, of half a megabyte at most."""


_ELABORATE = (
    *("certfile", "keyfile", "ssl_context", "protocol", "proxy_protocol", "http2_cleartext"),
    *("accesslog", "logconfig", "logconfig_dict", "logconfig_json", "logger_class", "statsd_host", "syslog"),
    *("pre_request", "post_request", "max_requests"),
)
"""Settings of gunicorn that have a say in each connection or request: where one is used, gunicorn serves alone."""

SMALL_BYTES = 16 * 1024
GARBAGE_EVERY = 20_000
"""New containers between two looks for garbage. Nearly nothing here is cyclic: 10,000 waiting clients are looked at
in vain."""


class Worker(GeventWorker):  # type: ignore[misc]  # gunicorn brings no types
    """One process of the front end."""

    sockets: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[_Patience] = set()
        self._heads = Heads()
        settings = self.cfg.settings
        self._is_plain = bool(self.cfg.keepalive) and all(
            settings[name].get() == settings[name].default for name in _ELABORATE if name in settings
        )

    def patch(self) -> None:
        """Make the listening sockets cooperative, and nothing else."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.sockets = [
            socket.socket(listener.FAMILY, socket.SOCK_STREAM, fileno=listener.sock.detach())
            for listener in self.sockets
        ]

    def load_wsgi(self) -> None:
        """Load the application, and let the garbage collector look less often, and never at what lives for ever."""
        super().load_wsgi()
        gc.freeze()
        gc.set_threshold(GARBAGE_EVERY)

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
        """How long a connection may take to begin a request and send its headers; looked after once a second."""
        return _Patience(self, self._idle)

    def patience_s(self) -> float:
        """How long that is now."""
        return float(self.cfg.keepalive) if self.alive else IDLE_S

    def notify(self) -> None:
        """Called once a second: tell the master that we live, and leave those who have taken too long."""
        super().notify()
        now = time.monotonic()
        self._leave([patience for patience in self._idle if patience.ends_at <= now])

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection, as gunicorn does, but with a parser that knows heads again."""
        if not self._is_plain:
            super().handle(listener, client, addr)
            return
        request = None
        try:
            client.setblocking(True)
            name = listener.getsockname()
            parser = Parser(self.cfg, client, addr, name, self._heads)
            patience = self.timeout_ctx()
            while True:
                request = None
                with patience:
                    request = next(parser)
                if request is None:
                    break
                self.handle_request(name, request, client, addr)
        except (NoMoreData, StopIteration):
            pass  # the client is done, or the last answer said that it must be
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN):
                self.log.exception("Socket error processing request.")
        except BaseException as error:
            self.handle_error(request, client, addr, error)
        finally:
            close(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Serve one request. Whoever does not take the answer is left; its result stays for another time."""
        # For sending it is the time of a whole piece. The body of the request has a shorter time of its own.
        sock.settimeout(SEND_S)
        try:
            if isinstance(req, Known):
                self._serve(req, sock)
            else:
                super().handle_request(listener_name, req, sock, addr)
        except TimeoutError:
            _log.warning("a client at %s did not take its answer: nothing was read for %g s", addr, SEND_S)
            raise StopIteration from None  # the caller closes the connection, as at the end of any other

    def _serve(self, request: Known, sock: Any) -> None:
        """What gunicorn's `handle_request` does, without the hooks and logs that nobody has asked for."""
        joined = _Joined(sock)
        response = Response(request, joined, self.cfg)
        if not self.alive:
            response.force_close()
        try:
            pieces = self.wsgi(request.environ, response.start_response)
            try:
                for piece in pieces:
                    response.write(piece)
                response.close()
                joined.flush()
            finally:
                if hasattr(pieces, "close"):
                    pieces.close()
        except (gevent.GreenletExit, SystemExit):
            raise StopIteration from None  # the process ends and waits no longer
        except OSError:
            raise
        except Exception:
            if not joined.has_sent:
                raise
            # The answer has begun, so that no other one can be given: the client must see that it breaks off.
            self.log.exception("Error handling request")
            raise StopIteration from None
        if response.should_close():
            raise StopIteration

    def _drain(self) -> None:
        idle = list(self._idle)
        app = getattr(self, "wsgi", None)
        if app is not None:
            app.extensions[EXTENSION].drain()
        gevent.sleep(IDLE_S)
        self._leave(idle)

    def _leave(self, idle: list[_Patience]) -> None:
        for patience in idle:
            gevent.get_hub().loop.run_callback(patience.end)


class _Joined:
    """The socket of one answer, on which the head goes out together with the beginning of the body."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._head: bytes | None = None
        self.has_sent = False

    def sendall(self, data: bytes) -> None:
        """Send, unless it is the head."""
        if self._head is None:
            self._head = data
            return
        self.has_sent = True
        if self._head:
            data, self._head = self._head + data, b""
        # `sendall` asks the kernel for the size of its buffer first, which a small answer fits anyway.
        rest = data[self._sock.send(data) :] if len(data) <= SMALL_BYTES else data
        if rest:
            self._sock.sendall(rest)

    def flush(self) -> None:
        """Send a head that nothing followed."""
        if self._head:
            self.sendall(b"")


class _Patience(BaseException):
    """A timeout of one connection that ends its block silently, and may be entered again and again.

    It has no timer of its own: that would cost each request more than reading it does.
    """

    def __init__(self, worker: Worker, register: set[_Patience]) -> None:
        super().__init__()
        self._worker, self._register = worker, register
        self._greenlet = gevent.getcurrent()
        self.ends_at = 0.0

    def end(self) -> None:
        """Let the time be over, if the block still runs. Called by the event loop, as timers are."""
        if self in self._register:
            self._greenlet.throw(self)

    def __enter__(self) -> _Patience:
        self.ends_at = time.monotonic() + self._worker.patience_s()
        self._register.add(self)
        return self

    def __exit__(self, kind: object, raised: object, trace: object) -> bool:
        self._register.discard(self)
        return raised is self
