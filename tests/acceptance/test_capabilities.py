"""Who runs what: JX-52 to JX-55 and JX-58."""

from __future__ import annotations

from mr.rules import routing
from tests.acceptance.conftest import Shared
from tests.acceptance.service import Service, eventually
from tests.acceptance.sources import ALL, FLAT, RETURN, map_to, mapper, reducer

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
