"""Heads that gunicorn has parsed before: the same bytes again need no second parse.

A client that posts jobs sends the same head each time, but for the length of the body. gunicorn's parser, which
is written in Python, and the environment that it makes were a third of what a small job cost the front end. So what
came of a head is kept, under the very bytes of the head without the digits of its Content-Length, and a head that is
found there is served from a copy. Everything else, and every head for the first time, is parsed by gunicorn.

The hard part is that this must never see another request than gunicorn would (request smuggling). So nothing here
reads a header: only heads are kept that gunicorn took, of a POST with one Content-Length, on a connection that stays
open; they are kept for one listener and one peer, since gunicorn trusts some peers more; and they are looked for only
where a request begins, which is after a body whose length was known and that has been read.
"""

from __future__ import annotations

import io
import re
from typing import Any

from gunicorn.http import wsgi
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.parser import RequestParser

KEPT_MAX = 4000
HEAD_MAX_BYTES = 1024
"""Together this is some 20 MB at worst."""

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9})\r\n", re.IGNORECASE)

Environ = dict[str, Any]


class Heads:
    """Environments by the heads that they were made of. When there are too many, it begins anew."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Environ] = {}

    def get(self, head: bytes) -> Environ | None:
        """What was kept for a head."""
        return self._kept.get(head)

    def keep(self, head: bytes, environ: Environ) -> None:
        """Keep what was made of a head."""
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        self._kept[head] = environ


class Known:
    """A request whose head was known, with a copy of its environment. For gunicorn it is a request like any other."""

    method, version = "POST", (1, 1)
    body: Any = None

    def __init__(self, environ: Environ) -> None:
        self.environ = environ

    def should_close(self) -> bool:
        """Such a connection stays open, unless the server wants its end."""
        return False


class Parser(RequestParser):  # type: ignore[misc]  # gunicorn brings no types
    """The requests of one connection: known ones, and gunicorn's."""

    def __init__(self, cfg: Any, connection: Any, peer: Any, listener: Any, heads: Heads) -> None:
        super().__init__(cfg, connection, peer)
        self.mesg: Any = None
        self._connection, self._peer, self._listener, self._heads = connection, peer, listener, heads
        host = peer if isinstance(peer, str | bytes) else peer[0]
        self._prefix = f"{listener} {host!r}\n".encode()

    def __next__(self) -> Any:
        """The next request. Raises: StopIteration when there is none; what gunicorn's parser does."""
        if not self._is_at_start():
            return super().__next__()
        data = self.unreader.read()
        head, length, body = self._parted(data)
        environ = self._heads.get(head) if head else None
        if environ is not None:
            return self._known(environ, length, body)
        self.unreader.unread(data)
        request = super().__next__()
        if head and _is_plain(request):
            self._heads.keep(head, self._environ(request))
        return request

    def _is_at_start(self) -> bool:
        """Whether the next byte is the first one of a request, since nothing is left of the one before."""
        last = self.mesg
        return last is None or (not last.should_close() and getattr(last.body.reader, "length", None) == 0)

    def _parted(self, data: bytes) -> tuple[bytes, bytes, bytes]:
        """What a head is known by, the length that it gives, and what follows it; empty if it cannot be known."""
        end = data.find(_END, 0, HEAD_MAX_BYTES) + len(_END)
        if end < len(_END) or not data.startswith(b"POST "):
            return b"", b"", b""
        length = _LENGTH.search(data, 0, end)
        if length is None:
            return b"", b"", b""
        return self._prefix + data[: length.start(1)] + data[length.end(1) : end], length[1], data[end:]

    def _known(self, environ: Environ, length: bytes, body: bytes) -> Known:
        size = int(length)
        request = Known({**environ, "CONTENT_LENGTH": length.decode(), "gunicorn.socket": self._connection})
        if isinstance(self._peer, tuple):
            request.environ["REMOTE_PORT"] = str(self._peer[1])
        if len(body) < size:
            self.unreader.unread(body)
            self.mesg = request
            request.body = request.environ["wsgi.input"] = Body(LengthReader(self.unreader, size))
        else:
            self.unreader.unread(body[size:])
            self.mesg = None  # nothing is left of it
            request.environ["wsgi.input"] = io.BytesIO(body[:size])
        return request

    def _environ(self, request: Any) -> Environ:
        """What gunicorn makes of a request, as far as it is the same for each one with this head."""
        _, environ = wsgi.create(request, self._connection, self._peer, self._listener, self.cfg)
        for own in ("wsgi.input", "gunicorn.socket", "wsgi.early_hints", "CONTENT_LENGTH", "REMOTE_PORT"):
            environ.pop(own, None)
        environ["wsgi.multithread"] = True  # as gunicorn's gevent worker says
        return dict(environ)


def _is_plain(request: Any) -> bool:
    """Whether a request that gunicorn has parsed says nothing but how long its body is."""
    return (
        request.method == "POST"
        and request.version == (1, 1)
        and isinstance(request.body.reader, LengthReader)
        and not request.should_close()
        and all(name != "EXPECT" for name, _ in request.headers)
    )
