"""One rule for names, and what passes for ids and paths."""

from __future__ import annotations

import pytest

from mr.errors import InvalidName
from mr.model import names
from mr.rules import keys, routing

GOOD = [
    "a",
    "A",
    "0",
    "_",
    "-",
    "a.b",
    "a..b",
    "x" * 100,
    "step-3a",
    "grep-email",
    "map_wc_split",
    "a_x.y",
    "CON",
    "a.",
]
# P-1: what people try, and what programs make of it.
BAD = [
    "", ".", "..", ".a", "../w", "a/../b", "/etc/passwd", "a/b", "a\\b", "%2e%2e%2f", "%252e", "a%00", "a\0", "\0",
    "a\n", "\na", "a\r", "a\tb", "a b", " a", "a ", "x" * 101, "x" * 10_000, "é", "e\u0301", "\u0430dmin", "a\u200b",
    "\u202eabc", "😀", "a:b", "a*b", "a?b", "a#b", "a@b", "a,b", "a;b", "a'b", 'a"b', "a$b", "a`b", "a|b", "a&b",
    "a<b", "a>b", "a=b", "a+b", "a~b", "{a}", "[a]", "(a)", "²", "\u0661", "\ud800", "\uff46ull", "a\u2028b", "a\x85",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_is_returned_as_it_is(name: str) -> None:
    assert names.check("step", name) == name
    assert names.is_name(name)


@pytest.mark.parametrize("name", ["grep-email", "step-3a", "a.b"])
def test_JX_8_names_may_have_hyphens(name: str) -> None:
    for noun in ("workflow", "job", "step", "handler"):
        assert names.check(noun, name) == name


@pytest.mark.parametrize("key", ["a/b-c", "../..", "%2F", "ключ", "a\nb", " ", "😀"])
def test_JX_8_a_session_key_may_be_any_text_and_stays_below_its_session(key: str) -> None:
    stored = keys.session("w", "0" * 40, "0", "e", key)
    prefix = keys.sessions("w", "0" * 40, "0", "e")
    assert stored.startswith(prefix)
    assert "/" not in stored[len(prefix) :]
    assert keys.decoded(stored[len(prefix) :]) == key


@pytest.mark.parametrize("name", BAD)
def test_P_1_a_bad_name_is_refused_with_the_noun_and_a_message_that_can_be_shown(name: str) -> None:
    assert not names.is_name(name)
    with pytest.raises(InvalidName) as caught:
        names.check("step", name)
    text = str(caught.value)
    assert text.startswith("step name ")
    assert "1 to 100 characters" in text
    assert len(text) < 400
    text.encode()
    assert "\n" not in text
    assert "\0" not in text


@pytest.mark.parametrize("text", ["0" * 40, "0123456789abcdef" * 2 + "01234567"])
def test_JX_5_a_request_id_is_forty_lowercase_hex_digits(text: str) -> None:
    assert names.is_request_id(text)


@pytest.mark.parametrize(
    "text", ["", "0" * 39, "0" * 41, "A" * 40, "g" * 40, "0" * 40 + "\n", " " + "0" * 39, "\u0661" * 40]
)
def test_JX_5_anything_else_is_no_request_id(text: str) -> None:
    assert not names.is_request_id(text)


@pytest.mark.parametrize("text", ["0", "0.17", "0.r", "0.17.r", "0.0.0", "1048575", "0.1048575.3"])
def test_a_path_is_numbers_and_perhaps_an_r(text: str) -> None:
    assert names.is_path(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        ".",
        "r",
        "0.",
        ".0",
        "0..1",
        "00",
        "0.01",
        "0.r.1",
        "0.R",
        "-1",
        "0.-1",
        "0\n",
        "0/1",
        "0.12345678",
        "1e3",
    ],
)
def test_anything_else_is_no_path(text: str) -> None:
    assert not names.is_path(text)


def test_JX_52_topics_are_named_by_workflow_direction_and_capability() -> None:
    assert routing.topic("w", "map", "general") == "mr.w.map.general"
    assert routing.topics("w", ["general", "GPU"]) == [
        "mr.w.map.general", "mr.w.reduce.general", "mr.w.map.gpu", "mr.w.reduce.gpu",
    ]  # fmt: skip


def test_JX_56_a_topic_has_at_most_sixty_four_characters_in_both_directions() -> None:
    # "mr." + workflow + ".reduce." + capability
    routing.check("w" * 46, "general")
    with pytest.raises(InvalidName, match="65 characters"):
        routing.check("w" * 47, "general")
    assert len(routing.topic("w" * 46, "reduce", "general")) == 64


def test_JX_56_names_with_dots_never_share_a_topic() -> None:
    names = ["a", "a.b", "map", "reduce", "a.map", "map.a", "a.map.b", "b.reduce.c", "a.reduce", "x.y.z", "mapper.a"]
    seen: dict[str, tuple[str, str, str]] = {}
    for workflow in names:
        for capability in names:
            try:
                routing.check(workflow, capability)
            except InvalidName:
                continue
            for direction in ("map", "reduce"):
                place = (workflow, direction, capability)
                assert seen.setdefault(routing.topic(*place), place) == place
    assert ("a.b", "map", "x.y.z") in seen.values()
    assert ("map", "map", "reduce") in seen.values()
    assert not [place for place in seen.values() if "a.map.b" in place]
