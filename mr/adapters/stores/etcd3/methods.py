"""Every kind of call that is made to etcd, with the words it has on each of the two ways.

What is asked all the time has both. What is rare goes by the gateway alone, as the login does; so do watches, which
are no calls (`watch`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from mr.adapters.stores.etcd3 import json, protobuf
from mr.adapters.stores.etcd3.messages import DeleteAnswer, LeaseAnswer, RangeAnswer, Span, TransactionAnswer
from mr.ports.store import Transaction

Q = TypeVar("Q")
A = TypeVar("A")


class Words(msgspec.Struct, Generic[Q, A], frozen=True):
    """Where a call goes, how the question is written, and how the answer is read.

    `read` raises ValueError or MsgspecError for an answer that makes no sense.
    """

    path: str
    write: Callable[[Q], bytes]
    read: Callable[[bytes], A]


class Method(msgspec.Struct, Generic[Q, A], frozen=True):
    """One kind of call."""

    gateway: Words[Q, A]
    grpc: Words[Q, A] | None = None


RANGE: Method[Span, RangeAnswer] = Method(
    Words("/v3/kv/range", json.write_range, json.read_range),
    Words("/etcdserverpb.KV/Range", protobuf.write_range, protobuf.read_range),
)
DELETE: Method[Span, DeleteAnswer] = Method(
    Words("/v3/kv/deleterange", json.write_range, json.read_deletion),
    Words("/etcdserverpb.KV/DeleteRange", protobuf.write_deletion, protobuf.read_deletion),
)
TRANSACTION: Method[Transaction, TransactionAnswer] = Method(
    Words("/v3/kv/txn", json.write_transaction, json.read_transaction),
    Words("/etcdserverpb.KV/Txn", protobuf.write_transaction, protobuf.read_transaction),
)
GRANT: Method[int, LeaseAnswer] = Method(
    Words("/v3/lease/grant", json.write_ttl, json.read_lease),
    Words("/etcdserverpb.Lease/LeaseGrant", protobuf.write_ttl, protobuf.read_lease),
)
# A stream by name; with one question in it, it is a call.
KEEP: Method[int, LeaseAnswer] = Method(
    Words("/v3/lease/keepalive", json.write_lease, json.read_keep),
    Words("/etcdserverpb.Lease/LeaseKeepAlive", protobuf.write_lease, protobuf.read_lease),
)
REVOKE: Method[int, object] = Method(
    Words("/v3/lease/revoke", json.write_lease, json.read_nothing),
    Words("/etcdserverpb.Lease/LeaseRevoke", protobuf.write_lease, protobuf.read_nothing),
)

LOGIN: Method[Mapping[str, str], json.TokenAnswer] = Method(
    Words("/v3/auth/authenticate", msgspec.json.encode, json.read_token)
)
COMPACT: Method[Mapping[str, object], object] = Method(
    Words("/v3/kv/compaction", msgspec.json.encode, json.read_nothing)
)
STATUS: Method[Mapping[str, object], json.StatusAnswer] = Method(
    Words("/v3/maintenance/status", msgspec.json.encode, json.read_status)
)
DEFRAGMENT: Method[Mapping[str, object], object] = Method(
    Words("/v3/maintenance/defragment", msgspec.json.encode, json.read_nothing)
)
ALARM: Method[Mapping[str, object], json.AlarmAnswer] = Method(
    Words("/v3/maintenance/alarm", msgspec.json.encode, json.read_alarms)
)
