"""How keys and values stand in etcd v2: there and back, without a server."""

from __future__ import annotations

from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mr.errors import ValueRefused
from mr.model.condition import Health
from mr.ports.store import Entry

pytest.importorskip("etcd")

from mr.adapters.stores.etcd2 import condition, tree

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
AWKWARD = st.text("a_.~/%2E", min_size=1)


@given(TEXT | AWKWARD)
@example("~")
@example("~2E")
@example("_")
@example("a/../_b//")
def test_a_key_comes_back_from_its_path(key: str) -> None:
    path = tree.path(key)
    assert path.isascii()
    found = unquote(path)
    assert tree.key_of(found) == key
    names = found[1:].split("/")
    assert found.startswith("/")
    assert not {"", ".", ".."} & set(names)
    assert not any(name.startswith("_") for name in names)


@given(TEXT | AWKWARD, TEXT | AWKWARD)
def test_a_key_lies_below_the_directory_of_each_of_its_beginnings(prefix: str, rest: str) -> None:
    directory = tree.directory(prefix)
    assert tree.path(prefix + rest).startswith(directory.rstrip("/") + "/")


def test_an_ordinary_key_stands_there_as_it_is() -> None:
    assert tree.path("entities/request/words/0a1b") == "/entities/request/words/0a1b"
    assert tree.path("_w/x") == "/~5Fw/x"
    assert tree.directory("entities/request/") == "/entities/request"
    assert tree.directory("ent") == tree.directory("") == "/"


@pytest.mark.parametrize("key", ["", "\ud800", "a/\udfff/b"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueRefused):
        tree.path(key)


@given(st.binary() | TEXT.map(str.encode) | st.just(b"base64:") | st.binary().map(lambda data: b"base64:" + data))
def test_a_value_comes_back_from_its_text(value: bytes) -> None:
    text = tree.text_of(value)
    assert text
    node = SimpleNamespace(key="/a", value=text, modifiedIndex=2, createdIndex=1)
    assert tree.entry_of(node) == Entry("a", value, 2, 1)


def test_json_stands_there_as_it_is() -> None:
    assert tree.text_of('{"ü":"<&>"}'.encode()) == '{"ü":"<&>"}'


@pytest.mark.parametrize(
    ("text", "health"),
    [
        ("3.4.23", Health.OK),
        ("2.3.0", Health.OK),
        ("3.5.21", Health.OK),
        ("2.2.5", Health.FAIL),
        ("3.6.0", Health.FAIL),
        ("what", Health.WARN),
    ],
)
def test_versions_without_a_good_v2_are_known(text: str, health: Health) -> None:
    assert condition.version("etcd", text).health is health
