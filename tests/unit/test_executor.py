"""What handlers may rely on when they run: the numbered behaviours, on a real executor process."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mr.codec import Items, encode
from mr.worker import frames
from mr.worker.executor_process import TRIM_EVERY_S, ExecutorGone
from mr.worker.frames import Limits
from tests.unit.executors import ALL, RETURN, SAME, SUM, Bench, bench, until

COUNT = "yield 'rows', len(results)\n"
MAP = 'yield MrConfigureToMap("next")\n'


@pytest.fixture
async def one() -> Any:
    async with bench() as running:
        yield running


# The generator protocol: JX-60 to 62.


async def test_pairs_after_map_are_the_arguments_of_one_child_each(one: Bench) -> None:
    run = await one.map(MAP + "for key, value in arguments:\n    yield key, value\n    yield [value, (1, 2)]\n")
    assert run.closed[0].step == "next"
    assert run.closed[0].count == 2
    assert run.lists[0, "arguments"] == [[["k", 1]], [[1, [1, 2]]]]


async def test_arguments_are_a_list_of_tuples(one: Bench) -> None:
    run = await one.map(RETURN + 'yield "x", [repr(arguments), type(arguments).__name__]\n', [[["a", [1]], [2, None]]])
    assert run.result() == [["x", [["[('a', [1]), (2, None)]", "list"]]]]


async def test_arguments_are_cast_to_the_declared_type(one: Bench) -> None:
    run = await one.map(RETURN + 'yield "x", arguments["a"]\n', [[["a", 7]]], cast="dict")
    assert run.result() == [["x", [7]]]


@pytest.mark.parametrize(
    ("mapper", "said"),
    [
        ("return\nyield", "yields nothing first"),
        ("yield 'k', 1", "yields a tuple first"),
        ("yield None", "yields a NoneType first"),
        ("return 5", "is no generator, it gave a int"),
        ("import os", "is no generator, it gave a NoneType"),
        ("yield MrConfigureToMap(5)", "takes the name of a step"),
        (RETURN + RETURN, "yields MrConfigureToReturn(…), which only the first yield"),
        (RETURN + MAP, "yields MrConfigureToMap(…), which only the first yield"),
        (MAP + RETURN, "yields MrConfigureToReturn(…), which only the first yield"),
        (RETURN + "yield 5", "yields a value of type int; expected a (key, value) pair"),
        (RETURN + "yield 'ab'", "expected a (key, value) pair"),
        (RETURN + "yield (1, 2, 3)", "yields a tuple of 3; expected a (key, value) pair"),
        (MAP + "yield (1,)", "yields a tuple of 1; expected a (key, value) pair"),
    ],
)
async def test_a_mapper_that_breaks_the_protocol_fails_with_what_was_expected(
    one: Bench, mapper: str, said: str
) -> None:
    failure = (await one.map(mapper)).failure()
    assert failure.class_ == "protocol"
    assert said in failure.message
    assert failure.kind == "map"
    assert failure.handler == "the_mapper"
    if "first" in said and "no generator" not in said:
        assert "step the_step: mapper the_mapper" in failure.message


async def test_a_namedtuple_and_a_list_are_pairs(one: Bench) -> None:
    source = "from collections import namedtuple\n" + RETURN + "yield namedtuple('P', 'k v')(1, 2)\nyield [3, 4]\n"
    assert (await one.map(source)).result() == [[1, [2]], [3, [4]]]


async def test_a_module_returns_data_unless_it_maps_before_its_first_yield(one: Bench) -> None:
    returns = "def handle(arguments, ctx):\n    for k, v in arguments:\n        yield k, v\n"
    maps = "def handle(arguments, ctx):\n    ctx.map_to('next')\n    yield 'a', 1\n    yield 'b', 2\n"
    nothing = "def handle(arguments, ctx):\n    return\n    yield\n"
    none = "def handle(arguments, ctx):\n    ctx.map_to('next')\n    return\n    yield\n"
    assert (await one.map(returns)).result() == [["k", [1]]]
    run = await one.map(maps)
    assert run.closed[0].step == "next"
    assert run.lists[0, "arguments"] == [[["a", 1]], [["b", 2]]]
    assert (await one.map(nothing)).result() == []
    assert (await one.map(none)).closed[0].count == 0


async def test_a_module_that_maps_too_late_breaks_the_protocol(one: Bench) -> None:
    late = "def handle(arguments, ctx):\n    yield 'a', 1\n    ctx.map_to('next')\n    yield 'b', 1\n"
    failure = (await one.map(late)).failure()
    assert failure.class_ == "protocol"
    assert "came after the first yield" in failure.message


async def test_a_module_is_executed_once_and_a_body_has_new_globals_each_time(one: Bench) -> None:
    module = "seen = []\ndef handle(arguments, ctx):\n    seen.append(1)\n    yield 'n', len(seen)\n"
    body = "global seen\nseen = globals().get('seen', 0) + 1\n" + RETURN + "yield 'n', seen\n"
    thrice: list[Any] = [[["k", 1]]] * 3
    assert list((await one.map(module, thrice)).results_of.values()) == [[["n", [1]]], [["n", [2]]], [["n", [3]]]]
    assert list((await one.map(body, thrice)).results_of.values()) == [[["n", [1]]]] * 3


async def test_a_module_may_hold_dataclasses(one: Bench) -> None:
    module = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
        "def handle(arguments, ctx):\n    yield 'x', P(3).x\n"
    )
    assert (await one.map(module)).result() == [["x", [3]]]


async def test_results_of_a_module_are_an_iterator_and_of_a_body_a_list(one: Bench) -> None:
    module = "def handle(results, ctx):\n    assert iter(results) is results\n    yield from results\n"
    body = "assert len(results) == 1 and results[0] == ('k', [1])\nyield type(results).__name__, 0\n"
    assert (await one.map(SAME, reducer=module)).result() == [["k", [1]]]
    assert (await one.map(SAME, reducer=body)).result() == [["list", 0]]


# Combine and reduce: JX-63 to 70.


async def test_the_default_combiner_groups_keys_of_mixed_types(one: Bench) -> None:
    source = RETURN + "yield 1, 'x'\nyield 'a', 'y'\nyield [1, 2], 'z'\nyield 1, 'w'\n"
    run = await one.map(source, reducer=None)
    assert run.lists[0, "rows"] == [["a", ["y"]], [1, ["x", "w"]], [[1, 2], ["z"]]]


async def test_keys_are_equal_when_their_canonical_json_is(one: Bench) -> None:
    source = RETURN + (
        "for key in (1, 1.0, True, None, '1', {'a': 1, 'b': 2}, {'b': 2, 'a': 1}, (1,), [1], 'é', 'é', 2**70, 2**70):\n"
        "    yield key, 0\n"
    )
    rows = (await one.map(source, reducer=None)).lists[0, "rows"]
    assert sorted(len(values) for _, values in rows) == [1] * 5 + [2] * 4
    assert [key for key, values in rows if len(values) == 2] == ["é", 2**70, [1], {"a": 1, "b": 2}]
    fused = (await one.map(source, reducer="for k, v in results:\n    yield k, len(v)\n")).result()
    assert fused == [[key, len(values)] for key, values in rows]


async def test_a_value_is_fixed_when_it_is_yielded(one: Bench) -> None:
    source = RETURN + "grow = []\nfor n in range(3):\n    grow.append(n)\n    yield 'k', grow\n"
    assert (await one.map(source)).result() == [["k", [[0], [0, 1], [0, 1, 2]]]]


async def test_a_fused_reducer_sees_values_as_json_gives_them(one: Bench) -> None:
    source = RETURN + "yield 'k', (1, (2,))\nyield 'k', {'a': (1,)}\n"
    assert (await one.map(source, reducer="yield 'x', repr(results)\n")).result() == [
        ["x", "[('k', [[1, [2]], {'a': [1]}])]"]
    ]


async def test_a_custom_combiner_gets_the_pairs_and_its_rows_reach_the_reducer_in_its_order(one: Bench) -> None:
    source = RETURN + "yield 'b', (1,)\nyield 'a', 2\nyield 'b', 3\n"
    combiner = "assert results == [('b', [1]), ('a', 2), ('b', 3)], results\nyield 'z', [len(results)]\nyield 'a', ()\n"
    run = await one.map(source, combiner=combiner, reducer=None)
    assert run.lists[0, "rows"] == [["z", [3]], ["a", []]]
    assert (await one.map(source, combiner=combiner)).result() == [["z", [3]], ["a", []]]


async def test_a_combiner_module_gets_an_iterator(one: Bench) -> None:
    combiner = "def handle(results, ctx):\n    yield 'all', [k for k, v in results]\n"
    assert (await one.map(SAME, combiner=combiner)).result() == [["all", ["k"]]]


@pytest.mark.parametrize("values", ["5", "'abc'", "None", "{1: 2}"])
async def test_a_combiner_that_yields_no_list_breaks_the_protocol(one: Bench, values: str) -> None:
    failure = (await one.map(SAME, combiner=f"yield 'k', {values}\n")).failure()
    assert (failure.class_, failure.kind, failure.handler) == ("protocol", "combine", "the_combiner")
    assert "expected (key, list of values)" in failure.message


async def test_a_reducer_may_return_an_iterable(one: Bench) -> None:
    module = "def handle(results, ctx):\n    return [(k, sum(v)) for k, v in results]\n"
    assert (await one.map(SAME, reducer=module)).result() == [["k", 1]]


@pytest.mark.parametrize("given", ["None", "5", "'text'", "{'a': 1}"])
async def test_a_reducer_that_gives_no_pairs_breaks_the_protocol(one: Bench, given: str) -> None:
    failure = (await one.map(SAME, reducer=f"def handle(results, ctx):\n    return {given}\n")).failure()
    assert (failure.class_, failure.kind) == ("protocol", "reduce")
    assert "expected a generator" in failure.message


async def test_empty_sets_are_legal_everywhere(one: Bench) -> None:
    run = await one.map(RETURN, reducer="yield 'n', len(results)\n")
    assert run.result() == [["n", 0]]
    assert "WARNING" in run.outputs[0]
    assert (await one.map(SAME, reducer="return\nyield\n")).result() == []
    run = await one.map(MAP)
    assert run.closed[0].count == 0
    assert "mapped to no children" in run.outputs[0]
    run = await one.map(RETURN, reducer=None)
    assert run.lists[0, "rows"] == []
    assert (await one.reduce("yield 'n', len(results)\n", "datasets", [])).result(5) == [["n", 0]]
    assert (await one.reduce("yield 'n', len(results)\n", "rows", [])).result(5) == [["n", 0]]


async def test_an_upper_reduce_groups_the_pairs_of_all_children_by_key_in_child_order(one: Bench) -> None:
    datasets = [[["b", 1], ["a", [1]]], [["a", [2]]], [], [["a", 3], [[1, 2], 4]], [[[1, 2], 5]]]
    run = await one.reduce(ALL, "datasets", datasets)
    assert run.result(5) == [["a", [[1], [2], 3]], ["b", [1]], [[1, 2], [4, 5]]]


async def test_a_big_child_may_come_as_pairs_between_datasets(one: Bench) -> None:
    recorder = one.start_reduce(ALL)
    await one.process.send_input("datasets", Items.of([encode([["a", 1]])]))
    await one.process.send_input("pairs", Items.of([encode(["a", 2]), encode(["b", 2])]))
    await one.process.send_input("datasets", Items.of([encode([["a", 3]])]))
    one.process.end_input()
    await one.finish(recorder)
    assert recorder.result(5) == [["a", [1, 2, 3]], ["b", [2]]]


async def test_rows_reach_the_reducer_as_they_are(one: Bench) -> None:
    rows = [["b", [1, [2]]], ["a", []], ["b", [3]], ["c", [1]], ["c", [2], 1]]
    assert (await one.reduce(ALL, "rows", rows)).result(5) == [
        ["b", [1, [2]]],
        ["a", []],
        ["b", [3]],
        ["c", [1, 2]],
    ]


async def test_ints_tuples_and_the_order_of_pairs_survive(one: Bench) -> None:
    reducer = "yield 10, (1, 'é')\nyield 2, None\nyield 10, {'b': 1.5, 'a': 2**80}\n"
    run = await one.map(SAME, reducer=reducer)
    assert run.result() == [[10, [1, "é"]], [2, None], [10, {"b": 1.5, "a": 2**80}]]
    assert list(run.result()[2][1]) == ["b", "a"]


# Fused reduce that fails.


async def test_a_failed_fused_reduce_gives_the_rows_back_untouched(one: Bench) -> None:
    source = "S_SET('s', [1])\n" + RETURN + "yield 'b', [1]\nyield 'a', 2\nyield 'b', [3]\n"
    reducer = "for key, values in results:\n    values.clear()\nresults.clear()\nyield 'x', 1\nraise ValueError('no')\n"
    run = await one.map(source, reducer=reducer)
    failure = run.failure()
    assert failure.returned
    assert (failure.class_, failure.kind, failure.type, failure.message) == ("exception", "reduce", "ValueError", "no")
    assert failure.handler == "the_reducer"
    assert run.lists[0, "rows"] == [["a", [2]], ["b", [[1], [3]]]]
    assert run.sessions[0] == {"s": [1]}
    run = await one.map(source, combiner="yield 'c', [results]\n", reducer=reducer)
    assert run.failure().returned
    assert run.lists[0, "rows"] == [["c", [[["b", [1]], ["a", 2], ["b", [3]]]]]]


async def test_a_failed_mapper_or_combiner_gives_nothing_back(one: Bench) -> None:
    run = await one.map("S_SET('s', 1)\n" + RETURN + "yield 1, 1\nraise ValueError('no')\n")
    assert not run.failure().returned
    assert run.failure().kind == "map"
    assert not run.lists
    assert run.sessions[0] == {}
    run = await one.map(SAME, combiner="yield 1, [1]\n1 / 0\n")
    assert (run.failure().kind, run.failure().returned) == ("combine", False)


# Runs of many children.


async def test_children_are_reported_in_order_and_a_failed_one_does_not_stop_the_others(one: Bench) -> None:
    source = (
        "n = arguments[0][1]\nif n == 13:\n    raise KeyError(n)\n"
        "if n == 20:\n    yield MrConfigureToMap('deep')\nelse:\n    yield MrConfigureToReturn()\nyield 'k', n\n"
    )
    run = one.start_map(source, [[["k", n]] for n in range(50)], first=1000)
    assert await one.finish(run) == 1050
    assert run.failure(1013).message == "13"
    assert run.lists[1020, "arguments"] == [[["k", 20]]]
    assert run.results_of == {1000 + n: [["k", [n]]] for n in range(50) if n not in (13, 20)}
    seen: list[int] = []
    for frame in run.order:
        seen.append(frame.first if isinstance(frame, frames.Results) else getattr(frame, "child", 10**6))
    assert seen == sorted(seen)
    assert set(run.us) == set(range(1000, 1050))


async def test_a_run_stops_after_the_current_child_when_asked(one: Bench) -> None:
    source = "import time\ntime.sleep(0.2)\n" + SAME
    run = one.start_map(source, [[["k", n]] for n in range(1000)])
    await until(lambda: one.process.current() is not None, "the first child")
    one.process.stop_after_current()
    following = await one.finish(run)
    assert 1 <= following < 10
    assert sorted(run.results_of) == list(range(following))
    again = await one.map(SAME, [[["k", 1]]] * 3)
    assert len(again.results_of) == 3


async def test_results_do_not_wait_behind_a_long_child(one: Bench) -> None:
    source = "if arguments[0][1] == 5:\n    import time\n    time.sleep(60)\n" + SAME
    run = one.start_map(source, [[["k", n]] for n in range(6)])
    await until(lambda: len(run.results_of) == 5, "results of the quick children")
    current = one.process.current()
    assert current is not None
    assert current.child == 5
    assert current.finished == 5
    assert current.seconds < 30


async def test_big_lists_leave_in_pieces(one: Bench) -> None:
    source = "for n in range(5000):\n    yield n, 'x' * 300\n"
    run = await one.map(MAP + source)
    assert run.closed[0].count == 5000
    assert [pair[0][0] for pair in run.lists[0, "arguments"]] == list(range(5000))
    assert run.chunk_bytes
    assert max(run.chunk_bytes) < 300_000
    run = await one.map(RETURN + source, reducer=None)
    assert len(run.lists[0, "rows"]) == 5000
    assert max(run.chunk_bytes) < 300_000
    run = await one.map(RETURN + source)
    assert sorted(pair[0] for pair in run.result()) == list(range(5000))
    assert isinstance(run.closed[0], frames.Reduced)
    small = await one.map(RETURN + "for n in range(3000):\n    yield n % 7, n\n", reducer=SUM)
    assert small.result() == [[k, sum(range(k, 3000, 7))] for k in range(7)]
    assert not small.closed
    many = await one.map(SAME, reducer="for n in range(1500):\n    yield n, n\n")
    assert many.results_of[0] == [[n, n] for n in range(1500)]


async def test_a_big_failed_fused_reduce_gives_all_rows_back(one: Bench) -> None:
    source = RETURN + "for n in range(5000):\n    yield n, 'x' * 300\n"
    run = await one.map(source, reducer="for row in results:\n    yield row\n1 / 0\n")
    assert run.failure().returned
    assert len(run.lists[0, "rows"]) == 5000


async def test_a_big_custom_combiner_keeps_its_order(one: Bench) -> None:
    source = RETURN + "for n in range(5000):\n    yield n, 'x' * 300\n"
    combiner = "for key, value in results:\n    yield key, [value, key]\n"
    run = await one.map(source, combiner=combiner, reducer="yield 'n', [k for k, v in results]\n")
    assert run.result() == [["n", list(range(5000))]]
    run = await one.map(source, combiner=combiner, reducer=None)
    assert [row[0] for row in run.lists[0, "rows"]] == list(range(5000))
    assert run.lists[0, "rows"][7] == [7, ["x" * 300, 7]]


async def test_a_huge_group_leaves_in_rows_that_continue_each_other(one: Bench) -> None:
    source = RETURN + "for n in range(20000):\n    yield 'k', str(n) + 'x' * 300\n"
    rows = (await one.map(source, reducer=None)).lists[0, "rows"]
    assert len(rows) > 2
    assert [len(row) for row in rows] == [2] + [3] * (len(rows) - 1)
    values = [value for row in rows for value in row[1]]
    assert [int(value.rstrip("x")) for value in values] == list(range(20000))
    back = await one.reduce("for k, v in results:\n    yield k, [len(v), v[0][:3], v[-1][:6]]\n", "rows", rows)
    assert back.result(5) == [["k", [20000, "0xx", "19999x"]]]


async def test_a_big_reduce_spills_and_gives_the_same(one: Bench) -> None:
    elements = [[[f"key{n * 7919 % 20000}", "v" * 500]] for n in range(20000)]
    limits = Limits(grouping=2 * 1024 * 1024)
    body = (
        "assert len(results) == 20000 and results[0][0] == 'key0' and results[-1][0] == 'key9999'\n"
        "assert type(results).__name__ == 'Table' and results\n"
        "n = 0\nfor key, values in results:\n    n += len(values)\nyield 'n', n\n"
    )
    recorder = one.start_reduce(body, limits=limits)
    for start in range(0, 20000, 500):
        documents = [encode(one_child) for one_child in elements[start : start + 500]]
        await one.process.send_input("datasets", Items.of(documents))
    one.process.end_input()
    await one.finish(recorder)
    assert recorder.result(5) == [["n", 20000]]


# Sessions: JX-75 to 78.


async def test_a_session_reaches_combiner_and_reducer_and_no_other_child(one: Bench) -> None:
    source = "before = S_LIST()\nS_SET('a', 1)\nS_SET('a', (arguments[0][1],))\n" + RETURN + "yield 'k', before\n"
    combiner = "S_SET('c', S_GET('a'))\nyield 'k', [value for key, value in results]\n"
    reducer = "yield 'got', [S_LIST(), results]\n"
    run = await one.map(source, [[["k", 1]], [["k", 2]]], combiner=combiner, reducer=reducer)
    assert run.result(0) == [["got", [[["a", [1]], ["c", [1]]], [["k", [[]]]]]]]
    assert run.result(1) == [["got", [[["a", [2]], ["c", [2]]], [["k", [[]]]]]]]
    assert run.sessions == {0: {"a": [1], "c": [1]}, 1: {"a": [2], "c": [2]}}
    run = await one.map(source, reducer=None)
    assert run.closed[0].session
    assert run.sessions[0] == {"a": [1]}
    run = await one.map("S_SET('m', None)\n" + MAP)
    assert run.sessions[0] == {"m": None}


async def test_a_reducer_reads_the_session_that_it_is_given(one: Bench) -> None:
    run = await one.reduce("yield S_GET('a'), S_LIST()\n", "rows", [], session={"a": 1, "b": [2]})
    assert run.result(5) == [[1, [["a", 1], ["b", [2]]]]]
    run = await one.reduce("yield 0, S_LIST()\n", "rows", [])
    assert run.result(5) == [[0, []]]


@pytest.mark.parametrize(
    "reducer", ["S_SET('x', 1)\nyield 1, 1\n", "try:\n    S_SET('x', 1)\nexcept Exception: pass\nyield 1, 1\n"]
)
async def test_a_session_write_in_a_reducer_fails_the_invocation(one: Bench, reducer: str) -> None:
    message = "Session writes are disabled from the current context."
    run = await one.map("S_SET('kept', 1)\n" + SAME, reducer=reducer)
    assert run.failure().message == message
    assert run.sessions[0] == {"kept": 1}
    assert (await one.reduce(reducer, "rows", [])).failure(5).message == message
    assert (await one.map("S_SET('x', 1)\n" + SAME)).result() == [["k", [1]]]


async def test_a_missing_session_key_is_named(one: Bench) -> None:
    failure = (await one.map("S_GET('what')\n" + RETURN)).failure()
    assert (failure.type, failure.message) == ("KeyError", "'what'")


async def test_session_values_are_checked(one: Bench) -> None:
    assert (await one.map("S_SET('a', {1})\n" + RETURN)).failure().class_ == "not_serialisable"
    assert (await one.map("S_SET(1, 1)\n" + RETURN)).failure().type == "TypeError"
    limits = Limits(session=1000)
    assert (await one.map("S_SET('a', 'x' * 997)\n" + SAME, limits=limits)).result()
    over = (await one.map("S_SET('a', 'x' * 998)\n" + SAME, limits=limits)).failure()
    assert over.class_ == "output_limit"
    assert "the limit is 1000" in over.message


async def test_ctx_offers_the_same_as_the_injected_names(one: Bench) -> None:
    module = (
        "def handle(arguments, ctx):\n"
        "    ctx.session.set('a', 1); ctx.session['b'] = 2\n"
        "    assert S_GET('a') == ctx.session['a'] == 1 and 'b' in ctx.session and ctx.session.get('c', 3) == 3\n"
        "    assert ctx.session.list() == S_LIST() == [('a', 1), ('b', 2)] and dict(ctx.session) == {'a': 1, 'b': 2}\n"
        "    ctx.log.info('hello %s', 'you'); ctx.run(['true'])\n"
        "    yield ctx.request, ctx.invocation\n"
    )
    run = await one.map(module, first=7)
    assert run.result(7) == [["f" * 40, ["f" * 40 + ".0.5.7"]]]
    assert run.outputs[7] == "INFO [the_mapper] hello you\n"
    module = "def handle(results, ctx):\n    yield ctx.invocation, 0\n"
    assert (await one.reduce(module, "rows", [])).result(5) == [["f" * 40 + ".0.5.r", 0]]


# Scope: JX-33 to 37.


async def test_who_names_the_collections_has_them(one: Bench) -> None:
    run = await one.map("there = 'COLLECTIONS' in globals()\n" + RETURN + "yield 'there', there\n")
    assert run.result() == [["there", [True]]]


async def test_the_scope_has_exactly_the_documented_names(one: Bench) -> None:
    run = await one.map("names = sorted(globals())\n" + RETURN + "yield __name__, names\n")
    [[name, [names]]] = run.result()
    assert name == "handler(the_mapper)"
    assert set(names) == {
        *("MrConfigureToMap", "MrConfigureToReturn", "S_GET", "S_SET", "S_LIST", "FS", "SEP", "JOIN", "LOG", "NOTIFY"),
        *("PRINT", "RUN", "EMAIL", "HTTP", "__name__", "__builtins__"),
    }


@pytest.mark.parametrize(
    ("use", "variable"),
    [
        ("FS.open('x')", "MR_FS_URL"),
        ("list(FS.ls(''))", "MR_FS_URL"),
        ("EMAIL.info('x')", "MR_LOG_EMAIL_HOOK"),
        ("HTTP.error('x')", "MR_LOG_HTTP_HOOK"),
    ],
)
async def test_what_is_not_configured_names_its_setting_when_used(one: Bench, use: str, variable: str) -> None:
    failure = (await one.map(f"{use}\n{RETURN}")).failure()
    assert failure.type == "NotConfigured"
    assert variable in failure.message


async def test_small_names_do_what_they_say(one: Bench) -> None:
    source = (
        "PRINT('said'); LOG.warning('%d of %s', 1, 'x'); LOG.error('100%'); NOTIFY.info('note %s', 1)\n"
        + RETURN
        + "yield JOIN('a', 'b', 'c'), SEP\n"
    )
    run = await one.map(source)
    assert run.result() == [["a/b/c", ["/"]]]
    assert run.outputs[0].splitlines() == [
        "said",
        "WARNING [the_mapper] 1 of x",
        "ERROR [the_mapper] 100%",
        "INFO [the_mapper NOTIFY] note 1",
    ]


async def test_run_feeds_echoes_and_checks(one: Bench) -> None:
    source = (
        "a = RUN(['cat'], input_data='in\\n')\n"
        "b = RUN(['sh', '-c', 'echo $X >&2; exit 3'], success_code=3, env={'X': 'y'})\n"
        "c = RUN(['false'], success_code=None)\nd = RUN(['true'], input_data='x' * 10**6)\n"
        + RETURN
        + "yield 'codes', [a, b, c, d]\n"
    )
    run = await one.map(source)
    assert run.result() == [["codes", [[0, 3, 1, 0]]]]
    assert run.outputs[0] == "in\ny\n"
    failure = (await one.map("RUN(['false'])\n" + RETURN)).failure()
    assert failure.type == "ValueError"
    assert failure.message.startswith("Command failed: ['false']")


# Tracebacks: JX-18.


async def test_a_traceback_has_the_handlers_file_lines_and_text_and_nothing_of_ours(one: Bench) -> None:
    source = '"""Doc\n**\n"""\ndef inner():\n    raise ValueError("deep é")\n\n' + RETURN + "inner()\n"
    failure = (await one.map(source)).failure()
    assert (failure.class_, failure.type, failure.message) == ("exception", "ValueError", "deep é")
    assert 'File "handler(the_mapper)", line 8, in handle\n    inner()' in failure.traceback
    assert 'File "handler(the_mapper)", line 5, in inner\n    raise ValueError("deep é")' in failure.traceback
    assert "/mr/" not in failure.traceback
    assert failure.traceback.endswith("ValueError: deep é\n")


async def test_a_refused_value_names_step_handler_place_and_line(one: Bench) -> None:
    failure = (await one.map(RETURN + "yield 'k', 1\nyield 'k', {'a': [1, {2}]}\n")).failure()
    assert failure.class_ == "not_serialisable"
    assert failure.type == "NotSerialisable"
    assert "step the_step: mapper the_mapper yields a value" in failure.message
    assert "$.a[1] is a set" in failure.message
    assert 'File "handler(the_mapper)", line 3, in handle' in failure.traceback


async def test_chained_exceptions_are_told_without_our_frames(one: Bench) -> None:
    source = "try:\n    S_GET('x')\nexcept KeyError as error:\n    raise RuntimeError('outer') from error\nyield\n"
    failure = (await one.map(source)).failure()
    assert "KeyError: 'x'" in failure.traceback
    assert "direct cause" in failure.traceback
    assert "scope.py" not in failure.traceback


# Output.


async def test_output_of_every_kind_belongs_to_its_child_in_order(one: Bench) -> None:
    source = (
        "import os, sys, ctypes\nn = arguments[0][1]\n"
        "if n % 2:\n"
        "    print('py', n, end='')\n    os.write(1, b'|fd1')\n    print('|err', file=sys.stderr, end='')\n"
        "    os.write(2, b'|fd2'); sys.stdout.buffer.write(b'|buf'); os.system('echo \"|sh\"')\n"
        "    ctypes.CDLL(None).dprintf(1, b'native')\n" + SAME
    )
    run = await one.map(source, [[["k", n]] for n in range(6)])
    assert run.outputs == {n: f"py {n}|fd1|err|fd2|buf|sh\nnative" for n in (1, 3, 5)}
    assert len(run.results_of) == 6
    run = await one.map(
        "print('m')\n" + SAME, combiner="print('c')\nyield 1, [1]\n", reducer="print('r')\nyield 1, 1\n"
    )
    assert run.outputs == {0: "m\nc\nr\n"}
    assert (await one.map("print('before')\n1 / 0\nyield\n")).outputs == {0: "before\n"}


async def test_output_is_cut_at_the_limit_and_flagged(one: Bench) -> None:
    limits = Limits(output=100)
    run = await one.map("print('x' * 99)\n" + SAME, limits=limits)
    assert run.outputs[0] == "x" * 99 + "\n"
    run = await one.map("print('x' * 100)\n" + SAME, limits=limits)
    assert run.outputs[0] == "x" * 100 + "\n… output cut at 100 bytes (MR_HANDLER_OUTPUT_MB)"
    run = await one.map("PRINT(chr(0) + 'z' + chr(0xd800))\n" + SAME)
    assert run.outputs[0] == "\0z\\ud800\n"
    assert run.result() == [["k", [1]]]


async def test_the_last_line_can_be_told_while_a_handler_runs(one: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    source = (
        "import os, time\nprint(arguments[0][1], end='')\n"
        f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n" + SAME
    )
    # What no record takes is given back while it runs; the line that came last is there all the same.
    many = "x" * 2_000_000 + "\n"
    texts = ["one\ntwo\n \n\n", " 10%\r 20%\r", "\u20ac" * 5000, many + "three\n"]
    lines = ["two", "20%", "\u20ac" * 199 + "…", "three"]
    for text, line in zip(texts, lines, strict=True):
        run = one.start_map(source, [[["k", text]]], limits=Limits(output=8192))
        await until(lambda line=line: one.process.last_line() == line, repr(line[:20]))
        await asyncio.sleep(3 * TRIM_EVERY_S)
        assert one.process.last_line() == line
        gate.touch()
        await one.finish(run)
        gate.unlink()
    assert one.process.last_line() == ""


async def test_stdin_is_empty(one: Bench) -> None:
    source = "import sys, os\n" + RETURN + "yield 'in', [sys.stdin.read(), os.read(0, 1) == b'']\n"
    assert (await one.map(source)).result() == [["in", [["", True]]]]


# Limits: both sides.


async def test_a_key_or_value_at_the_limit_passes_and_beyond_fails(one: Bench) -> None:
    limits = Limits(value=1000)
    for template in ("'k', {}", "{}, 'v'"):
        fits = template.format("'x' * 998")
        over = template.format("'x' * 999")
        for noun, source in (("mapper", RETURN + "yield {}\n"), ("mapper", MAP + "yield {}\n")):
            run = await one.map(source.format(fits), limits=limits, reducer=COUNT)
            assert 0 in run.results_of or isinstance(run.closed[0], frames.Mapped)
            failure = (await one.map(source.format(over), limits=limits)).failure()
            assert failure.class_ == "output_limit"
            assert noun in failure.message
    assert (await one.map(SAME, combiner="yield 'k', ['x' * 998] * 9\n", reducer=COUNT, limits=limits)).result()
    assert (await one.map(SAME, combiner="yield 'k', ['x' * 999] * 9\n", limits=limits)).failure().kind == "combine"
    assert (await one.map(SAME, reducer="yield 'k', 'x' * 999\n", limits=limits)).failure().returned


async def test_children_and_pairs_are_bounded(one: Bench) -> None:
    source = MAP + "for n in range({}):\n    yield n, n\n"
    limits = Limits(children=2000)
    assert (await one.map(source.format(2000), limits=limits)).closed[0].count == 2000
    failure = (await one.map(source.format(2001), limits=limits)).failure()
    assert (failure.class_, "2000 children" in failure.message) == ("output_limit", True)
    limits = Limits(dataset=1024 * 1024)
    for first in (RETURN, MAP):
        fits = first + "for n in range(1000):\n    yield n, 'x' * 1000\n"
        over = first + "for n in range(1100):\n    yield n, 'x' * 1000\n"
        assert not isinstance((await one.map(fits, reducer=None, limits=limits)).closed[0], frames.Failed)
        failure = (await one.map(over, reducer=None, limits=limits)).failure()
        assert (failure.class_, "MR_DATASET_MAX_MB" in failure.message) == ("output_limit", True)


# The process.


async def test_the_executor_has_no_secrets_and_no_descriptors_but_its_own() -> None:
    environ = dict(os.environ, MR_STORE="canary", AWS_SECRET_ACCESS_KEY="canary", LC_TIME="C", TZ="UTC")
    leak = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        async with bench(environ=environ) as one:
            source = (
                "import os, resource, sys\n" + RETURN + "yield 'env', dict(os.environ)\n"
                "opened = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd')]\n"
                "yield 'fds', [os.readlink(name) for name in opened if os.path.lexists(name)]\n"
                "yield 'ids', [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()]\n"
                "yield 'core', resource.getrlimit(resource.RLIMIT_CORE)\n"
                "yield 'cwd', os.getcwd()\nyield 'modules', [m for m in ('asyncio', 'gevent') if m in sys.modules]\n"
            )
            told = {key: values[0] for key, values in (await one.map(source)).result()}
            assert "canary" not in str(told["env"])
            assert told["env"]["TZ"] == "UTC"
            assert told["env"]["LC_TIME"] == "C"
            assert not [link for link in told["fds"] if "passwd" in link]
            assert told["ids"] == [True, True]
            assert told["core"] == [0, 0]
            assert told["modules"] == []
            directory = Path(told["cwd"])
            assert directory.is_dir()
            assert told["env"]["TMPDIR"] == str(directory)
        assert not directory.exists()
    finally:
        os.close(leak)


@pytest.mark.kills
async def test_an_executor_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import asyncio, os, sys\nfrom mr.worker.executor_process import ExecutorProcess\n"
        "async def main():\n    e = ExecutorProcess(on_exit=print, environ=os.environ)\n    await e.start()\n"
        "    print(e.pid, flush=True)\n    os.kill(os.getpid(), 9)\nasyncio.run(main())\n"
    )
    import sys

    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=-1, cwd=Path.cwd())
    printed, _ = await process.communicate()
    pid = int(printed)
    await until(lambda: not _lives(pid), "the end of the executor")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_reader_that_pauses_makes_the_executor_wait_and_the_wait_does_not_count(one: Bench) -> None:
    source = MAP + "for n in range(20000):\n    yield n, 'x' * 1000\n"
    run = one.start_map(source)
    await until(lambda: run.chunk_bytes, "a first piece")
    one.process.pause_reading()
    before, running = len(run.chunk_bytes), one.process.current()
    started = time.monotonic()
    await until(lambda: time.monotonic() - started > 0.5, "a pause")
    assert len(run.chunk_bytes) == before
    current = one.process.current()
    assert running is not None
    assert current is not None
    assert current.seconds - running.seconds < 0.4
    one.process.resume_reading()
    await one.finish(run)
    assert run.closed[0].count == 20000


async def test_using_an_executor_that_is_gone_says_so(one: Bench) -> None:
    await one.process.kill()
    assert not one.process.alive
    with pytest.raises(ExecutorGone):
        one.handler(SAME, "mapper")
    assert (await one.process.kill()).class_ == "killed"
    assert one.process.current() is None


async def test_a_handler_that_does_not_compile_is_refused_with_its_line(one: Bench) -> None:
    bad = "def f(:\n"
    failure = (await one.map(bad)).failure()
    assert failure.class_ == "rejected"
    assert "handler(the_mapper):1" in failure.message
    assert (await one.map(SAME)).result() == [["k", [1]]]
