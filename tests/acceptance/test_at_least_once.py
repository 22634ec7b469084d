"""Children that finish at once, before they are counted, and messages that come again: JX-71, JX-72, JX-73."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from mr.codec import Items
from mr.model.message import Level, Message, seal
from mr.ports.broker import Publication
from mr.rules import routing
from tests.acceptance.conftest import Shared
from tests.acceptance.service import eventually
from tests.acceptance.sources import ALL, FLAT, RETURN, map_to, mapper, note, reducer, wait_for_file

TOKENS = "[('t', n) for n in range({count})]"


@pytest.mark.third_pair
def test_JX_71_children_that_finish_at_once_cause_exactly_one_upper_reduce(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    """Many requests at once; the upper reducer leaves a line each time that it runs."""
    notes = tmp_path / "notes"
    upper = reducer(note(notes, "len(results[0][1])") + "for k, v in results: yield k, sorted(x for y in v for x in y)")
    pair.define(w, {"start": (map_to("leaf", TOKENS.format(count=40)), upper), "leaf": (RETURN, ALL)})
    requests = [pair.start(w) for _ in range(20)]
    for r in requests:
        assert pair.result(w, r).pairs == [["t", list(range(40))]]
    assert notes.read_text().splitlines() == ["40"] * 20


@pytest.mark.third_pair
def test_JX_72_messages_that_come_again_and_again_change_nothing(pair: Shared, w: str, tmp_path: Path) -> None:
    """The first message, and forged ones for its children and its reduce, published without end while it runs."""
    gate, notes = tmp_path / "gate", tmp_path / "notes"
    # The last child ends when the gate opens, so that the others' messages come both before and after the facts.
    leaf = mapper(
        "import time\nyield MrConfigureToReturn()\nfor key, n in arguments:\n"
        + "    if n == 29:\n" + "".join(f"        {line}\n" for line in wait_for_file(gate).splitlines())
        + "    time.sleep(0.005)\n    yield key, n\n"
    )  # fmt: skip
    upper = reducer(note(notes) + "for k, v in results: yield k, [x for y in v for x in y]")
    pair.define(w, {"start": (map_to("leaf", TOKENS.format(count=30)), upper), "leaf": (leaf, ALL)})
    r = pair.start(w)
    publications = list(_messages(pair, w, r))
    over = threading.Event()
    failures: list[BaseException] = []
    rounds = Counter[str]()

    def publish() -> None:
        try:
            while not over.is_set():
                pair.parts.publisher.publish(publications)
                rounds["published"] += 1
                over.wait(0.05)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        eventually(lambda: rounds["published"] >= 10 or failures, "ten rounds before the last child ends")
        gate.touch()
        reply = pair.result(w, r)
        eventually(lambda: rounds["published"] >= 20 or failures, "ten rounds after it")
    finally:
        over.set()
        gate.touch()
        thread.join()
    assert not failures
    assert [(key, sorted(values)) for key, values in reply.pairs] == [("t", list(range(30)))]
    facts = pair.facts(w, r)
    assert not [key for key in facts if key.startswith("attempt/")]
    assert {key for key in facts if key.startswith("manifest/")} == {"manifest/-", "manifest/0"}
    assert facts["done/-/0"]["results"]["inline"][0] == reply.pairs
    # Late messages are finished too: nothing of them stays on the queue.
    topics = routing.topics(w, ["general"])
    eventually(
        lambda: not sum(backlog.total for backlog in pair.parts.publisher.backlog(topics).values()),
        "the queue is empty",
    )
    assert pair.facts(w, r) == facts


def _messages(pair: Shared, w: str, r: str) -> list[Publication]:
    record = pair.request(w, r)
    first = Message(
        w=w, r=r, epoch=record.epoch, set=record.set, kind="map", p="-", to=1,
        levels=[Level(1, 1, "start", 0, "accepted")], args=Items.of([b"[]"]).raw(),
    )  # fmt: skip
    child = Message(w=w, r=r, epoch=record.epoch, set=record.set, kind="map", p="0", from_=3, to=9)
    reduce = Message(w=w, r=r, epoch=record.epoch, set=record.set, kind="reduce", p="0")
    bodies = [("map", seal(first, pair.parts.message_key))]
    # Sealed with a wrong key, so that the worker has to read everything that it needs.
    bodies += [("map", seal(child, b"guess")), ("reduce", seal(reduce, b"guess"))]
    return [Publication(routing.topic(w, direction, "general"), body) for direction, body in bodies]


@pytest.mark.third_pair
def test_JX_73_a_thousand_children_finish_at_once(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (map_to("leaf", TOKENS.format(count=1000)), FLAT), "leaf": (RETURN, ALL)})
    [[key, values]] = pair.post(w).pairs
    assert (key, values) == ("t", list(range(1000)))


def test_JX_73_a_thousand_children_finish_at_once_with_a_message_for_each(pair: Shared, w: str) -> None:
    """On two workers that take one child at a time."""
    capability = f"single-{w}"
    leaf = mapper("yield MrConfigureToReturn()\nfor k, v in arguments: yield k, v", capability=capability)
    start = mapper(
        f"yield MrConfigureToMap('leaf')\nfor pair in {TOKENS.format(count=1000)}: yield pair", capability="gpu"
    )
    pair.define(w, {"start": (start, FLAT), "leaf": (leaf, ALL)})
    with (
        pair.worker(f"{capability},gpu", only=w, MR_BATCH_SIZE="1"),
        pair.worker(capability, only=w, MR_BATCH_SIZE="1"),
    ):
        assert pair.post(w).pairs == [["t", list(range(1000))]]
