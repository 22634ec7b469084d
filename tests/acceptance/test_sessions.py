"""The session of an invocation: JX-75 to JX-78."""

from __future__ import annotations

import pytest

from mr.rules import keys
from tests.acceptance.conftest import Shared
from tests.acceptance.sources import ALL, RETURN, combiner, map_to, mapper, reducer

pytestmark = pytest.mark.third_pair

SET = "S_SET('who', arguments[0][1])\n"


@pytest.mark.parametrize("capability", ["none", "gpu"], ids=["fused", "elsewhere"])
def test_JX_75_a_session_is_written_by_mapper_and_combiner_and_read_by_their_reducer(
    pair: Shared, w: str, capability: str
) -> None:
    leaf = mapper("yield MrConfigureToReturn()\n" + SET + "S_SET('list', [1, {'a': None}])\nyield 'k', S_GET('who')")
    both = combiner("S_SET('combined', len(results))\nfor k, v in results: yield k, [v, S_GET('who')]")
    last = reducer(
        "for k, v in results: yield k, v\nyield 'session', [list(pair) for pair in S_LIST()]", capability=capability
    )
    pair.define(w, {"start": (leaf, both, last)})
    k, session = pair.post(w, {"x": "me"}).pairs
    assert k == ["k", ["me", "me"]]
    assert session[0] == "session"
    assert dict(session[1]) == {"who": "me", "list": [1, {"a": None}], "combined": 1}


@pytest.mark.parametrize("capability", ["none", "gpu"], ids=["fused", "elsewhere"])
def test_JX_75_a_session_is_invisible_to_every_other_invocation_of_the_request(
    pair: Shared, w: str, capability: str
) -> None:
    start = mapper("yield MrConfigureToMap('leaf')\nS_SET('who', 'parent')\nfor n in range(20): yield 'seen', n")
    leaf = mapper("yield MrConfigureToReturn()\nyield 'mapped', len(S_LIST())\n" + SET)
    lower = reducer("yield 'seen', [len(results[0][1]), S_LIST()]", capability=capability)
    upper = reducer("yield 'parent', S_LIST()\nfor k, v in results: yield k, sorted(v)", capability=capability)
    pair.define(w, {"start": (start, upper), "leaf": (leaf, lower)})
    assert pair.post(w).pairs == [
        ["parent", [["who", "parent"]]],
        ["seen", [[1, [["who", n]]] for n in range(20)]],
    ]


def test_JX_76_a_reducer_that_writes_its_session_fails_the_request(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (RETURN, reducer("S_SET('a', 1)\nyield 'a', 1"))})
    error = pair.post(w).error
    assert error["message"] == "Session writes are disabled from the current context."
    assert error["handler"] == "start_reduce"


def test_JX_76_a_reducer_that_swallows_the_refusal_fails_all_the_same(pair: Shared, w: str) -> None:
    code = "try: S_SET('a', 1)\nexcept Exception: pass\nyield 'a', 1"
    pair.define(w, {"start": (RETURN, reducer(code))})
    assert pair.post(w).error["message"] == "Session writes are disabled from the current context."


def test_JX_77_a_missing_session_key_is_a_KeyError_that_names_it(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (mapper("yield MrConfigureToReturn()\nyield 'a', S_GET('not there')"), ALL)})
    error = pair.post(w).error
    assert (error["type"], error["message"]) == ("KeyError", "'not there'")


def test_JX_78_a_later_write_replaces_an_earlier_one(pair: Shared, w: str) -> None:
    leaf = mapper("yield MrConfigureToReturn()\nS_SET('a', 1)\nS_SET('a/b %', 0)\nS_SET('a', {'later': [2.5]})")
    last = reducer("for key, value in S_LIST(): yield key, value", capability="gpu")
    pair.define(w, {"start": (leaf, last)})
    reply = pair.post(w)
    assert sorted(reply.pairs) == [["a", {"later": [2.5]}], ["a/b %", 0]]
    assert len(pair.entries(keys.sessions(w, reply.request_id))) == 2


def test_JX_78_a_session_that_nobody_used_leaves_no_keys(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (map_to("leaf", "[(1, 1)]"), ALL), "leaf": (RETURN, ALL)})
    assert not pair.entries(keys.sessions(w, pair.post(w).request_id))


def test_JX_78_a_value_that_JSON_cannot_hold_is_refused_by_its_key(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (mapper("yield MrConfigureToReturn()\nS_SET('a', {1, 2})"), ALL)})
    error = pair.post(w).error
    assert error["class"] == "not_serialisable"
    assert "'a'" in error["message"]
