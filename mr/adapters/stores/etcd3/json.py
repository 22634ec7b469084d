"""What is said to etcd v3, as JSON: our transactions in, its answers out.

The official gateway speaks protobuf's JSON: keys and values are base64, 64-bit integers come as strings, and
fields that are false, zero or empty are absent. Answers are decoded into the few fields that we read. Requests are
put together by hand, since a commit of a hundred puts is on the hot path and every operation looks the same:

    {"compare": [{"key": …, "target": "CREATE", "create_revision": "0"}],
     "success": [{"request_put": {"key": …, "value": …}}, {"request_range": {"key": …, "count_only": true}}],
     "failure": [{"request_range": {"key": …, "count_only": true}}]}
"""

from __future__ import annotations

from binascii import b2a_base64

import msgspec

from mr.adapters.stores.etcd3.messages import (
    NO_HEADER,
    DeleteAnswer,
    Header,
    KeyValue,
    LeaseAnswer,
    RangeAnswer,
    Span,
    TransactionAnswer,
    key_bytes,
    span,
)
from mr.ports.store import Absent, At, Equals, Put, Transaction


class KeepAnswer(msgspec.Struct, frozen=True):
    """The first message of the keep-alive stream."""

    result: LeaseAnswer = LeaseAnswer()


class StatusAnswer(msgspec.Struct, frozen=True, rename={"db_size": "dbSize", "db_size_in_use": "dbSizeInUse"}):
    """Version and sizes of one member."""

    version: str = ""
    db_size: int = 0
    db_size_in_use: int = 0


class Alarm(msgspec.Struct, frozen=True):
    """A member that raised an alarm; etcd lifts it only for the member that is named."""

    memberID: int = 0
    alarm: str = "NONE"


class AlarmAnswer(msgspec.Struct, frozen=True):
    """The alarms that are raised."""

    alarms: list[Alarm] = []


class TokenAnswer(msgspec.Struct, frozen=True):
    """A token that a login gave."""

    token: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Body of an answer other than 200; `code` is gRPC's."""

    message: str = ""
    code: int = 0


class Event(msgspec.Struct, frozen=True, gc=False):
    """One change that a watch saw."""

    kv: KeyValue
    type: str = "PUT"


class WatchResult(msgspec.Struct, frozen=True):
    """What one line of a watch holds when it is no error."""

    header: Header = NO_HEADER
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[Event] = []


class StreamError(msgspec.Struct, frozen=True):
    """Why a stream ended."""

    message: str = ""


class WatchAnswer(msgspec.Struct, frozen=True):
    """One line of the watch stream."""

    result: WatchResult | None = None
    error: StreamError | None = None


# Where nothing is asked but that it was done.
read_nothing = msgspec.json.Decoder(msgspec.Raw).decode
# strict=False is what turns "17" into 17.
read_range = msgspec.json.Decoder(RangeAnswer, strict=False).decode
read_transaction = msgspec.json.Decoder(TransactionAnswer, strict=False).decode
read_deletion = msgspec.json.Decoder(DeleteAnswer, strict=False).decode
read_lease = msgspec.json.Decoder(LeaseAnswer, strict=False).decode
_read_keep = msgspec.json.Decoder(KeepAnswer, strict=False).decode
read_status = msgspec.json.Decoder(StatusAnswer, strict=False).decode
read_alarms = msgspec.json.Decoder(AlarmAnswer, strict=False).decode
read_token = msgspec.json.Decoder(TokenAnswer, strict=False).decode
read_refusal = msgspec.json.Decoder(Refusal, strict=False).decode
read_watch = msgspec.json.Decoder(WatchAnswer, strict=False).decode


def write_range(asked: Span) -> bytes:
    """Body of a range request, and of a deletion."""
    fields = [b'{"key":"%b"' % b2a_base64(asked.first, newline=False)]
    if asked.end:
        fields.append(b'"range_end":"%b"' % b2a_base64(asked.end, newline=False))
    if asked.limit:
        fields.append(b'"limit":%d' % asked.limit)
    if asked.keys_only:
        fields.append(b'"keys_only":true')
    if asked.count_only:
        fields.append(b'"count_only":true')
    return b",".join(fields) + b"}"


def write_ttl(ttl: int) -> bytes:
    """Body of a grant, for so many seconds."""
    return b'{"TTL":%d}' % ttl


def write_lease(lease: int) -> bytes:
    """Body of what is said of a lease."""
    return b'{"ID":%d}' % lease


def write_transaction(transaction: Transaction) -> bytes:
    """Body of a transaction that was checked."""
    compare: list[bytes] = []
    for condition in transaction.conditions:
        name = b2a_base64(key_bytes(condition.key), newline=False)
        if type(condition) is Absent:
            compare.append(b'{"key":"%b","target":"CREATE","create_revision":"0"}' % name)
        elif type(condition) is Equals:
            value = b2a_base64(condition.value, newline=False)
            compare.append(b'{"key":"%b","target":"VALUE","value":"%b"}' % (name, value))
        elif type(condition) is At:
            # To etcd an absent key has revision 0; for us an entry must exist.
            compare.append(b'{"key":"%b","target":"MOD","mod_revision":%d}' % (name, condition.version or -1))

    success: list[bytes] = []
    for operation in transaction.operations:
        name = b2a_base64(key_bytes(operation.key), newline=False)
        if type(operation) is Put:
            value = b2a_base64(operation.value, newline=False)
            if operation.lease is None:
                success.append(b'{"request_put":{"key":"%b","value":"%b"}}' % (name, value))
            else:
                success.append(
                    b'{"request_put":{"key":"%b","value":"%b","lease":%d}}' % (name, value, operation.lease.id)
                )
        else:
            success.append(b'{"request_delete_range":{"key":"%b"}}' % name)

    questions = [Span(*span(prefix), count_only=True) for prefix in transaction.counts]
    questions += [Span(key_bytes(key)) for key in transaction.reads]
    failure = [b'{"request_range":%b}' % write_range(question) for question in questions]
    success += failure
    return b'{"compare":[%b],"success":[%b],"failure":[%b]}' % (
        b",".join(compare),
        b",".join(success),
        b",".join(failure),
    )


def read_keep(data: bytes) -> LeaseAnswer:
    """The first message of the keep-alive stream."""
    return _read_keep(data).result
