"""The small HTTP/1 of the etcd v3 adapter: bytes in any pieces."""

from __future__ import annotations

import pytest

from mr.adapters.stores.etcd3.http import Chunks, Head

CHUNKED = b'4\r\n{"a"\r\n5;x=y\r\n:1}\r\n\r\n0\r\nGrpc-Trailer-Content-Type: application/grpc\r\n\r\n'


@pytest.mark.parametrize("size", range(1, len(CHUNKED) + 1))
def test_a_chunked_body_is_read_whatever_pieces_it_comes_in(size: int):
    chunks = Chunks()
    body = b""
    for start in range(0, len(CHUNKED), size):
        assert not chunks.ended
        body += chunks.feed(CHUNKED[start : start + size])
    assert body == b'{"a":1}\r\n'
    assert chunks.ended


def test_a_head_says_how_long_the_body_is():
    head = Head.parse(b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 12\r\nConnection: Close")
    assert head == Head(status=200, length=12, chunked=False, closes=True)
    head = Head.parse(b"HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked")
    assert head == Head(status=429, length=None, chunked=True, closes=False)
