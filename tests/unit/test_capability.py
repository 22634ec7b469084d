"""What a handler requires, what a worker offers, and whether the two fit."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mr.errors import InvalidName
from mr.model.capability import Requirement, offer, requirement, written
from mr.rules import routing
from mr.worker.stock import Stock

NODES = {
    "penguin": offer(["linux", "cpu"]),
    "cruncher": offer(["linux", "gpu"]),
    "laptop": offer(["mac-m1-cpu"]),
}


@pytest.mark.parametrize(
    ("required", "nodes"),
    [
        ("gpu and linux", ["cruncher"]),
        ("gpu", ["cruncher"]),
        ("cpu", ["penguin"]),
        ("gpu or mac-m1-cpu", ["cruncher", "laptop"]),
        ("linux", ["penguin", "cruncher"]),
    ],
)
def test_each_task_fits_where_it_may_run_and_nowhere_else(required: str, nodes: list[str]) -> None:
    assert [name for name, offered in NODES.items() if requirement(required).fits(offered)] == nodes


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("GPU", "gpu"),
        ("gpu and (linux or macos) and mem >= 8", "gpu and linux and mem >= 8 or gpu and macos and mem >= 8"),
        ("linux and gpu", "gpu and linux"),
        ("((gpu))", "gpu"),
        ("gpu or gpu and linux", "gpu"),
        ("gpu>=2 and gpu>=4", "gpu >= 4"),
        ("gpu and gpu >= 0.5", "gpu >= 1"),
        ("mem >= 8 or mem >= 16", "mem >= 8"),
        ("gpu or gpu >= 0.5", "gpu >= 0.5 or gpu"),
        ("b or a", "a or b"),
        ("mem>=1.50", "mem >= 1.5"),
    ],
)
def test_the_normal_form_is_one_for_all_ways_to_say_the_same(text: str, normal: str) -> None:
    assert requirement(text).text == normal
    assert requirement(requirement(text).text).text == normal


def test_a_single_name_is_its_own_word_and_everything_else_a_digest_of_its_normal_form() -> None:
    assert requirement("GPU").word == "gpu"
    assert requirement("linux and gpu").word == requirement("gpu and (linux)").word
    assert len(requirement("gpu >= 1").word) == 9
    assert requirement("gpu >= 1").word != requirement("gpu >= 2").word
    assert routing.topic("w", "map", "linux and gpu") == f"mr.w.map.{requirement('gpu and linux').word}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected a name, got the end"),
        ("gpu and", "expected a name, got the end"),
        ("gpu linux", "expected 'and', 'or', or the end, got 'linux'"),
        ("(gpu", "expected ')', got the end"),
        ("gpu >= many", "expected a number after 'gpu >=', got 'many'"),
        ("gpu > 2", "expected 'and', 'or', or the end, got '>'"),
        ("not gpu", "expected a name, got 'not'"),
        (".gpu", "expected a name, got '.gpu'"),
        ("größe", "got 'gr'"),
        ("x0a1b2c3d", "expected a name"),
        ("none or gpu", "none stands alone"),
        ("a" * 501, "501 characters"),
        (" and ".join(f"(a{n} or b{n})" for n in range(8)), "over 32 alternatives"),
        (" or ".join(f"a{n}" for n in range(40)), "over 32 alternatives"),
    ],
)
def test_what_is_no_requirement_is_refused_with_the_place(text: str, complaint: str) -> None:
    if text == "größe":
        complaint = "expected"
    with pytest.raises(InvalidName) as raised:
        requirement(text)
    assert complaint in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize("bad", ["", "gpu=", "gpu=0.5.5", "gpu=-1", "gpu,gpu", "and", "x0123abcd", "a b", "gpu=many"])
def test_what_cannot_be_offered_is_refused(bad: str) -> None:
    with pytest.raises(InvalidName):
        offer(bad.split(","))


def test_an_offer_is_written_as_it_is_read() -> None:
    texts = ["general", "gpu=2", "mem=15.5"]
    assert written(offer(texts)) == texts


def test_what_is_lacking_is_the_least_that_would_do() -> None:
    wanted = requirement("gpu >= 2 and linux or tpu and macos and fast")
    assert wanted.lacking(offer(["linux"])) == ["gpu >= 2"]
    assert wanted.lacking(offer(["gpu", "linux"])) == ["gpu >= 2"], "a name is not two of it"
    assert wanted.lacking(offer(["gpu=4", "linux"])) == []
    assert requirement(wanted.example.replace(",", " and ").replace("=", " >= ")).fits(offer(wanted.example.split(",")))


def test_amounts_are_taken_and_given_back_and_names_are_not() -> None:
    stock = Stock(offer(["general", "gpu=2", "mem=16"]))
    one = stock.take("gpu and mem >= 10")
    assert one == {"gpu": 1.0, "mem": 10.0}
    assert stock.take("mem >= 7") is None
    assert stock.take("general") == {}
    assert stock.take("mem >= 7 or gpu") == {"gpu": 1.0}
    topics = {"a": "gpu", "b": "general", "c": "mem >= 6", "d": "mem >= 7"}
    assert stock.exhausted(topics) == {"a", "d"}
    stock.give_back(one)
    assert stock.exhausted(topics) == set()
    assert stock.costs_nothing("general")
    assert not stock.costs_nothing("gpu")
    assert stock.offers("gpu >= 2")
    assert not stock.offers("gpu >= 3")


def test_amounts_with_decimals_come_back_whole() -> None:
    for order in permutations(range(3)):
        stock = Stock(offer(["gpu=1"]))
        taken = [stock.take(share) for share in ("gpu >= 0.1", "gpu >= 0.2", "gpu >= 0.3")]
        assert stock.exhausted(topics := {"whole": "gpu"}) == {"whole"}
        for number in order:
            one = taken[number]
            assert one
            stock.give_back(one)
        assert stock.exhausted(topics) == set(), order
        assert stock.take("gpu") == {"gpu": 1.0}


NAMES = ("a", "b", "c")
TERMS = st.sampled_from([*NAMES, *(f"{name} >= {amount}" for name in NAMES for amount in (0.5, 1, 2))])
TEXTS = st.recursive(
    TERMS,
    lambda inner: st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join).map("({})".format),
    max_leaves=5,
)
OFFERS = [
    {name: amount for name, amount in zip(NAMES, amounts, strict=True) if amount != 0.0}
    for amounts in product((0.0, None, 0.5, 1.0, 2.0), repeat=3)
]


def plainly(text: str, offered: dict[str, float | None]) -> bool:
    """What a reader would say, term by term: an oracle without normal forms."""
    if text.startswith("("):
        depth = 0
        for at, character in enumerate(text):
            depth += (character == "(") - (character == ")")
            for word in ("and", "or"):
                if depth == 1 and text[at : at + len(word) + 2] == f" {word} ":
                    left, right = text[1:at], text[at + len(word) + 2 : -1]
                    one, other = plainly(left, offered), plainly(right, offered)
                    return (one and other) if word == "and" else (one or other)
    name, _, amount = text.partition(" >= ")
    if name not in offered:
        return False
    there = offered[name]
    if not amount:
        return there is None or there >= 1.0
    return there is not None and there >= float(amount)


@given(TEXTS)
def test_the_normal_form_fits_exactly_what_the_text_says(text: str) -> None:
    try:
        wanted: Requirement = requirement(text)
    except InvalidName:
        return  # too many alternatives
    for offered in OFFERS:
        assert wanted.fits(offered) == plainly(text, offered), (text, wanted.text, offered)
