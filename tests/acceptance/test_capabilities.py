"""Who runs what: JX-52 to JX-55 and JX-58."""

from __future__ import annotations

from pathlib import Path

import pytest

from mr.rules import keys, routing
from tests.acceptance.conftest import Shared
from tests.acceptance.service import Service, eventually
from tests.acceptance.sources import ALL, FLAT, RETURN, map_to, mapper, note, reducer, wait_for_file

pytestmark = pytest.mark.third_pair

WHERE = "import os\nyield MrConfigureToReturn()\nyield 'mapped by', os.getppid()"
ALSO = "import os\nfor k, v in results: yield k, v\nyield 'reduced by', os.getppid()"


def offers(pair: Service, worker: str) -> list[str]:
    """What a worker that is named in facts offers."""
    return pair.workers()[worker].capabilities


def test_JX_52_topics_are_made_of_workflow_direction_and_capability(pair: Shared, w: str) -> None:
    """Given handlers that need what nobody offers yet, so that their messages lie where they can be counted."""
    capability = f"later-{w}"
    pair.define(
        w,
        {
            "start": (mapper("yield MrConfigureToReturn()\nyield 1, 1", capability=capability), ALL),
            "late": (RETURN, reducer("for k, v in results: yield k, v", capability=capability)),
        },
    )
    pair.parts.registry.create_job(w, "late", "", "late")
    requests = [pair.start(w), pair.start(w, job="late")]
    topics = [f"mr.{w}.map.{capability}", f"mr.{w}.reduce.{capability}"]
    assert topics == routing.topics(w, [capability])
    publisher = pair.parts.publisher
    eventually(lambda: [publisher.backlog(topics)[topic].total for topic in topics] == [1, 1], "a message in each")
    with pair.worker(capability, only=w):
        for r in requests:
            assert pair.result(w, r).status == 200


def test_JX_53_a_worker_without_general_gets_no_handlers_that_need_none(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (map_to("leaf", "[('n', n) for n in range(100)]"), FLAT), "leaf": (RETURN, ALL)})
    for _ in range(10):
        reply = pair.post(w)
        assert reply.pairs == [["n", list(range(100))]]
        workers = {fact.get("worker") for fact in pair.facts(w, reply.request_id).values() if isinstance(fact, dict)}
        assert pair.await_worker(pair.gpu) not in workers
        assert pair.await_worker(pair.general) in workers


def test_JX_54_mapper_and_reducer_of_a_step_run_on_different_workers(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (mapper(WHERE), reducer(ALSO, capability="gpu"))})
    reply = pair.post(w)
    assert dict(reply.pairs) == {"mapped by": [pair.general.pid], "reduced by": pair.gpu.pid}
    facts = pair.facts(w, reply.request_id)
    mapped, reduced = facts["manifest/0"]["worker"], facts["done/-/0"]["worker"]
    assert mapped == pair.await_worker(pair.general)
    assert reduced == pair.await_worker(pair.gpu)
    assert offers(pair, mapped) == ["general"]
    assert offers(pair, reduced) == ["gpu"]


def test_JX_54_an_upper_reducer_may_run_elsewhere_than_its_children(pair: Shared, w: str) -> None:
    upper = "import os\nfor k, v in results: yield k, sorted({x for y in v for x in y})\nyield 'upper', os.getppid()"
    pair.define(
        w,
        {
            "start": (map_to("leaf", "[(n, n) for n in range(50)]"), reducer(upper, capability="gpu")),
            "leaf": (mapper(WHERE), ALL),
        },
    )
    assert dict(pair.post(w).pairs) == {"mapped by": [pair.general.pid], "upper": pair.gpu.pid}


def test_JX_54_a_mapper_may_run_elsewhere_than_its_reducer(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (mapper(WHERE, capability="gpu"), reducer(ALSO))})
    assert dict(pair.post(w).pairs) == {"mapped by": [pair.gpu.pid], "reduced by": pair.general.pid}


def test_JX_55_names_of_capabilities_mean_the_same_in_any_case(pair: Shared, w: str) -> None:
    capability = f"Big-{w}"
    pair.define(w, {"start": (mapper(WHERE, capability="GPU"), reducer(ALSO, capability=capability.upper()))})
    with pair.worker(capability, only=w) as worker:
        assert dict(pair.post(w).pairs) == {"mapped by": [pair.gpu.pid], "reduced by": worker.pid}


def test_JX_58_a_front_end_alone_queues_requests_and_processes_nothing(pair: Shared, w: str) -> None:
    """`MR_CONSUME=0` leaves the worker out of what starts both; the pair's own store and workers stay out of it."""
    with Service("embedded") as alone:
        port = str(alone.port)
        with alone.process("dev", "--bind", f"127.0.0.1:{port}", MR_CONSUME="0") as process:
            alone.await_front_end(process, alone.port)
            alone.define(w, {"start": (RETURN, ALL)})
            r = alone.start(w, {"a": 1})
            topic = routing.topic(w, "map", "general")
            assert alone.parts.publisher.backlog([topic])[topic].waiting == 1
            assert alone.ask("GET", f"/request/{w}/{r}/result").status == 202
            assert not alone.workers()
            with alone.worker():
                assert alone.result(w, r).pairs == [["a", [1]]]


def test_each_task_runs_where_its_expression_lets_it_and_nowhere_else(pair: Shared, w: str) -> None:
    tasks = {
        "a": ("gpu-{w} and linux-{w}", {"cruncher"}),
        "b": ("gpu-{w}", {"cruncher"}),
        "c": ("cpu-{w}", {"penguin"}),
        "d": ("gpu-{w} or mac-m1-cpu-{w}", {"cruncher", "laptop"}),
        "e": ("linux-{w}", {"penguin", "cruncher"}),
    }
    leaf = "import os\nyield MrConfigureToReturn()\nyield 'ran on', os.getppid()"
    steps = {}
    for task, (required, _) in tasks.items():
        steps[f"start_{task}"] = (map_to(task, "[(n, n) for n in range(20)]"), FLAT)
        steps[task] = (mapper(leaf, capability=required.format(w=w)), ALL)
    pair.define(w, steps)
    for task in tasks:
        pair.parts.registry.create_job(w, f"all_{task}", "", f"start_{task}")
        pair.parts.registry.create_job(w, task, "", task)
    with (
        pair.worker(f"linux-{w},cpu-{w}", only=w) as penguin,
        pair.worker(f"linux-{w},gpu-{w}", only=w) as cruncher,
        pair.worker(f"mac-m1-cpu-{w}", only=w) as laptop,
    ):
        nodes = {penguin.pid: "penguin", cruncher.pid: "cruncher", laptop.pid: "laptop"}
        for task, (_, expected) in tasks.items():
            of_one = {nodes[dict(pair.post(w, job=task).pairs)["ran on"][0]] for _ in range(3)}
            of_many = {nodes[pid] for pid in dict(pair.post(w, job=f"all_{task}").pairs)["ran on"]}
            assert of_one | of_many <= expected, task
    # Whatever is left over waits for nobody: nothing of it lies in another topic.
    assert not pair.parts.store.count(keys.active(w, ""))


def test_an_amount_is_taken_while_an_invocation_runs_and_others_go_on_beside_it(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    notes, gate = tmp_path / "notes", tmp_path / "gate"
    turn = f"yield MrConfigureToReturn()\n{note(notes)}{wait_for_file(gate)}yield 'turned', 1"
    pair.define(
        w,
        {
            "turn": (mapper(turn, capability=f"lathe-{w} >= 2"), ALL),
            "polish": (mapper("yield MrConfigureToReturn()\nyield 1, 1", capability=f"shop-{w}"), ALL),
        },
    )
    pair.parts.registry.create_job(w, "polish", "", "polish")
    with pair.worker(f"general,shop-{w},lathe-{w}=5", only=w, MR_EXECUTORS="4"):
        requests = [pair.start(w) for _ in range(4)]
        eventually(lambda: notes.exists() and len(notes.read_text().split()) == 2, "two of them run")
        # Two executors are free, and take whatever needs no lathe.
        for _ in range(5):
            assert pair.post(w, job="polish").status == 200
        assert len(notes.read_text().split()) == 2
        gate.touch()
        assert [pair.result(w, r).pairs for r in requests] == [[["turned", [1]]]] * 4


def test_who_posts_what_nobody_can_begin_is_told_within_a_second(pair: Shared, w: str) -> None:
    late = f"late-{w}"
    pair.define(w, {"start": (mapper("yield MrConfigureToReturn()\nyield 1, 1", capability=f"{late} and gpu"), ALL)})
    refused = pair.ask("POST", f"/job/{w}/job?strict=true", b'{"arguments": {}}', {"Content-Type": "application/json"})
    assert (refused.status, refused.json["error"]["code"]) == (409, "nobody_offers")
    assert f"mr worker --capabilities gpu,{late}" in refused.json["error"]["hint"]
    assert not pair.parts.store.count(keys.requests(w))
    told = [pair.post(w), pair.post(w, blocking="false")]
    assert [reply.status for reply in told] == [202, 200]
    for reply in told:
        warning = reply.headers["x-mr-warning"]
        assert warning.startswith(f"nobody offers gpu and {late}; nearest: ")
        assert warning.endswith(f"lacks {late}")
    (one,) = [one for one in pair.parts.fleet.look().unserved if one.workflow == w]
    assert (one.capability, one.lacks, one.messages) == (f"gpu and {late}", [late], 2)
    with pair.worker(f"gpu,{late}", only=w):
        for reply in told:
            assert pair.result(w, reply.request_id).pairs == [[1, [1]]]
