"""What is said to etcd v3, as JSON: our transactions in, its answers out.

The official gateway speaks protobuf's JSON: keys and values are base64, 64-bit integers come as strings, and
fields that are false, zero or empty are absent. Answers are decoded into the few fields that we read. Requests are
put together by hand, since a commit of a hundred puts is on the hot path and every operation looks the same:

    {"compare": [{"key": …, "target": "CREATE", "create_revision": "0"}],
     "success": [{"request_put": {"key": …, "value": …}}, {"request_range": {"key": …, "count_only": true}}],
     "failure": [{"request_range": {"key": …, "count_only": true}}]}

Counts and reads stand last in both branches: within a transaction etcd shows them what the branch wrote before.
"""

from __future__ import annotations

from binascii import b2a_base64

import msgspec

from mr.errors import ValueRefused
from mr.ports.store import Absent, At, Entry, Equals, Limits, Put, Transaction


class Header(msgspec.Struct, frozen=True, gc=False):
    """The revision at which etcd answered."""

    revision: int = 0


NO_HEADER = Header()


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """One entry; a deletion has the key and the revision only."""

    key: bytes
    value: bytes = b""
    mod_revision: int = 0
    create_revision: int = 0

    @property
    def name(self) -> str:
        """The key as text. Others may have written keys that are none; they must not end a listing or a watch."""
        return self.key.decode(errors="replace")

    def entry(self) -> Entry:
        return Entry(self.name, self.value, self.mod_revision, self.create_revision)


class RangeAnswer(msgspec.Struct, frozen=True):
    """Answer to a range, alone or inside a transaction."""

    header: Header = NO_HEADER
    kvs: list[KeyValue] = []
    count: int = 0
    more: bool = False


class Response(msgspec.Struct, frozen=True):
    """Answer to one operation of a transaction; those of puts and deletions say nothing of interest."""

    response_range: RangeAnswer | None = None


class TransactionAnswer(msgspec.Struct, frozen=True):
    """Answer to a transaction; one response for each operation of the branch that was taken."""

    header: Header = NO_HEADER
    succeeded: bool = False
    responses: list[Response] = []


class DeleteAnswer(msgspec.Struct, frozen=True):
    """How many keys a deletion removed."""

    deleted: int = 0


class LeaseAnswer(msgspec.Struct, frozen=True):
    """`TTL` is what etcd gives, in seconds; from a lease that is gone it is absent."""

    ID: int = 0
    TTL: int = 0


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
decode_nothing = msgspec.json.Decoder(msgspec.Raw).decode
# strict=False is what turns "17" into 17.
decode_range = msgspec.json.Decoder(RangeAnswer, strict=False).decode
decode_transaction = msgspec.json.Decoder(TransactionAnswer, strict=False).decode
decode_delete = msgspec.json.Decoder(DeleteAnswer, strict=False).decode
decode_lease = msgspec.json.Decoder(LeaseAnswer, strict=False).decode
decode_keep = msgspec.json.Decoder(KeepAnswer, strict=False).decode
decode_status = msgspec.json.Decoder(StatusAnswer, strict=False).decode
decode_alarms = msgspec.json.Decoder(AlarmAnswer, strict=False).decode
decode_token = msgspec.json.Decoder(TokenAnswer, strict=False).decode
decode_refusal = msgspec.json.Decoder(Refusal, strict=False).decode
decode_watch = msgspec.json.Decoder(WatchAnswer, strict=False).decode


def key_bytes(key: str) -> bytes:
    """A key as etcd holds it.

    Raises: ValueRefused if it is empty or no valid text.
    """
    if not key:
        raise ValueRefused("a key of the store is empty")
    try:
        return key.encode()
    except UnicodeEncodeError as error:
        raise ValueRefused(f"the key {key!r} holds a lone surrogate") from error


def span(prefix: str) -> tuple[bytes, bytes]:
    """First key and end (exclusive) of everything that starts with prefix.

    The end is the prefix with its last byte raised by one; no byte of UTF-8 is 0xff. `\\0` and `\\0` mean all keys.
    """
    if not prefix:
        return b"\0", b"\0"
    first = key_bytes(prefix)
    return first, first[:-1] + bytes((first[-1] + 1,))


def encode_range(
    first: bytes, end: bytes = b"", *, limit: int = 0, keys_only: bool = False, count_only: bool = False
) -> bytes:
    """Body of a range request; without end for the one key `first`, without limit for all."""
    fields = [b'{"key":"%b"' % b2a_base64(first, newline=False)]
    if end:
        fields.append(b'"range_end":"%b"' % b2a_base64(end, newline=False))
    if limit:
        fields.append(b'"limit":%d' % limit)
    if keys_only:
        fields.append(b'"keys_only":true')
    if count_only:
        fields.append(b'"count_only":true')
    return b",".join(fields) + b"}"


def encode_transaction(transaction: Transaction, limits: Limits) -> bytes:
    """Body of a transaction request, checked against what etcd takes before anything is sent.

    Guarantee: operations are counted as etcd does: those of the bigger branch, counts and reads included, and the
    conditions on their own. Bytes are all keys and values as etcd decodes them, a prefix four times and a read twice
    (first key and end, in both branches). Tags and lengths of protobuf, under 64 bytes an operation, fit between
    `limits.transaction_bytes` and etcd's own 1,572,864.
    Raises: ValueRefused naming the limit.
    """
    conditions, operations = transaction.conditions, transaction.operations
    questions = len(transaction.counts) + len(transaction.reads)
    if max(len(conditions), len(operations) + questions) > limits.operations:
        raise ValueRefused(
            f"a transaction has {len(conditions)} conditions, {len(operations)} operations, {questions} questions; "
            f"at most {limits.operations} conditions and {limits.operations} of all others fit"
        )
    if len({operation.key for operation in operations}) != len(operations):
        raise ValueRefused("a transaction writes one key twice")
    if transaction.messages:
        raise ValueRefused("a transaction carries messages, which etcd cannot publish")

    size = 0
    compare: list[bytes] = []
    for condition in conditions:
        key = key_bytes(condition.key)
        size += len(key)
        name = b2a_base64(key, newline=False)
        if type(condition) is Absent:
            compare.append(b'{"key":"%b","target":"CREATE","create_revision":"0"}' % name)
        elif type(condition) is Equals:
            size += len(condition.value)
            value = b2a_base64(condition.value, newline=False)
            compare.append(b'{"key":"%b","target":"VALUE","value":"%b"}' % (name, value))
        elif type(condition) is At:
            # To etcd an absent key has revision 0; for us an entry must exist.
            compare.append(b'{"key":"%b","target":"MOD","mod_revision":%d}' % (name, condition.version or -1))

    success: list[bytes] = []
    for operation in operations:
        key = key_bytes(operation.key)
        size += len(key)
        name = b2a_base64(key, newline=False)
        if type(operation) is Put:
            if len(operation.value) > limits.value_bytes:
                raise ValueRefused(
                    f"the value of {operation.key} has {len(operation.value)} bytes; "
                    f"at most {limits.value_bytes} are kept in one entry"
                )
            size += len(operation.value)
            value = b2a_base64(operation.value, newline=False)
            if operation.lease is None:
                success.append(b'{"request_put":{"key":"%b","value":"%b"}}' % (name, value))
            else:
                success.append(
                    b'{"request_put":{"key":"%b","value":"%b","lease":%d}}' % (name, value, operation.lease.id)
                )
        else:
            success.append(b'{"request_delete_range":{"key":"%b"}}' % name)

    failure: list[bytes] = []
    for prefix in transaction.counts:
        first, end = span(prefix)
        size += 4 * len(first)
        failure.append(b'{"request_range":%b}' % encode_range(first, end, count_only=True))
    for key_read in transaction.reads:
        key = key_bytes(key_read)
        size += 2 * len(key)
        failure.append(b'{"request_range":%b}' % encode_range(key))
    success += failure

    if size > limits.transaction_bytes:
        raise ValueRefused(f"a transaction of {size} bytes is over the limit of {limits.transaction_bytes} bytes")
    return b'{"compare":[%b],"success":[%b],"failure":[%b]}' % (
        b",".join(compare),
        b",".join(success),
        b",".join(failure),
    )
