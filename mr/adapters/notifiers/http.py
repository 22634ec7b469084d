"""Notices by HTTP, as JobX sent them: the fields of a log record, as a form.

Listeners read `name`, `levelname`, `msg` and `created`; `msg` is the whole text, with the traceback of an error.
"""

from __future__ import annotations

from urllib.parse import urlencode

import urllib3

from mr.addresses import HttpUrl
from mr.errors import NotDelivered
from mr.ports.notifier import LEVELS, Notice, Notifier

TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)


class HttpNotifier(Notifier):
    """Sends to one URL; by `get` the fields go into the query, else into the body."""

    name = "http"

    def __init__(self, url: HttpUrl, verb: str = "post") -> None:
        self._url, self._verb = url.address, verb.upper()

    def notify(self, notice: Notice) -> None:
        """One request."""
        form = {
            "name": notice.name,
            "levelname": notice.level.upper(),
            "levelno": str(LEVELS[notice.level]),
            "msg": "\n".join(part for part in (notice.text, notice.traceback or notice.message) if part),
            "created": f"{notice.at:.6f}",
            "workflow": notice.workflow,
            "request": notice.request,
            "invocation": notice.invocation,
            "handler": notice.handler,
        }
        text = urlencode(form)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            with urllib3.PoolManager(num_pools=1) as pool:
                answer = pool.urlopen(
                    self._verb,
                    f"{self._url}?{text}" if self._verb == "GET" else self._url,
                    body=None if self._verb == "GET" else text.encode(),
                    headers={} if self._verb == "GET" else headers,
                    timeout=TIMEOUT, retries=False, redirect=False, preload_content=False,
                )  # fmt: skip
                answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NotDelivered(f"{self._url}: {error}") from error
        if not 200 <= answer.status < 300:
            raise NotDelivered(f"{self._url} answers {answer.status}")
