"""Printed output in records: whole while it fits, cut and flagged beyond, and never too much together."""

from __future__ import annotations

from array import array

import pytest

from mr import codec
from mr.codec import Items
from mr.model.invocation import Done
from mr.rules import limits
from mr.services.branch import Run
from mr.services.records import Records, fitting

RECORDS = Records("flow", "a" * 40, "w1.1", "w1", lambda: "now")


@pytest.mark.parametrize("letter", ["x", "é", "\x01", "\N{GRINNING FACE}", '"'])
def test_output_is_whole_up_to_its_limit_as_json_and_flagged_beyond(letter: str) -> None:
    each = len(codec.encode(letter)) - 2
    fits = letter * ((1000 - 2) // each)
    assert fitting(fits, 1000) == fits
    kept, mark, said = fitting(fits + letter, 1000).partition("\n… ")
    assert mark
    assert "1000 bytes" in said
    assert fits.startswith(kept)
    assert len(codec.encode(kept)) > 900


def outputs_of(texts: dict[int, str]) -> dict[str, str]:
    children = max(texts) + 1
    run = Run(0, Items.of([b"[]"] * children), array("I", [1] * children), texts)
    fact = RECORDS.done("0", 0, Items.of([b"[]"] * children), [run])
    return codec.decode(fact.value, Done).outputs


def test_children_of_a_slice_share_its_record() -> None:
    big = "x" * limits.OUTPUT_MAX
    kept = outputs_of(dict.fromkeys(range(1024), big))
    assert len(kept) == 1024
    assert all(text.endswith("what a record takes") for text in kept.values())
    assert sum(len(codec.encode(text)) for text in kept.values()) < 3 * limits.OUTPUT_MAX


def test_children_that_print_little_lose_nothing_to_one_that_prints_much() -> None:
    kept = outputs_of({0: "x" * 10**6, 1: "little", 2: "as much"})
    assert (kept["1"], kept["2"]) == ("little", "as much")
