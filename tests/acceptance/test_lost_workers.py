"""Workers and executors that are killed while handlers run: JX-57."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.conftest import Shared
from tests.acceptance.service import eventually
from tests.acceptance.sources import ALL, FLAT, RETURN, map_to, mapper, note, reducer, wait_for_file

pytestmark = pytest.mark.kills


def lines(path: Path) -> list[str]:
    """The lines of a file that may not be there yet."""
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("others", [0, 1], ids=["none left", "one left"])
def test_JX_57_a_worker_is_killed_in_the_middle_of_a_handler(pair: Shared, w: str, tmp_path: Path, others: int) -> None:
    """Given sixty children of which the thirtieth waits, when its worker dies, then another runs the rest, once."""
    gate, ran, begun = tmp_path / "gate", tmp_path / "ran", tmp_path / "begun"
    capability = f"mortal-{w}"
    waiting = "".join(f"        {line}\n" for line in wait_for_file(gate).splitlines())
    leaf = mapper(
        "import os, time\nyield MrConfigureToReturn()\nfor key, n in arguments:\n    time.sleep(0.002)\n"
        f"    if n == 30:\n        {note(begun, 'os.getppid()')}{waiting}    {note(ran, 'n')}    yield key, n\n",
        capability=capability,
    )
    upper = reducer("for k, v in results: yield k, sorted(x for y in v for x in y)")
    pair.define(w, {"start": (map_to("leaf", "[('n', n) for n in range(60)]"), upper), "leaf": (leaf, ALL)})
    with pair.worker(capability, only=w) as first:
        r = pair.start(w)
        eventually(lambda: lines(begun), "the thirtieth child runs")
        if others:
            with pair.worker(capability, only=w):
                first.kill()
                gate.touch()
                reply = pair.result(w, r)
        else:
            first.kill()
            gate.touch()
            assert pair.ask("GET", f"/request/{w}/{r}/result").status == 202
            with pair.worker(capability, only=w):
                reply = pair.result(w, r)
    assert reply.pairs == [["n", list(range(60))]]
    assert lines(begun)[0] == str(first.pid)
    assert {int(n) for n in lines(ran)} == set(range(60))


def test_JX_57_a_worker_is_killed_in_the_middle_of_a_reducer(pair: Shared, w: str, tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    capability = f"mortal-{w}"
    code = note(begun) + wait_for_file(gate) + "for k, v in results: yield k, [x for y in v for x in y]"
    pair.define(
        w,
        {
            "start": (map_to("leaf", "[('n', n) for n in range(20)]"), reducer(code, capability=capability)),
            "leaf": (RETURN, ALL),
        },
    )
    with pair.worker(capability, only=w) as first:
        r = pair.start(w)
        eventually(lambda: lines(begun), "the reducer runs")
        first.kill()
    gate.touch()
    with pair.worker(capability, only=w):
        assert pair.result(w, r).pairs == [["n", list(range(20))]]


def test_JX_57_a_worker_that_is_told_to_end_hands_back_what_it_has(pair: Shared, w: str, tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    capability = f"mortal-{w}"
    code = note(begun) + wait_for_file(gate) + "yield MrConfigureToReturn()\nyield 'a', 1"
    pair.define(w, {"start": (mapper(code, capability=capability), ALL)})
    with pair.worker(capability, only=w, MR_WORKER_DRAIN_S="0.2") as first:
        r = pair.start(w)
        eventually(lambda: lines(begun), "the mapper runs")
        assert first.stop() == 0
    gate.touch()
    with pair.worker(capability, only=w):
        # It is handed back, not lost: nobody has to wait for a lease to end.
        assert pair.result(w, r).pairs == [["a", [1]]]
    assert len(lines(begun)) == 2


def test_JX_57_an_executor_that_is_killed_from_outside_costs_no_attempt_of_its_handler(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    """Killed three times; a handler that raises would have had one attempt, one that exits two."""
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    code = f"import os\n{note(begun, 'os.getpid()')}" + wait_for_file(gate)
    leaf = mapper(code + "yield MrConfigureToReturn()\nfor k, v in arguments: yield k, v")
    pair.define(w, {"start": (map_to("leaf", "[('n', 0)]"), FLAT), "leaf": (leaf, ALL)})
    r = pair.start(w)
    for kills in range(3):
        eventually(lambda kills=kills: len(lines(begun)) > kills, "the handler runs")  # type: ignore[misc]
        os.kill(int(lines(begun)[-1]), signal.SIGKILL)
    eventually(lambda: len(lines(begun)) == 4, "it runs once more")
    gate.touch()
    assert pair.result(w, r).pairs == [["n", [0]]]
    facts = pair.facts(w, r)
    assert [fact["class"] for key, fact in facts.items() if key.startswith("attempt/")] == ["lost_worker"] * 3
