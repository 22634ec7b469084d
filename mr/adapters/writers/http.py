"""Results by HTTP: one POST for each request, with the pairs as a JSON list, or as a line for each.

The body is put together first, beyond a megabyte in a temporary file, and sent from there with its length: what is
sent is whole, whatever becomes of the store meanwhile, no result has to fit into memory, and servers that know nothing
of chunked bodies get along.

A repeat is the same POST with the same `Idempotency-Key`, the id of the request; for whoever receives it that is the
way to see that a result has come before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import chain
from typing import IO, Any

import urllib3

from mr.addresses import HttpUrl
from mr.codec import Items
from mr.errors import NotDelivered
from mr.ports.result_writer import Origin, ResultWriter

CONNECT_S = 10.0
ANSWER_S = 60.0
MEMORY_MAX = 1024 * 1024
"""Bytes of a body that are kept in memory."""
EXCERPT = 300
_TYPES = {"json": "application/json", "ndjson": "application/x-ndjson"}


class HttpWriter(ResultWriter):
    """Posts to one URL. `form` is json or ndjson."""

    name = "http"

    def __init__(self, url: HttpUrl, form: str = "json") -> None:
        self._url, self._form = url, form
        self._login = urllib3.make_headers(basic_auth=f"{url.username}:{url.password}") if url.username else {}

    def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any]:
        """One POST; an answer that is not 2xx, a redirect too, is a write that failed."""
        with tempfile.SpooledTemporaryFile(MEMORY_MAX) as body:
            (_fill_lines if self._form == "ndjson" else _fill_list)(body, pairs)
            length = body.tell()
            body.seek(0)
            headers = {
                "Content-Type": _TYPES[self._form],
                "Content-Length": str(length),
                "X-REQUEST-ID": origin.request_id,
                "X-WORKFLOW-NAME": origin.workflow,
                "X-JOB-NAME": origin.job,
                "Idempotency-Key": origin.request_id,
                **self._login,
            }
            return {"url": self._url.address, "status": self._post(headers, body)}

    def _post(self, headers: dict[str, str], body: IO[bytes]) -> int:
        timeout = urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S)
        with urllib3.PoolManager(num_pools=1) as pool:
            try:
                answer = pool.request(
                    "POST", self._url.address, body=body, headers=headers, timeout=timeout,
                    retries=False, redirect=False, preload_content=False,
                )  # fmt: skip
                excerpt = answer.read(EXCERPT)
                answer.close()
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise NotDelivered(f"{self._url.address}: {error}") from error
        if not 200 <= answer.status < 300:
            said = " ".join(excerpt.decode("utf-8", "replace").split())
            raise NotDelivered(f"{self._url.address} answers {answer.status}" + (f": {said}" if said else ""))
        return answer.status


def _fill_list(body: IO[bytes], pairs: Iterator[Items]) -> None:
    separator = b"["
    for pair in chain.from_iterable(pairs):
        body.write(separator + pair)
        separator = b","
    body.write(b"[]" if separator == b"[" else b"]")


def _fill_lines(body: IO[bytes], pairs: Iterator[Items]) -> None:
    for pair in chain.from_iterable(pairs):
        body.write(pair + b"\n")
