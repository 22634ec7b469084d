"""What a worker does with small quick trees, which an executor runs in one go: whatever goes wrong in there is blamed
on who did it, as if each level had been ordered by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.acceptance.conftest import Shared
from tests.acceptance.sources import module, reducer

SPREAD = """
def handle(arguments, ctx):
    ctx.map_to("leaf")
    yield from dict(arguments)["of"]
"""
LEAF = """
import os, re, time

def handle(arguments, ctx):
    [(_, way)] = arguments
    if way == "raises":
        raise KeyError("no luck")
    elif way == "exits":
        os._exit(7)
    elif way == "sleeps":
        time.sleep(60)
    elif way == "holds the interpreter":
        re.match("(a+)+$", "a" * 40 + "b")
    yield way, 1
"""
GOOD = [["k", "plain"], ["k", "plain"], ["k", "plain"]]
TOTAL = """
counts = {}
for key, values in results:
    for value in values:
        counts[key] = counts.get(key, 0) + value
if "upsets the reducer" in counts:
    raise ValueError("upset")
yield from sorted(counts.items())
"""


@pytest.fixture(scope="module")
def flow(pair: Shared) -> Iterator[str]:
    """A workflow whose quick tree is known to the worker, so that an executor goes on with it by itself."""
    name, leaf = "descents", module("mapper", LEAF, timeout_s=1)
    steps = {"start": (module("mapper", SPREAD), reducer(TOTAL)), "leaf": (leaf, reducer(TOTAL))}
    pair.define(name, steps)
    for _ in range(10):
        assert pair.post(name, {"of": GOOD}).pairs == [["plain", 3]]
    yield name
    pair.forget(name)


WAYS: dict[str, tuple[str, str, str, str]] = {
    "raises": ("exception", "no luck", "leaf_map", "0.1"),
    "exits": ("exit", "code 7", "leaf_map", "0.1"),
    "sleeps": ("timeout", "1 s", "leaf_map", "0.1"),
    "holds the interpreter": ("timeout", "1 s", "leaf_map", "0.1"),
    "upsets the reducer": ("exception", "upset", "leaf_reduce", "0.1"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_fails_below_is_blamed_on_who_did_it(pair: Shared, flow: str, way: str) -> None:
    class_, message, handler, path = WAYS[way]
    reply = pair.post(flow, {"of": [["k", "plain"], ["k", way], ["k", "plain"]]})
    error: Any = reply.error
    assert (error["class"], error["handler"]) == (class_, handler)
    assert message in error["message"]
    assert error["invocation"] == f"{reply.request_id}.{path}"
    assert pair.post(flow, {"of": GOOD}).pairs == [["plain", 3]]


def test_a_tree_that_was_run_in_one_go_is_traced_as_any_other(pair: Shared, flow: str) -> None:
    reply = pair.post(flow, {"of": GOOD})
    facts = pair.facts(flow, reply.request_id)
    assert reply.pairs == [["plain", 3]]
    assert any("manifest/0" in key for key in facts)
    assert any("done/0/0" in key for key in facts)
