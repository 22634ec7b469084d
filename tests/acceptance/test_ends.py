"""Ends in order, under load: whoever waits is told how to go on, and what was accepted is finished by others."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from tests.acceptance.service import Reply, Service, eventually
from tests.acceptance.sources import mapper, reducer

pytestmark = [pytest.mark.kills, pytest.mark.slow]

CLIENTS = 12
SPREAD = mapper(
    "yield MrConfigureToMap('leaf')\nfor key, number in arguments:\n    for part in range(8): yield part, number"
)
LEAF = mapper(
    "import time\nyield MrConfigureToReturn()\nfor key, number in arguments:\n"
    "    time.sleep(0.03 * number)\n    yield 'n', number"
)
ADD = reducer("for key, values in results: yield key, sum(values)")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is only not buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("backends", ["embedded", "cluster"])
def test_mr_dev_ends_under_load_and_nothing_is_lost_or_left_running(backends: str) -> None:
    with Service(backends, {"MR_EXECUTORS": "2", "MR_DO_CLEANUP_REQUESTS": "0"}) as service:
        service.define("w", {"spread": (SPREAD, ADD), "leaf": (LEAF, ADD)})
        replies: dict[int, Reply] = {}
        with service.process("dev", "--bind", f"127.0.0.1:{service.port}") as dev:
            service.await_front_end(dev, service.port)
            eventually(service.workers, "the worker is there")

            def post(number: int) -> None:
                replies[number] = service.post("w", {"a": number})

            clients = [threading.Thread(target=post, args=(number,)) for number in range(CLIENTS)]
            for client in clients:
                client.start()
            eventually(lambda: replies, "the first is answered")
            eventually(lambda: len(service.entries("entities/request/w/")) == CLIENTS, "all are accepted")
            family = dev.family()
            assert len(family) >= 6, "a parent, two of the front end, a worker and its executors"
            os.kill(dev.pid, signal.SIGTERM)
            for client in clients:
                client.join(30.0)
            assert dev.stop() == 0, dev.log
        eventually(lambda: not any(map(is_alive, family)), "nothing of it runs any more", 10.0)
        assert sorted(replies) == list(range(CLIENTS))
        assert {reply.status for reply in replies.values()} <= {200, 202}
        assert 202 in {reply.status for reply in replies.values()}, "some still waited"
        with service.web(), service.worker():
            for number, reply in replies.items():
                if reply.status == 200:
                    assert reply.pairs == [["n", 8 * number]]
                assert service.result("w", reply.request_id).pairs == [["n", 8 * number]]
