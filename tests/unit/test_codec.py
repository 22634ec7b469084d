"""The serialiser: what strangers and handlers may hand in, and data that travels as bytes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr import codec
from mr.codec import DEPTH_MAX, EMPTY, Items
from mr.errors import CorruptEntry, InvalidDocument, ValueRefused
from mr.model.dataset import Chunks, Payload
from mr.model.handler import HandlerRecord
from mr.model.workflow import Workflow

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# Records


def record(**changes: Any) -> bytes:
    fields = {
        "workflow_name": "w", "description": "", "argument_spec": [], "source_type": "python", "source_code": "",
        "version": "1", "handler_type": "mapper", "required_capability": "none",
    }  # fmt: skip
    return json.dumps({name: value for name, value in (fields | changes).items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"description": None}, "description"),
        ({"argument_spec": "arguments"}, "argument_spec"),
        ({"handler_type": "joiner"}, "handler_type"),
        ({"version": 7}, "version"),
    ],
)
def test_JX_7_a_record_with_a_wrong_field_is_refused_by_its_name(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(CorruptEntry) as caught:
        codec.decode(record(**changes), HandlerRecord, where="entities/handler/w/h")
    assert "entities/handler/w/h" in str(caught.value)
    assert problem in str(caught.value)
    assert codec.decode(record(), HandlerRecord).handler_type == "mapper"


# What a handler hands in


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_JX_9_a_value_comes_back_as_it_was(value: Any) -> None:
    assert codec.loads(codec.dumps(value)) == value
    assert json.loads(codec.dumps(value)) == value


def test_JX_9_tuples_become_lists_and_integers_stay_integers() -> None:
    assert codec.loads(codec.dumps((1, ("a", (2.0, None))))) == [1, ["a", [2.0, None]]]
    assert codec.dumps([1, 1.0, True]) == b"[1,1.0,true]"


class _Sly(int):
    def __repr__(self) -> str:
        raise RuntimeError("looked at")


class _SlyText(str):
    __slots__ = ()


class _SlyList(list):
    def __iter__(self) -> Any:
        raise RuntimeError("looked at")


class _SlyKey:
    def __repr__(self) -> str:
        raise RuntimeError("looked at")


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (b"x", "$ is a bytes"), ({1}, "$ is a set"), (object(), "$ is a object"), (math.nan, "$ is nan"),
        (math.inf, "$ is inf"), ([-math.inf], "$[0] is -inf"), ({"a": [1, {"b": b""}]}, "$.a[1].b is a bytes"),
        ({1: 2}, "$ has the key 1"), ({"a": {None: 2}}, "$.a has the key None"), ({b"a": 1}, "$ has the key b'a'"),
        ([1, (2, {3})], "$[1][1] is a set"), (1j, "$ is a complex"), (_Sly(1), "$ is a _Sly"), ([_Sly(1)], "$[0] is a"),
        (_SlyText("a"), "$ is a _SlyText"), (_SlyList([1]), "$ is a _SlyList"), ({_SlyKey(): 1}, "of type _SlyKey"),
        ({"k": _SlyKey()}, "$.k is a _SlyKey"), (range(3), "$ is a range"), (iter([]), "$ is a list_iterator"),
    ],
    ids=lambda value: value if type(value) is str else "value",  # repr would look at them
)  # fmt: skip
def test_X_13_what_json_would_lose_or_change_is_refused_with_its_place(value: Any, place: str) -> None:
    with pytest.raises(ValueRefused) as caught:
        codec.dumps(value)
    assert str(caught.value).startswith(place) or place in str(caught.value)


def test_X_13_lone_surrogates_loops_and_depth_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in ("\ud800", ["a", {"b": "\udfff"}], {"\ud800": 1}, loop, nested(10_000), nested(DEPTH_MAX + 1)):
        with pytest.raises(ValueRefused):
            codec.dumps(value)
    assert codec.dumps(nested(DEPTH_MAX)).count(b"[") == DEPTH_MAX


def test_X_10_a_number_of_too_many_digits_is_refused_and_one_at_the_limit_comes_back() -> None:
    assert codec.loads(codec.dumps(10**4299)) == 10**4299
    for value in (10**4300, [-(10**5000)], {"a": 10**100_000}):
        with pytest.raises(ValueRefused, match="a number has more than 4300 digits"):
            codec.dumps(value)


def test_a_value_over_its_limit_is_refused_and_one_at_its_limit_is_not() -> None:
    assert codec.dumps("abc", size_max=5) == b'"abc"'
    with pytest.raises(ValueRefused, match="a value of 6 bytes is over the limit of 5 bytes"):
        codec.dumps("abcd", size_max=5)


# What a stranger hands in


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"), (b"{", "line 1 column 2"), (b"[1,]", "not JSON"), (b"{'a': 1}", "not JSON"),
        (b"[1] [2]", "not JSON"), (b"\xff", "not UTF-8: byte 0"), (b'"\xc3"', "not UTF-8: byte 1"),
        (b'{"a":1,"a":2}', "'a' appears twice"), (b'[{"b":{"c":1,"c":1}}]', "'c' appears twice"),
        (b"NaN", "NaN is not JSON"), (b"[Infinity]", "Infinity is not JSON"), (b"-Infinity", "-Infinity is not JSON"),
        (b"1e999", "out of range"), (b"-1e999", "out of range"), (b'"\\ud800"', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"), (b"9" * 4301, "4301 digits"), (b"-" + b"9" * 4301, "digits"),
        (b"[" * 101 + b"]" * 101, "nested deeper than 100"), (b"[" * 1_000_000, "nested deeper than 100"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested deeper than 100"), (b"\xef\xbb\xbf{}", "not JSON"),
        (b"// x\n1", "not JSON"), (b'"\t"', "not JSON"), (b"01", "not JSON"), (b"nul", "not JSON"),
    ],
)  # fmt: skip
def test_a_document_that_is_not_strict_json_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        codec.loads(data)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'"\\ud83d\\ude00"', "😀"), (b'"[[[["', "[[[["), (b'"\\"[" ', '"['), (b"[" * 100 + b"]" * 100, None),
        (b"1e5", 1e5), (b"-0", 0), (b" [1 , 2]\n", [1, 2]), (b'{"a":1,"b":{"a":2}}', {"a": 1, "b": {"a": 2}}),
        (b"9" * 4300, int("9" * 4300)),
    ],
)  # fmt: skip
def test_a_strict_document_is_read(data: bytes, value: Any) -> None:
    assert value is None or codec.loads(data) == value
    codec.loads(data)


def test_brackets_in_texts_do_not_count_as_depth() -> None:
    value = ["[{" * 200, '\\"[[[' * 100]
    assert codec.loads(json.dumps(value).encode()) == value


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text('[]{}",:\\u0d8e1-.', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_and_nothing_else_happens(data: bytes) -> None:
    try:
        value = codec.loads(data)
    except InvalidDocument:
        return
    codec.dumps(value)


# Our own structs


def test_a_struct_comes_back_and_what_is_none_is_called_corrupt_by_its_place() -> None:
    workflow = Workflow(description="d", handlers_state="s")
    assert codec.decode(codec.encode(workflow), Workflow) == workflow
    for data in (b"", b"{", b"[]", b'{"description": 1}', b"\xff", b'{"description":"\xff"}'):
        with pytest.raises(CorruptEntry, match="entities/workflow/w is not a valid Workflow"):
            codec.decode(data, Workflow, where="entities/workflow/w")


def test_canonical_bytes_are_equal_exactly_for_equal_values() -> None:
    assert codec.canonical({"b": 1, "a": [1, 2]}) == codec.canonical({"a": (1, 2), "b": 1}) == b'{"a":[1,2],"b":1}'
    assert len({codec.canonical(value) for value in (1, "1", True, None, [1], {"1": 1}, 1.5)}) == 7


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_canonical_bytes_do_not_depend_on_the_order_of_keys(value: Any) -> None:
    def turned(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: turned(inner[key]) for key in reversed(inner)}
        return [turned(item) for item in inner] if isinstance(inner, list) else inner

    assert codec.canonical(value) == codec.canonical(turned(value))


# Items


DOCUMENTS = st.lists(VALUES.map(codec.encode), max_size=12)


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS, st.integers(0, 14), st.integers(0, 14))
def test_cutting_items_is_cutting_the_list(documents: list[bytes], start: int, stop: int) -> None:
    items = Items.of(documents)
    assert list(items) == documents
    assert len(items) == len(documents)
    cut = items.cut(start, stop)
    assert list(cut) == documents[start:stop]
    assert msgspec.json.decode(cut.array()) == [msgspec.json.decode(document) for document in documents[start:stop]]
    assert list(cut.cut(1, 3)) == documents[start:stop][1:3]


@settings(max_examples=200, deadline=None)
@given(st.lists(DOCUMENTS, max_size=5))
def test_joining_items_is_joining_the_lists(parts: list[list[bytes]]) -> None:
    joined = Items.join([Items.of(part) for part in parts])
    flat = [document for part in parts for document in part]
    assert list(joined) == flat
    assert joined == Items.of(flat)
    assert Items.parse(joined.array()) == joined
    assert Items.parse(joined.raw()) == joined


def test_one_item_and_the_empty_run() -> None:
    items = Items.of([b"1", b'"a,b"', b"[2,3]"])
    assert [items.item(index) for index in range(3)] == [b"1", b'"a,b"', b"[2,3]"]
    assert (list(EMPTY), len(EMPTY), EMPTY.array(), EMPTY.size_bytes) == ([], 0, b"[]", 0)
    assert Items.join([]) == Items.join([EMPTY, EMPTY]) == items.cut(2, 1) == items.cut(9, 12) == EMPTY
    assert repr(items) == "Items(3 documents, 13 bytes)"
    assert items != [b"1"]


@pytest.mark.parametrize("data", [b"", b"{}", b"[1", b"1", b'["a"', b"[1,]"])
def test_items_of_what_is_no_list_are_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptEntry):
        Items.parse(data)


def test_a_payload_keeps_its_array_unparsed_and_says_nothing_of_what_is_not_there() -> None:
    payload = Payload(inline=Items.of([b"[1, 2]", b'"x"']).raw())
    assert codec.encode(payload) == b'{"inline":[[1, 2],"x"]}'
    assert list(Items.parse(codec.decode(codec.encode(payload), Payload).inline)) == [b"[1, 2]", b'"x"']
    chunked = Payload(chunks=Chunks(execution="w.1", kind="arguments", counts=[3, 4]))
    assert b"inline" not in codec.encode(chunked)
    assert codec.decode(codec.encode(chunked), Payload).chunks == chunked.chunks
    assert chunked.chunks is not None
    assert chunked.chunks.total == 7


FIRST_USE = """
import sys, threading
from typing import Any
import msgspec
from mr import codec

sys.setswitchinterval(1e-6)
DATA = b'{"x":{"k":{"m":{"q":{"a":1,"b":{},"c":["d"]}},"n":[]}},"y":[],"z":{"r":{"a":1,"b":{},"c":[]}}}'

def fresh():
    inner = msgspec.defstruct("Inner", [("a", int), ("b", dict[str, Any]), ("c", list[str])])
    middle = msgspec.defstruct("Middle", [("m", dict[str, inner]), ("n", tuple[inner, ...])])
    return msgspec.defstruct("Outer", [("x", dict[str, middle]), ("y", list[middle]), ("z", dict[str, inner])])

def use(kind, together):
    together.wait()
    codec.decode(DATA, kind)

for _ in range(300):
    kind, together = fresh(), threading.Barrier(8)
    threads = [threading.Thread(target=use, args=(kind, together)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_may_be_the_first_to_decode_a_struct_together() -> None:
    # In a process of its own: what goes wrong here is a segmentation fault.
    done = subprocess.run([sys.executable, "-c", FIRST_USE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
