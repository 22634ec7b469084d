"""Answers with results: small ones in one piece, big ones as they are read.

A result may be far bigger than the memory of a front end, so it is passed on piece by piece, and never parsed.
A result counts as delivered when its last byte was handed to the kernel; only then may its request go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from flask import Response

from mr.http.errors import JSON, RETRY_AFTER_S, header_safe
from mr.services.placement import Placement

PIECE_BYTES = 256 * 1024
"""What is shorter goes out with its length, in one piece."""

RETRY_DESERTED_S = "10"
"""Where no worker runs, nothing can end before somebody starts one; clients that ask each second would only be load."""

_HEAD, _TAIL = b'{"result": {"pairs": [', b"]}}"


def pending(status: int, placement: Placement) -> Response:
    """No result: not waited for (200), or not there yet (202). `placement`: why it may take long."""
    answer = Response(b'{"result": null}', status, content_type=JSON)
    if warning := str(placement):
        answer.headers["X-MR-WARNING"] = header_safe(warning)
    if status == 202:
        answer.headers["Retry-After"] = RETRY_DESERTED_S if placement.is_deserted else RETRY_AFTER_S
    return answer


def written() -> Response:
    """The result was put elsewhere by a writer; nothing of it is answered."""
    return Response(b'{"result": {}}', content_type=JSON)


def result(pieces: Iterable[bytes], on_delivered: Callable[[], None]) -> Response:
    """The pairs of a request that succeeded; each piece is `pair,pair,…` in JSON.

    Raises: what reading the first pieces raises.
    """
    parts = _document(pieces)
    head: list[bytes] = []
    size = 0
    for part in parts:
        head.append(part)
        size += len(part)
        if size > PIECE_BYTES:
            return Response(sent([b"".join(head)], parts, on_delivered), content_type=JSON)
    answer = Response(sent([b"".join(head)], (), on_delivered), content_type=JSON)
    answer.content_length = size
    return answer


def small(pairs: bytes) -> bytes:
    """The document of a result whose pairs are at hand."""
    return _HEAD + pairs + _TAIL


def about(request_id: str, host: str) -> list[tuple[str, str]]:
    """JobX's two headers, on every answer about a request that exists or may exist."""
    return [("X-MR-REQUEST-ID", request_id), ("X-FULFILLED-BY", host)]


def _document(pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield _HEAD
    comma = False
    for piece in pieces:
        if piece:
            if comma:
                yield b","
            yield piece
            comma = True
    yield _TAIL


def sent(head: Iterable[bytes], rest: Iterable[bytes], on_delivered: Callable[[], None]) -> Iterator[bytes]:
    """Bytes as the server asks for them, and word of it when it has had all."""
    yield from head
    yield from rest
    # The server asks for more only after it has sent what it had.
    on_delivered()
