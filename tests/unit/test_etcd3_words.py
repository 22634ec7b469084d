"""The two ways of writing to etcd v3 say the same: protobuf, read by etcd's schema, against the gateway's JSON."""

from __future__ import annotations

import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr.adapters.stores.etcd3 import json as gateway
from mr.adapters.stores.etcd3 import protobuf
from mr.adapters.stores.etcd3.messages import Span
from mr.ports.store import Absent, At, Delete, Equals, Lease, Put, Transaction

# rpc.proto and kv.proto of etcd, as far as they are spoken here: number, name, kind; "+" is repeated.
ENUMS = {"CREATE": 1, "MOD": 2, "VALUE": 3}
SCHEMA: dict[str, dict[int, tuple[str, str]]] = {
    "Range": {
        1: ("key", "bytes"), 2: ("range_end", "bytes"), 3: ("limit", "int"), 8: ("keys_only", "bool"),
        9: ("count_only", "bool"),
    },
    "DeleteRange": {1: ("key", "bytes"), 2: ("range_end", "bytes")},
    "Put": {1: ("key", "bytes"), 2: ("value", "bytes"), 3: ("lease", "int")},
    "Compare": {
        1: ("result", "int"), 2: ("target", "int"), 3: ("key", "bytes"), 5: ("create_revision", "int"),
        6: ("mod_revision", "int"), 7: ("value", "bytes"),
    },
    "RequestOp": {
        1: ("request_range", "Range"), 2: ("request_put", "Put"), 3: ("request_delete_range", "DeleteRange"),
    },
    "Txn": {1: ("compare", "Compare+"), 2: ("success", "RequestOp+"), 3: ("failure", "RequestOp+")},
    "Header": {1: ("cluster_id", "int"), 2: ("member_id", "int"), 3: ("revision", "int"), 4: ("raft_term", "int")},
    "KeyValue": {
        1: ("key", "bytes"), 2: ("create_revision", "int"), 3: ("mod_revision", "int"), 4: ("version", "int"),
        5: ("value", "bytes"), 6: ("lease", "int"),
    },
    "RangeResponse": {1: ("header", "Header"), 2: ("kvs", "KeyValue+"), 3: ("more", "bool"), 4: ("count", "int")},
    "PutResponse": {1: ("header", "Header"), 2: ("prev_kv", "KeyValue")},
    "DeleteRangeResponse": {1: ("header", "Header"), 2: ("deleted", "int"), 3: ("prev_kvs", "KeyValue+")},
    "ResponseOp": {
        1: ("response_range", "RangeResponse"), 2: ("response_put", "PutResponse"),
        3: ("response_delete_range", "DeleteRangeResponse"),
    },
    "TxnResponse": {1: ("header", "Header"), 2: ("succeeded", "bool"), 3: ("responses", "ResponseOp+")},
    "LeaseResponse": {1: ("header", "Header"), 2: ("ID", "int"), 3: ("TTL", "int"), 4: ("error", "bytes")},
}  # fmt: skip


def varint(number: int) -> bytes:
    return bytes((number,)) if number < 128 else bytes((number % 128 + 128,)) + varint(number // 128)


def taken(data: bytes) -> tuple[int, bytes]:
    """A varint, and what follows it."""
    number = 0
    for at, byte in enumerate(data):
        number += (byte % 128) << (7 * at)
        if byte < 128:
            return number, data[at + 1 :]
    raise AssertionError("a varint is cut off")


def spoken(message: str, data: bytes) -> dict[str, Any]:
    """A message of protobuf as the JSON that says the same; all integers are signed here."""
    found: dict[str, Any] = {}
    while data:
        tag, data = taken(data)
        name, kind = SCHEMA[message][tag >> 3]
        value: Any
        if kind in ("int", "bool"):
            assert tag & 7 == 0
            number, data = taken(data)
            value = bool(number) if kind == "bool" else number - (number >> 63 << 64)
        else:
            assert tag & 7 == 2
            size, data = taken(data)
            assert size <= len(data)
            value, data = data[:size], data[size:]
            value = b64encode(value).decode() if kind == "bytes" else spoken(kind.removesuffix("+"), value)
        if kind.endswith("+"):
            found.setdefault(name, []).append(value)
        else:
            assert name not in found
            found[name] = value
    return found


def written(message: str, document: Mapping[str, Any]) -> bytes:
    """The other way round; fields that are absent stay away."""
    data = b""
    for number, (name, kind) in SCHEMA[message].items():
        for value in document.get(name, []) if kind.endswith("+") else [document[name]] if name in document else []:
            if kind in ("int", "bool"):
                data += varint(number << 3) + varint(int(value))
            else:
                inner = b64decode(value) if kind == "bytes" else written(kind.removesuffix("+"), value)
                data += varint(number << 3 | 2) + varint(len(inner)) + inner
    return data


def plain(value: Any) -> Any:
    """What the gateway is told, with numbers for words."""
    if isinstance(value, dict):
        numbers = ("create_revision", "mod_revision", "lease", "limit")
        return {
            name: ENUMS[inner] if name == "target" else int(inner) if name in numbers else plain(inner)
            for name, inner in value.items()
            if inner != []
        }
    return [plain(inner) for inner in value] if isinstance(value, list) else value


# What we ask

keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
values = st.binary(max_size=300)
leases = st.none() | st.builds(Lease, st.integers(1, (1 << 63) - 1), st.just(5.0))
transactions = st.builds(
    Transaction,
    conditions=st.lists(
        st.builds(Absent, keys) | st.builds(Equals, keys, values) | st.builds(At, keys, st.integers(0, 1 << 50)),
        max_size=4,
    ),
    operations=st.lists(st.builds(Put, keys, values, leases) | st.builds(Delete, keys), max_size=4),
    counts=st.lists(st.just("") | keys, max_size=3),
    reads=st.lists(keys, max_size=3),
)


@given(transactions)
def test_a_transaction_says_the_same_in_both(transaction: Transaction):
    assert spoken("Txn", protobuf.write_transaction(transaction)) == plain(
        json.loads(gateway.write_transaction(transaction))
    )


@given(st.builds(Span, values, values, st.integers(0, 1 << 40), st.booleans(), st.booleans()))
def test_a_range_says_the_same_in_both(asked: Span):
    assert spoken("Range", protobuf.write_range(asked)) == plain(json.loads(gateway.write_range(asked)))


@given(st.integers(1, (1 << 63) - 1))
def test_a_lease_is_named_the_same_in_both(number: int):
    assert json.loads(gateway.write_lease(number)) == {"ID": taken(protobuf.write_lease(number)[1:])[0]}
    assert json.loads(gateway.write_ttl(number)) == {"TTL": taken(protobuf.write_ttl(number)[1:])[0]}


# What etcd answers

numbers = st.integers(1, (1 << 63) - 1)
texts = values.map(lambda value: b64encode(value).decode())
headers = st.fixed_dictionaries(
    {},
    optional={
        "cluster_id": st.integers(1, (1 << 64) - 1), "member_id": numbers, "revision": numbers, "raft_term": numbers,
    },
)  # fmt: skip
key_values = st.fixed_dictionaries(
    {"key": texts},
    optional={
        "create_revision": numbers, "mod_revision": numbers, "version": numbers, "value": texts, "lease": numbers,
    },
)  # fmt: skip
ranges = st.fixed_dictionaries(
    {},
    optional={
        "header": headers, "kvs": st.lists(key_values, min_size=1, max_size=3), "more": st.just(True), "count": numbers,
    },
)  # fmt: skip
deletions = st.fixed_dictionaries(
    {"header": headers}, optional={"deleted": numbers, "prev_kvs": st.lists(key_values, min_size=1, max_size=2)}
)
responses = st.one_of(
    st.fixed_dictionaries({"response_range": ranges}),
    st.fixed_dictionaries({"response_put": st.fixed_dictionaries({"header": headers})}),
    st.fixed_dictionaries({"response_delete_range": deletions}),
)
answers = st.fixed_dictionaries(
    {"header": headers},
    optional={"succeeded": st.just(True), "responses": st.lists(responses, min_size=1, max_size=4)},
)


def quoted(value: Any) -> Any:
    """As the gateway writes it: integers as text."""
    if isinstance(value, dict):
        return {name: quoted(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [quoted(inner) for inner in value]
    return str(value) if type(value) is int else value


def as_json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(quoted(document)).encode()


@given(answers)
def test_the_answer_to_a_transaction_is_read_the_same_from_both(document: dict[str, Any]):
    assert protobuf.read_transaction(written("TxnResponse", document)) == gateway.read_transaction(as_json(document))


@given(ranges)
def test_the_answer_to_a_range_is_read_the_same_from_both(document: dict[str, Any]):
    assert protobuf.read_range(written("RangeResponse", document)) == gateway.read_range(as_json(document))


@given(deletions)
def test_the_answer_to_a_deletion_is_read_the_same_from_both(document: dict[str, Any]):
    assert protobuf.read_deletion(written("DeleteRangeResponse", document)) == gateway.read_deletion(as_json(document))


@given(st.fixed_dictionaries({"header": headers}, optional={"ID": numbers, "TTL": numbers}))
def test_the_answer_about_a_lease_is_read_the_same_from_both(document: dict[str, Any]):
    found = protobuf.read_lease(written("LeaseResponse", document))
    assert found == gateway.read_lease(as_json(document))
    assert found == gateway.read_keep(as_json({"result": document}))


def test_fields_that_a_newer_etcd_adds_are_passed_over():
    more = b"\xfa\x01\x03abc" + b"\xf9\x0112345678" + b"\xfd\x011234" + b"\xf8\x01\x96\x01"
    assert protobuf.read_lease(more + b"\x10\x05" + more).ID == 5


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05abc", b"\x10", b"\x10\x80", b"\x10" + b"\x80" * 10 + b"\x01", b"\x11123", b"\x13", b"\x80"],
)
def test_a_message_that_is_cut_off_or_none_makes_no_sense(data: bytes):
    with pytest.raises(ValueError, match="of protobuf"):
        protobuf.read_range(data)


@given(st.binary(max_size=60))
def test_no_bytes_do_more_than_make_no_sense(data: bytes):
    for read in (protobuf.read_range, protobuf.read_transaction, protobuf.read_deletion, protobuf.read_lease):
        with contextlib.suppress(ValueError):
            read(data)
