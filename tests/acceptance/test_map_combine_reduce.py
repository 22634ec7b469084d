"""Map, combine, reduce as a client sees them: JX-60 to JX-70 and JX-74."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.acceptance.conftest import Shared
from tests.acceptance.sources import ALL, FLAT, RETURN, SUM, combiner, map_to, mapper, module, reducer

pytestmark = pytest.mark.third_pair


def canonical(pairs: list[Any]) -> list[str]:
    """Pairs in an order of their own, whatever their keys are."""
    return sorted(json.dumps(pair) for pair in pairs)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("yield 'a', 1", "yields a tuple first"),
        ("if False: yield 1", "yields nothing first"),
        ("yield 'MrConfigureToReturn'", "yields a str first"),
        ("yield None", "yields a NoneType first"),
    ],
)
def test_JX_60_a_mapper_must_say_first_whether_it_maps_or_returns(pair: Shared, w: str, code: str, said: str) -> None:
    pair.define(w, {"start": (mapper(code), ALL)})
    error = pair.post(w).error
    assert error["class"] == "protocol"
    assert said in error["message"]
    assert "expected MrConfigureToMap(step) or MrConfigureToReturn()" in error["message"]


def test_JX_60_a_mapper_that_is_no_generator_fails_the_request_and_says_so(pair: Shared, w: str) -> None:
    code = """
    def plainly(function):
        return lambda arguments, ctx: list(function(arguments, ctx))

    @plainly
    def handle(arguments, ctx):
        yield "a", 1
    """
    pair.define(w, {"start": (module("mapper", code), ALL)})
    error = pair.post(w).error
    assert error["class"] == "protocol"
    assert "is no generator, it gave a list" in error["message"]


def test_JX_61_each_pair_becomes_a_child_with_that_pair_as_its_only_argument(pair: Shared, w: str) -> None:
    leaf = mapper("yield MrConfigureToReturn()\nyield 'arguments', [list(pair) for pair in arguments]")
    pairs = "[('a', 1), ('a', 2), (3, {'b': None})]"
    pair.define(w, {"start": (map_to("leaf", pairs), ALL), "leaf": (leaf, ALL)})
    reply = pair.post(w)
    assert reply.pairs == [["arguments", [[[["a", 1]]], [[["a", 2]]], [[[3, {"b": None}]]]]]]
    assert pair.facts(w, reply.request_id)["manifest/0"]["count"] == 3


def test_JX_62_returned_pairs_are_kept_combined_as_rows_of_key_and_values(pair: Shared, w: str) -> None:
    """Given a reducer that another worker runs, so that the rows have to be kept for it."""
    leaf = mapper("yield MrConfigureToReturn()\nfor n in range(5): yield 'odd' if n % 2 else 'even', n")
    pair.define(w, {"start": (leaf, reducer("for k, v in results: yield k, v", capability="gpu"))})
    reply = pair.post(w)
    manifest = pair.facts(w, reply.request_id)["manifest/0"]
    assert manifest["data"]["inline"] == [["even", [0, 2, 4]], ["odd", [1, 3]]]
    assert reply.pairs == [["even", [0, 2, 4]], ["odd", [1, 3]]]


def test_JX_63_keys_of_mixed_types_are_grouped_with_values_in_the_order_of_yielding(pair: Shared, w: str) -> None:
    leaf = mapper("""
    yield MrConfigureToReturn()
    for key, value in [(1, "x"), ("a", "y"), ([1, 2], "z"), (1, "w"), (True, "t"), (1.5, "f"), (None, "n"), ("1", "s")]:
        yield key, value
    """)
    pair.define(w, {"start": (leaf, ALL)})
    assert canonical(pair.post(w).pairs) == canonical(
        [
            [1, ["x", "w"]], ["a", ["y"]], [[1, 2], ["z"]], [True, ["t"]], [1.5, ["f"]], [None, ["n"]], ["1", ["s"]]
        ]
    )  # fmt: skip


def test_JX_64_a_custom_combiner_gets_the_pairs_and_yields_keys_with_lists(pair: Shared, w: str) -> None:
    leaf = mapper("yield MrConfigureToReturn()\nfor n in range(4): yield 'n', n")
    of_test = combiner("yield 'seen', [[list(pair) for pair in results]]\nyield 'sum', [sum(v for _, v in results), 1]")
    pair.define(w, {"start": (leaf, of_test, ALL)})
    assert pair.post(w).pairs == [["seen", [[["n", 0], ["n", 1], ["n", 2], ["n", 3]]]], ["sum", [6, 1]]]


def test_JX_64_what_a_custom_combiner_yields_wrongly_is_refused_by_its_name(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (RETURN, combiner("for key, value in results: yield key, value"), ALL)})
    error = pair.post(w, {"a": 1}).error
    assert error["handler"] == "start_combine"
    assert "list" in error["message"]


def test_JX_65_the_combiner_runs_with_its_mapper_and_may_write_its_session(pair: Shared, w: str) -> None:
    import_os = "import os\n"
    leaf = mapper(import_os + "yield MrConfigureToReturn()\nS_SET('mapper', os.getpid())\nyield 'a', 1")
    both = combiner(import_os + "S_SET('combiner', os.getpid())\nyield 'same', [S_GET('mapper') == os.getpid()]")
    last = reducer("for k, v in results: yield k, v\nyield 'session', sorted(key for key, _ in S_LIST())")
    pair.define(w, {"start": (leaf, both, last)})
    assert pair.post(w).pairs == [["same", [True]], ["session", ["combiner", "mapper"]]]


def test_JX_66_a_leaf_reducer_gets_a_list_of_keys_with_their_values(pair: Shared, w: str) -> None:
    leaf = mapper("yield MrConfigureToReturn()\nyield 'b', 1\nyield 'a', 2\nyield 'b', 3")
    look = reducer("yield 'length', len(results)\nyield 'first', list(results[0])\nfor k, v in results: yield k, v")
    pair.define(w, {"start": (leaf, look)})
    assert pair.post(w).pairs == [["length", 2], ["first", ["a", [2]]], ["a", [2]], ["b", [1, 3]]]


def test_JX_66_a_reducer_may_return_an_iterable_instead_of_yielding(pair: Shared, w: str) -> None:
    code = """
    def listed(function):
        return lambda results, ctx: list(function(results, ctx))

    @listed
    def handle(results, ctx):
        for key, values in results:
            yield key, len(values)
    """
    pair.define(w, {"start": (RETURN, module("reducer", code))})
    assert pair.post(w, {"a": 1, "b": 2}).pairs == [["a", 1], ["b", 1]]


def test_JX_67_an_upper_reducer_gets_the_results_of_all_children_by_key(pair: Shared, w: str) -> None:
    leaf = mapper("yield MrConfigureToReturn()\nfor _, n in arguments: yield 'n' if n % 2 else 'm', n")
    pair.define(w, {"start": (map_to("leaf", "[(None, n) for n in range(5)]"), ALL), "leaf": (leaf, SUM)})
    assert pair.post(w).pairs == [["m", [0, 2, 4]], ["n", [1, 3]]]


def test_JX_67_values_are_nested_where_the_children_returned_lists(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (map_to("leaf", "[('a', 1)]"), ALL), "leaf": (RETURN, ALL)})
    assert pair.post(w).pairs == [["a", [[1]]]]


def test_JX_68_lists_and_objects_are_keys_in_an_upper_reduce_too(pair: Shared, w: str) -> None:
    pairs = "[([1, 'a'], 1), ([1, 'a'], 2), ({'x': 1, 'y': 2}, 3), ({'y': 2, 'x': 1}, 4)]"
    pair.define(w, {"start": (map_to("leaf", pairs), FLAT), "leaf": (RETURN, ALL)})
    got = {json.dumps(key, sort_keys=True): value for key, value in pair.post(w).pairs}
    assert got == {'[1, "a"]': [1, 2], '{"x": 1, "y": 2}': [3, 4]}


def test_JX_69_reductions_climb_to_the_invocation_without_parent(pair: Shared, w: str) -> None:
    level = "[(f'{key}.{n}', n) for key, _ in arguments for n in range(3)]"
    count = reducer("for key, values in results: yield 'leaves', sum(values)")
    one = mapper("yield MrConfigureToReturn()\nyield 'leaves', 1")
    pair.define(
        w,
        {
            "start": (map_to("two", level), count),
            "two": (map_to("three", level), count),
            "three": (map_to("leaf", level), count),
            "leaf": (one, count),
        },
    )
    assert pair.post(w, {"0": 0}).pairs == [["leaves", 27]]


COUNT = reducer("yield 'groups', len(results)")
NOTHING = reducer("for pair in results: continue\nif False: yield")
NO_PAIRS = mapper("yield MrConfigureToReturn()")


@pytest.mark.parametrize(
    ("steps", "pairs"),
    [
        ({"start": (NO_PAIRS, COUNT)}, [["groups", 0]]),
        ({"start": (NO_PAIRS, NOTHING)}, []),
        ({"start": (NO_PAIRS, combiner("for p in results: yield p"), COUNT)}, [["groups", 0]]),
        ({"start": (RETURN, combiner("if False: yield"), COUNT)}, [["groups", 0]]),
        ({"start": (RETURN, NOTHING)}, []),
        ({"start": (map_to("leaf", "[]"), COUNT), "leaf": (RETURN, ALL)}, [["groups", 0]]),
        ({"start": (map_to("leaf", "[]"), NOTHING), "leaf": (RETURN, ALL)}, []),
        ({"start": (map_to("leaf", "[(1, 1), (2, 2)]"), COUNT), "leaf": (RETURN, NOTHING)}, [["groups", 0]]),
        (
            {
                "start": (map_to("two", "[(1, 1), (2, 2)]"), ALL),
                "two": (map_to("leaf", "[]"), COUNT),
                "leaf": (RETURN, ALL),
            },
            [["groups", [0, 0]]],
        ),
        (
            {"start": (NO_PAIRS, reducer("yield 'groups', len(results)", capability="gpu"))},
            [["groups", 0]],
        ),
        (
            {
                "start": (map_to("leaf", "[]"), reducer("yield 'groups', len(results)", capability="gpu")),
                "leaf": (RETURN, ALL),
            },
            [["groups", 0]],
        ),
    ],
    ids=[
        "no pairs", "no pairs, nothing reduced", "no pairs to combine", "nothing combined", "nothing reduced",
        "no children", "no children, nothing reduced", "children of nothing", "no children at depth",
        "no pairs, reduced elsewhere", "no children, reduced elsewhere",
    ],
)  # fmt: skip
def test_JX_70_empty_sets_are_legal_everywhere(pair: Shared, w: str, steps: Any, pairs: Any) -> None:
    pair.define(w, steps)
    assert pair.post(w, {"a": 1}).pairs == pairs


def test_JX_74_mapping_to_an_unknown_step_fails_and_names_it(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (map_to("nowhere", "[(1, 1)]"), ALL)})
    reply = pair.post(w)
    error = reply.error
    assert error["type"] == "UnknownStep"
    assert "'nowhere'" in error["message"]
    assert (error["handler"], error["invocation"]) == ("start_map", f"{reply.request_id}.0")


# Goes down as many levels as its argument says.
DOWN = mapper("""
for _, left in arguments:
    if left:
        yield MrConfigureToMap("start")
        yield "n", left - 1
    else:
        yield MrConfigureToReturn()
        yield "bottom", 1
""")


@pytest.mark.parametrize("depth", [10, 31])
def test_JX_74_steps_may_nest_as_deep_as_the_limit(pair: Shared, w: str, depth: int) -> None:
    pair.define(w, {"start": (DOWN, reducer("for k, v in results: yield k, v[0]"))})
    assert pair.post(w, {"n": depth}).pairs == [["bottom", 1]]


def test_JX_74_recursion_ends_at_the_limit_of_32_levels(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (DOWN, ALL)})
    error = pair.post(w, {"n": 32}).error
    assert error["type"] == "TooDeep"
    assert "at most 32" in error["message"]
    assert error["handler"] == "start_map"
