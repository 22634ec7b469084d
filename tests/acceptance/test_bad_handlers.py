"""Handlers that do wrong: the client is told which handler, version and invocation, and why; others never notice."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Shared
from tests.acceptance.service import Reply
from tests.acceptance.sources import ALL, FLAT, RETURN, combiner, map_to, mapper, module, note, reducer

FIRST = "yield MrConfigureToReturn()\n"
_NUMBERS = itertools.count(1)


@pytest.fixture
def neighbour(pair: Shared) -> Any:
    """Starts a request with forty slow children, which shares the worker's executors with what the test posts."""
    w = f"neighbour-{next(_NUMBERS)}"
    leaf = mapper("import time\n" + FIRST + "time.sleep(0.005)\nfor k, v in arguments: yield k, v")
    pair.define(w, {"start": (map_to("leaf", "[('n', n) for n in range(40)]"), FLAT), "leaf": (leaf, ALL)})
    r = pair.start(w)
    yield
    assert pair.result(w, r).pairs == [["n", list(range(40))]]
    pair.forget(w)


def blamed(pair: Shared, w: str, reply: Reply, handler: str = "start_map", path: str = "0") -> Any:
    """The error of a reply, which must name handler, version and invocation in its body, and type in its headers."""
    error = reply.error
    assert error["handler"] == handler
    assert error["version"] == pair.parts.registry.get_handler(w, handler).version
    assert error["invocation"] == f"{reply.request_id}.{path}"
    assert reply.headers["x-mr-exception-type"] == error["type"]
    assert reply.headers["x-mr-exception-message"]
    request = pair.request(w, reply.request_id)
    assert request.failed_invocation_id == error["invocation"]
    return error


RAISES = "def deeper():\n    raise RuntimeError('no luck')\n"

WRONG = {
    "nothing first": ("if False: yield", "protocol", "yields nothing first"),
    "a pair first": ("yield 'a', 1", "protocol", "yields a tuple first"),
    "no pair": (FIRST + "yield 'a'", "protocol", "str"),
    "three instead of two": (FIRST + "yield 1, 2, 3", "protocol", "3"),
    "configures twice": (FIRST + "yield MrConfigureToReturn()", "protocol", "Return"),
    "NaN": (FIRST + "yield 'a', float('nan')", "not_serialisable", "nan"),
    "infinity": (FIRST + "yield 'a', [1.0, float('inf')]", "not_serialisable", "inf"),
    "bytes": (FIRST + "yield 'a', b'raw'", "not_serialisable", "bytes"),
    "a set": (FIRST + "yield 'a', {1}", "not_serialisable", "set"),
    "an object": (FIRST + "yield 'a', object()", "not_serialisable", "object"),
    "keys that are no text": (FIRST + "yield 'a', {1: 2}", "not_serialisable", "key"),
    "cyclic": (FIRST + "a = []\na.append(a)\nyield 'a', a", "not_serialisable", ""),
    "a lone surrogate": (FIRST + "yield 'a', chr(0xd800)", "not_serialisable", "surrogate"),
    "bytes to a child": ("yield MrConfigureToMap('start')\nyield 'a', b'raw'", "not_serialisable", "bytes"),
    "a value over the limit": (FIRST + "yield 'a', 'x' * 600_000", "output_limit", "524288"),
    "raises at once": (RAISES + "deeper()\n" + FIRST, "exception", "no luck"),
    "raises midway": (RAISES + FIRST + "yield 'a', 1\ndeeper()", "exception", "no luck"),
    "StopIteration": (FIRST + "next(iter([]))", "exception", "StopIteration"),
    "no such name": (FIRST + "yield nothing_of_the_kind, 1", "exception", "nothing_of_the_kind"),
    "no such module": ("import nothing_of_the_kind\n" + FIRST, "exception", "nothing_of_the_kind"),
    "recursion": ("def f(): return f()\n" + FIRST + "f()", "exception", "recursion"),
    "sys.exit": ("import sys\n" + FIRST + "yield 'a', 1\nsys.exit(3)", "exit", "SystemExit(3)"),
    "os._exit": ("import os\n" + FIRST + "yield 'a', 1\nos._exit(7)", "exit", "code 7"),
    "os.abort": ("import os\n" + FIRST + "yield 'a', 1\nos.abort()", "signal", "SIGABRT"),
    "a segmentation fault": ("import ctypes\n" + FIRST + "ctypes.string_at(0)", "signal", "SIGSEGV"),
}


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(("code", "class_", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_mapper_fails_its_request_and_nobody_else(
    pair: Shared, w: str, code: str, class_: str, said: str
) -> None:
    pair.define(w, {"start": (mapper(code), ALL)})
    error = blamed(pair, w, pair.post(w, {"a": 1}))
    assert error["class"] == class_
    assert said in error["message"]


def test_the_traceback_has_the_lines_of_the_handler_as_it_was_stored(pair: Shared, w: str) -> None:
    source = mapper(RAISES + FIRST + "yield 'a', 1\ndeeper()")
    pair.define(w, {"start": (source, ALL)})
    traceback = pair.post(w).error["traceback"]
    lines = source.split("\n")
    for text in ("deeper()", "    raise RuntimeError('no luck')"):
        assert f'File "handler(start_map)", line {lines.index(text) + 1}' in traceback
    assert "RuntimeError: no luck" in traceback
    assert "/mr/" not in traceback


ENDS = {
    "raises": ("raise RuntimeError('no luck')", "exception", "no luck"),
    "yields no pair": ("yield 1", "protocol", "int"),
    "yields a key of bytes": ("yield b'', []", "not_serialisable", "bytes"),
    "dies": ("import os\nos._exit(5)", "exit", "code 5"),
}


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("capability", ["none", "gpu"], ids=["fused", "elsewhere"])
@pytest.mark.parametrize(("code", "class_", "said"), ENDS.values(), ids=ENDS)
def test_a_wrong_leaf_reducer_is_blamed_by_its_own_name(
    pair: Shared, w: str, code: str, class_: str, said: str, capability: str
) -> None:
    wrong = reducer(f"{code}\nif False: yield", capability=capability)
    pair.define(w, {"start": (RETURN, wrong)})
    error = blamed(pair, w, pair.post(w, {"a": 1}), "start_reduce")
    assert error["class"] == class_
    assert said in error["message"]


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(
    ("code", "class_", "said"),
    [*ENDS.values(), ("yield 'a', [b'']", "not_serialisable", "bytes"), ("yield 'a', 'no list'", "protocol", "list")],
    ids=[*ENDS, "yields a list of bytes", "yields no list"],
)
def test_a_wrong_combiner_is_blamed_by_its_own_name(pair: Shared, w: str, code: str, class_: str, said: str) -> None:
    pair.define(w, {"start": (RETURN, combiner(f"{code}\nif False: yield"), ALL)})
    error = blamed(pair, w, pair.post(w, {"a": 1}), "start_combine")
    assert error["class"] == class_
    assert said in error["message"]


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(("code", "class_", "said"), ENDS.values(), ids=ENDS)
def test_a_wrong_upper_reducer_is_blamed_by_its_own_name(
    pair: Shared, w: str, code: str, class_: str, said: str
) -> None:
    wrong = reducer(f"{code}\nif False: yield")
    pair.define(w, {"start": (map_to("leaf", "[(1, 1), (2, 2)]"), wrong), "leaf": (RETURN, ALL)})
    error = blamed(pair, w, pair.post(w), "start_reduce")
    assert error["class"] == class_
    assert said in error["message"]


@pytest.mark.usefixtures("neighbour")
def test_of_many_children_exactly_the_wrong_one_is_blamed(pair: Shared, w: str) -> None:
    leaf = mapper(FIRST + "for k, n in arguments:\n    if n == 37: raise KeyError(n)\n    yield k, n")
    pair.define(w, {"start": (map_to("leaf", "[('n', n) for n in range(60)]"), ALL), "leaf": (leaf, ALL)})
    error = blamed(pair, w, pair.post(w), "leaf_map", "0.37")
    assert (error["type"], error["message"]) == ("KeyError", "37")


@pytest.mark.usefixtures("neighbour")
def test_of_many_children_exactly_the_one_that_killed_its_executor_is_blamed(pair: Shared, w: str) -> None:
    leaf = mapper("import os\n" + FIRST + "for k, n in arguments:\n    if n == 37: os._exit(9)\n    yield k, n")
    pair.define(w, {"start": (map_to("leaf", "[('n', n) for n in range(60)]"), ALL), "leaf": (leaf, ALL)})
    error = blamed(pair, w, pair.post(w), "leaf_map", "0.37")
    assert (error["class"], error["attempt"]) == ("exit", 2)


HANDLE = "def handle({argument}, ctx):\n    {code}\n    yield 'a', 1"
LOOP = "while True: pass"


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("code", [LOOP, "import time; time.sleep(60)"], ids=["loops", "sleeps"])
def test_a_mapper_is_ended_when_its_time_is_over(pair: Shared, w: str, code: str) -> None:
    slow = module("mapper", HANDLE.format(argument="arguments", code=code), timeout_s=0.2)
    pair.define(w, {"start": (slow, ALL)})
    error = blamed(pair, w, pair.post(w))
    assert (error["class"], error["attempt"]) == ("timeout", 1)
    assert "0.2 s" in error["message"]


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("capability", ["none", "gpu"], ids=["fused", "elsewhere"])
def test_a_leaf_reducer_is_ended_when_its_own_time_is_over(pair: Shared, w: str, capability: str) -> None:
    code = HANDLE.format(argument="results", code=LOOP)
    pair.define(w, {"start": (RETURN, module("reducer", code, timeout_s=0.2, capability=capability))})
    error = blamed(pair, w, pair.post(w), "start_reduce")
    assert error["class"] == "timeout"


@pytest.mark.usefixtures("neighbour")
def test_a_combiner_is_ended_when_its_own_time_is_over(pair: Shared, w: str) -> None:
    code = HANDLE.format(argument="results", code=LOOP)
    pair.define(w, {"start": (RETURN, module("combiner", code, timeout_s=0.2), ALL)})
    error = blamed(pair, w, pair.post(w), "start_combine")
    assert error["class"] == "timeout"


def test_the_time_of_a_mapper_is_not_that_of_its_reducer(pair: Shared, w: str) -> None:
    """Each has 0.4 s, and together they take more."""
    mapping = "import time\n    time.sleep(0.25)"
    pair.define(
        w,
        {
            "start": (
                module("mapper", HANDLE.format(argument="arguments", code=mapping), timeout_s=0.4),
                module("reducer", HANDLE.format(argument="results", code=mapping), timeout_s=0.4),
            )
        },
    )
    assert pair.post(w).pairs == [["a", 1]]


def test_a_handler_that_raises_is_tried_once_by_default(pair: Shared, w: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    pair.define(w, {"start": (mapper(note(notes) + FIRST + "raise ValueError('no')"), ALL)})
    assert blamed(pair, w, pair.post(w))["attempt"] == 1
    assert notes.read_text().splitlines() == ["."]


# Fails `fails` times, by a file as its memory.
MEMORY = """
import os, sys

def handle({argument}, ctx):
    with open({notes!r}, "a+") as notes:
        notes.seek(0)
        before = len(notes.readlines())
        notes.write("tried\\n")
    if before < {fails}:
        {how}
    yield "a", before
"""


@pytest.mark.parametrize("how", ["raise ValueError('not yet')", "os._exit(1)", "sys.exit(1)", "os.abort()"])
@pytest.mark.parametrize("role", ["mapper", "reducer"])
def test_three_attempts_make_a_handler_succeed_that_fails_twice(
    pair: Shared, w: str, tmp_path: Path, how: str, role: Any
) -> None:
    notes = str(tmp_path / "notes")
    argument = "arguments" if role == "mapper" else "results"
    source = module(role, MEMORY.format(argument=argument, notes=notes, fails=2, how=how), attempts=3)
    pair.define(w, {"start": (source, ALL) if role == "mapper" else (RETURN, source)})
    reply = pair.post(w, {"x": 1})
    assert reply.pairs == [["a", [2] if role == "mapper" else 2]]
    attempts = {key: value for key, value in pair.facts(w, reply.request_id).items() if key.startswith("attempt/")}
    assert len(attempts) == 2


def test_a_handler_that_fails_more_often_than_it_has_attempts_fails_with_the_last(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    code = MEMORY.format(argument="arguments", notes=str(tmp_path / "notes"), fails=9, how="raise ValueError(before)")
    pair.define(w, {"start": (module("mapper", code, attempts=3), ALL)})
    error = blamed(pair, w, pair.post(w))
    assert (error["message"], error["attempt"]) == ("2", 3)


@pytest.mark.parametrize(("fails", "succeeds"), [(1, True), (2, False)])
def test_an_executor_that_ends_by_itself_gets_a_second_try(
    pair: Shared, w: str, tmp_path: Path, fails: int, succeeds: bool
) -> None:
    notes = tmp_path / "notes"
    code = MEMORY.format(argument="arguments", notes=str(notes), fails=fails, how="os._exit(1)")
    pair.define(w, {"start": (module("mapper", code), ALL)})
    reply = pair.post(w)
    if succeeds:
        assert reply.pairs == [["a", [1]]]
    else:
        assert blamed(pair, w, reply)["attempt"] == 2
    assert notes.read_text().splitlines() == ["tried"] * 2


def test_a_mapper_is_not_run_again_when_its_reducer_fails(pair: Shared, w: str, tmp_path: Path) -> None:
    notes = tmp_path / "mapped"
    source = MEMORY.format(argument="results", notes=str(tmp_path / "notes"), fails=2, how="raise ValueError()")
    pair.define(w, {"start": (mapper(note(notes) + FIRST + "yield 1, 1"), module("reducer", source, attempts=3))})
    assert pair.post(w).pairs == [["a", 2]]
    assert notes.read_text().splitlines() == ["."]
