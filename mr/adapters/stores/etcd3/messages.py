"""What is asked of etcd and what it answers, whichever way it is written (`json`, `protobuf`).

Answers have the few fields that we read. A transaction is asked as the port has it; its counts and reads stand last
in both branches: within a transaction etcd shows them what the branch wrote before.
"""

from __future__ import annotations

import msgspec

from mr.errors import ValueRefused
from mr.ports.store import Entry, Equals, Limits, Put, Transaction


class Span(msgspec.Struct, frozen=True):
    """Keys from `first` to before `end`; without end the one key `first`. A limit of 0 is none."""

    first: bytes
    end: bytes = b""
    limit: int = 0
    keys_only: bool = False
    count_only: bool = False


NO_KEY = Span(b"\0", count_only=True)
"""Nothing, read linearisably: its answer says that the member works, and the revision."""


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


def check(transaction: Transaction, limits: Limits) -> None:
    """Hold a transaction against what etcd takes, before anything is sent.

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
    for condition in conditions:
        size += len(key_bytes(condition.key))
        if type(condition) is Equals:
            size += len(condition.value)
    for operation in operations:
        size += len(key_bytes(operation.key))
        if type(operation) is Put:
            if len(operation.value) > limits.value_bytes:
                raise ValueRefused(
                    f"the value of {operation.key} has {len(operation.value)} bytes; "
                    f"at most {limits.value_bytes} are kept in one entry"
                )
            size += len(operation.value)
    for prefix in transaction.counts:
        size += 4 * len(span(prefix)[0])
    for key in transaction.reads:
        size += 2 * len(key_bytes(key))
    if size > limits.transaction_bytes:
        raise ValueRefused(f"a transaction of {size} bytes is over the limit of {limits.transaction_bytes} bytes")
