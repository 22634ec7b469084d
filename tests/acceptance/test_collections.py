"""Queues and trees that the handlers of a workflow share, on a whole mr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mr.rules import keys
from tests.acceptance.conftest import Shared
from tests.acceptance.sources import ALL, mapper, module, note, reducer

pytestmark = pytest.mark.third_pair


def queue(pair: Shared, w: str, name: str) -> list[Any]:
    """The values of a queue; its numbers must be those from 0 on."""
    found = list(pair.parts.collections.queue(w, name).items())
    assert [number for number, _ in found] == list(range(len(found)))
    return [json.loads(value) for _, value in found]


def test_what_an_invocation_writes_all_invocations_and_later_requests_see(pair: Shared, w: str) -> None:
    """Given children on two workers that all write to one queue and one tree at once, then nothing is lost."""
    write = (
        "    place = COLLECTIONS.queue('seen').append(n)\n"
        "    COLLECTIONS.tree('places').put(place, str(n % 3), str(n))\n"
    )
    start = mapper("yield MrConfigureToMap('general')\nfor n in range(6): yield 'n', n\n")
    general = mapper(f"yield MrConfigureToMap('gpu')\nfor _, n in arguments:\n{write}    yield 'n', n + 6\n")
    gpu = mapper(f"yield MrConfigureToReturn()\nfor _, n in arguments:\n{write}    yield 'n', n\n", capability="gpu")
    last = reducer(
        "seen, places = COLLECTIONS.queue('seen'), COLLECTIONS.tree('places')\n"
        "yield 'seen', [sorted(value for _, value in seen.items()), len(seen)]\n"
        "yield 'wrong', [path for path, place in places.walk() if seen.get(place) != int(path[1])]\n"
        "yield 'below', [[name, len(list(places.at(name).children()))] for name in places.children()]\n"
    )
    pair.define(w, {"start": (start, last), "general": (general, ALL), "gpu": (gpu, ALL)})
    expected = [["seen", [list(range(12)), 12]], ["wrong", []], ["below", [["0", 4], ["1", 4], ["2", 4]]]]
    assert pair.post(w).pairs == expected
    pair.parts.collections.queue(w, "seen").clear()
    assert pair.post(w).pairs == expected
    assert sorted(queue(pair, w, "seen")) == list(range(12))


def test_a_second_attempt_appends_once_what_has_a_key(pair: Shared, w: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    leaf = module(
        "mapper",
        f"""
        import os
        def handle(arguments, ctx):
            ctx.collections.queue("keyed").append(os.path.exists({str(ran)!r}), key="arguments/0")
            ctx.collections.queue("plain").append(1)
            ctx.collections.tree("t").put([1], "a", "b")
            if not os.path.exists({str(ran)!r}):
                open({str(ran)!r}, "w").close()
                raise ValueError("the first attempt")
            yield 1, 1
        """,
        attempts=2,
    )
    pair.define(w, {"start": (leaf, ALL)})
    assert pair.post(w).pairs == [[1, [1]]]
    assert queue(pair, w, "keyed") == [False]
    assert queue(pair, w, "plain") == [1, 1]
    assert pair.parts.collections.tree(w, "t").get("a", "b") == b"[1]"


@pytest.mark.kills
def test_an_executor_that_is_killed_in_the_middle_of_a_call_does_nothing_twice(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    """Given a handler that does nothing but append, when it is killed in between, then its repeat finds each item."""
    ran = tmp_path / "ran"
    code = (
        "import itertools, os, signal, threading\nqueue = COLLECTIONS.queue('q')\n"
        f"is_first = not os.path.exists({str(ran)!r})\n"
        "def kill():\n    while len(done) < 20: pass\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"done = []\nif is_first:\n    {note(ran)}    threading.Thread(target=kill).start()\n"
        "for n in itertools.count() if is_first else range(60):\n"
        "    done.append(queue.append(n, key=f'number/{n}'))\n"
        "yield MrConfigureToReturn()\nyield 'places', done\n"
    )
    pair.define(w, {"start": (mapper(code), ALL)})
    assert pair.post(w).pairs == [["places", [list(range(60))]]]
    assert queue(pair, w, "q") == list(range(60))


def test_a_stranger_reaches_only_his_own_workflow(pair: Shared, w: str) -> None:
    """Given a handler that names another workflow in every way there is, then he neither sees nor changes anything."""
    other = f"{w}-other"
    pair.define(other, {"start": (mapper("COLLECTIONS.queue('q').append('theirs')\nyield MrConfigureToReturn()"), ALL)})
    pair.post(other)
    before = pair.entries(keys.collections(other))
    assert len(before) == 1
    code = (
        "yield MrConfigureToReturn()\nimport types\ndef tried(call):\n"
        "    try: return call()\n    except Exception as error: return type(error).__name__\n"
        f"up = '../../{other}/queues/q'\n"
        "yield 'names', [tried(lambda: COLLECTIONS.queue(up).append(1)), tried(lambda: COLLECTIONS.tree('..').get())]\n"
        "COLLECTIONS.tree('t').put('mine', up)\n"
        "yield 'path', list(COLLECTIONS.tree('t').children())\n"
        f"COLLECTIONS._workflow = '{other}'\n"
        "yield 'forged', tried(lambda: COLLECTIONS.queue('q').append('forged'))\n"
        "asking = COLLECTIONS._asking\nrun = asking._order()\n"
        f"asking._order = lambda: types.SimpleNamespace(id=run.id, workflow='{other}')\n"
        "yield 'seen', [value for _, value in COLLECTIONS.queue('q').items()]\n"
        "yield 'appended', COLLECTIONS.queue('q').append('forged twice')\n"
    )
    pair.define(w, {"start": (mapper(code), reducer("for k, v in results: yield k, v[0]"))})
    try:
        assert dict(map(tuple, pair.post(w).pairs)) == {
            "names": ["InvalidName", "InvalidName"], "path": [f"../../{other}/queues/q"], "forged": "RuntimeError",
            "seen": [], "appended": 0,
        }  # fmt: skip
        assert pair.entries(keys.collections(other)) == before
        assert queue(pair, w, "q") == ["forged twice"]
        assert pair.parts.registry.delete_workflow(w, force=True)[-1] == "collections"
        assert pair.entries(keys.collections(w)) == {}
        assert pair.entries(keys.collections(other)) == before
    finally:
        pair.forget(other)


def test_what_cannot_be_kept_fails_the_request_with_its_limit(pair: Shared, w: str) -> None:
    pair.define(
        w, {"start": (mapper("COLLECTIONS.tree('t').put('x' * 600_000, 'a')\nyield MrConfigureToReturn()"), ALL)}
    )
    error = pair.post(w).error
    assert (error["class"], error["handler"]) == ("output_limit", "start_map")
    assert error["message"] == "a value for tree t has 600002 bytes as JSON; one record takes 524288"
