"""`mr_http_notification_listen`: print the notifications that workers send by HTTP, one line for each.

What comes is anybody's: control characters are escaped, so that nobody else writes to the terminal as they like.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl

from mr.cli.output import harmless

BODY_MAX = 1024 * 1024
NAME_WIDTH = 40
LEVEL_WIDTH = 9


def line(form: Mapping[str, str]) -> str:
    """`YYYY-MM-DD HH:MM:SS  <logger, 40 wide>  <level, 9 wide>  <message>`; the time is UTC."""
    try:
        at = datetime.fromtimestamp(float(form.get("created", "")), UTC)
    except (ValueError, OverflowError, OSError):
        at = datetime.now(UTC)
    name, level, message = (harmless(form.get(field, "")) for field in ("name", "levelname", "msg"))
    return f"{at:%Y-%m-%d %H:%M:%S}  {name[:NAME_WIDTH]:<{NAME_WIDTH}}  {level:<{LEVEL_WIDTH}}  {message}"


def listening(host: str, port: int, say: Callable[[str], None]) -> ThreadingHTTPServer:
    """A server that says a line for each notification, once `serve_forever` is called. Raises: OSError."""
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self) -> None:
            try:
                length = int(self.headers.get("Content-Length", "0"))
            except ValueError:
                length = -1
            if not 0 <= length <= BODY_MAX:
                self.send_error(413 if length > 0 else 400)
                return
            self._take(self.rfile.read(length).decode("utf-8", "replace"))

        do_PUT = do_POST

        def do_GET(self) -> None:
            self._take(self.path.partition("?")[2])

        def _take(self, text: str) -> None:
            try:
                form = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=100))
            except ValueError:
                self.send_error(400)
                return
            if "msg" in form:
                with one_at_a_time:
                    say(line(form))
            self.send_response(204 if "msg" in form else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Only notifications are printed."""

    return ThreadingHTTPServer((host, port), Handler)
