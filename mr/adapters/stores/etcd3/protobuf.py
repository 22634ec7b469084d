"""What is said to etcd v3, as protobuf: our transactions in, its answers out.

    message = fields, each a tag and a value;  tag = number << 3 | kind
    kind 0: a varint, 7 bits a byte, low ones first;  kind 2: a length as varint, and so many bytes

Fields that are 0, false or empty are left out. The tags stand here as they are on the wire, beside the names that
etcd's `rpc.proto` and `kv.proto` give them. A commit of a hundred puts is on the hot path, so requests are put
together by hand. None of the numbers that we read can be negative.
"""

from __future__ import annotations

from typing import Any

from mr.adapters.stores.etcd3.messages import (
    NO_HEADER,
    DeleteAnswer,
    Header,
    KeyValue,
    LeaseAnswer,
    RangeAnswer,
    Response,
    Span,
    TransactionAnswer,
    key_bytes,
    span,
)
from mr.ports.store import Absent, At, Equals, Put, Transaction

# Most lengths are short; a table is three times as fast as counting them out.
_SHORT = [bytes((low,)) for low in range(128)] + [bytes((n & 0x7F | 0x80, n >> 7)) for n in range(128, 2048)]
_DONE = Response()


def _varint(number: int) -> bytes:
    if number < 2048:
        return _SHORT[number]
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _fields(data: bytes) -> list[tuple[int, Any]]:
    """Tags and values of a message: numbers for kind 0, bytes for kind 2.

    Raises: ValueError if it is cut off.
    """
    found: list[tuple[int, Any]] = []
    at, end = 0, len(data)
    try:
        while at < end:
            tag = data[at]
            at += 1
            if tag >= 0x80:
                tag, at = _rest(data, at, tag)
            kind = tag & 7
            if kind == 2:
                size = data[at]
                at += 1
                if size >= 0x80:
                    size, at = _rest(data, at, size)
                start, at = at, at + size
                found.append((tag, data[start:at]))
            elif kind == 0:
                number = data[at]
                at += 1
                if number >= 0x80:
                    number, at = _rest(data, at, number)
                found.append((tag, number))
            elif kind in (1, 5):
                at += 8 if kind == 1 else 4
            else:
                raise ValueError(f"a field of protobuf has the unknown kind {kind}")
    except IndexError as error:
        raise ValueError("a message of protobuf is cut off") from error
    if at != end:
        raise ValueError("a message of protobuf is cut off")
    return found


def _rest(data: bytes, at: int, first: int) -> tuple[int, int]:
    """A varint whose first byte says that more follow, and where it ends."""
    number, shift = first & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of protobuf is too big")


# Requests


def write_range(asked: Span) -> bytes:
    """RangeRequest: key 1, range_end 2, limit 3, keys_only 8, count_only 9."""
    request = b"\x0a%b%b" % (_varint(len(asked.first)), asked.first)
    if asked.end:
        request += b"\x12%b%b" % (_varint(len(asked.end)), asked.end)
    if asked.limit:
        request += b"\x18" + _varint(asked.limit)
    if asked.keys_only:
        request += b"\x40\x01"
    if asked.count_only:
        request += b"\x48\x01"
    return request


def write_deletion(asked: Span) -> bytes:
    """DeleteRangeRequest: key 1, range_end 2."""
    return write_range(Span(asked.first, asked.end))


def write_ttl(ttl: int) -> bytes:
    """LeaseGrantRequest: TTL 1, in seconds."""
    return b"\x08" + _varint(ttl)


def write_lease(lease: int) -> bytes:
    """LeaseKeepAliveRequest, LeaseRevokeRequest: ID 1."""
    return b"\x08" + _varint(lease)


def write_transaction(transaction: Transaction) -> bytes:
    """TxnRequest: compare 1, success 2, failure 3. Of a transaction that was checked."""
    parts: list[bytes] = []
    for condition in transaction.conditions:
        # Compare: result 1 (EQUAL is 0), target 2 (CREATE 1, MOD 2, VALUE 3), key 3, and 5, 6 or 7 with what is wanted.
        key = key_bytes(condition.key)
        if type(condition) is Absent:
            compare = b"\x10\x01\x1a%b%b\x28\x00" % (_varint(len(key)), key)
        elif type(condition) is Equals:
            value = condition.value
            compare = b"\x10\x03\x1a%b%b\x3a%b%b" % (_varint(len(key)), key, _varint(len(value)), value)
        else:
            assert type(condition) is At
            # To etcd an absent key has revision 0; for us an entry must exist. -1 is written as 2**64 - 1.
            compare = b"\x10\x02\x1a%b%b\x30%b" % (_varint(len(key)), key, _varint(condition.version or (1 << 64) - 1))
        parts.append(b"\x0a%b%b" % (_varint(len(compare)), compare))

    for operation in transaction.operations:
        # RequestOp: request_put 2 (key 1, value 2, lease 3), request_delete_range 3 (key 1).
        key = key_bytes(operation.key)
        if type(operation) is Put:
            value = operation.value
            inner = b"\x0a%b%b\x12%b%b" % (_varint(len(key)), key, _varint(len(value)), value)
            if operation.lease is not None:
                inner += b"\x18" + _varint(operation.lease.id)
            step = b"\x12%b%b" % (_varint(len(inner)), inner)
        else:
            inner = b"\x0a%b%b" % (_varint(len(key)), key)
            step = b"\x1a%b%b" % (_varint(len(inner)), inner)
        parts.append(b"\x12%b%b" % (_varint(len(step)), step))

    questions: list[bytes] = []
    for prefix in transaction.counts:
        questions.append(write_range(Span(*span(prefix), count_only=True)))
    for name in transaction.reads:
        questions.append(write_range(Span(key_bytes(name))))
    # RequestOp: request_range 1. The same in both branches.
    steps = [b"\x0a%b%b" % (_varint(len(question)), question) for question in questions]
    parts += [b"\x12%b%b" % (_varint(len(step)), step) for step in steps]
    parts += [b"\x1a%b%b" % (_varint(len(step)), step) for step in steps]
    return b"".join(parts)


# Answers


def read_nothing(data: bytes) -> None:
    """Where nothing is asked but that it was done."""


def read_range(data: bytes) -> RangeAnswer:
    """RangeResponse: header 1, kvs 2, more 3, count 4."""
    header, more, count = NO_HEADER, False, 0
    kvs: list[KeyValue] = []
    for tag, value in _fields(data):
        if tag == 0x12:
            kvs.append(_key_value(value))
        elif tag == 0x0A:
            header = _header(value)
        elif tag == 0x18:
            more = bool(value)
        elif tag == 0x20:
            count = value
    return RangeAnswer(header, kvs, count, more)


def read_transaction(data: bytes) -> TransactionAnswer:
    """TxnResponse: header 1, succeeded 2, responses 3, each of them a ResponseOp: response_range 1, or others."""
    header, succeeded = NO_HEADER, False
    responses: list[Response] = []
    for tag, value in _fields(data):
        if tag == 0x1A:
            responses.append(Response(read_range(_fields(value)[0][1])) if value[:1] == b"\x0a" else _DONE)
        elif tag == 0x0A:
            header = _header(value)
        elif tag == 0x10:
            succeeded = bool(value)
    return TransactionAnswer(header, succeeded, responses)


def read_deletion(data: bytes) -> DeleteAnswer:
    """DeleteRangeResponse: deleted 2."""
    return DeleteAnswer(dict(_fields(data)).get(0x10, 0))


def read_lease(data: bytes) -> LeaseAnswer:
    """LeaseGrantResponse, LeaseKeepAliveResponse: ID 2, TTL 3."""
    found = dict(_fields(data))
    return LeaseAnswer(found.get(0x10, 0), found.get(0x18, 0))


def _header(data: bytes) -> Header:
    """ResponseHeader: revision 3."""
    return Header(dict(_fields(data)).get(0x18, 0))


def _key_value(data: bytes) -> KeyValue:
    """KeyValue: key 1, create_revision 2, mod_revision 3, value 5."""
    found = dict(_fields(data))
    return KeyValue(found.get(0x0A, b""), found.get(0x2A, b""), found.get(0x18, 0), found.get(0x10, 0))
