"""The workload `beside`: what a client notices of a handler that misbehaves on the same worker, all the time.

One client posts tiny jobs in a row. Then the same again, while another posts a job whose handler does harm, one after
the other, for each way to do harm. A handler that loops has an executor, and so a core, to itself for its second.
"""

from __future__ import annotations

import json
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks import client, service
from benchmarks.client import Outcome, Plan
from benchmarks.measure import quantile
from benchmarks.processes import BenchmarkError

WAYS = ("raises", "exits", "loops", "eats", "prints", "forks")
SECONDS = 6.0
SETTLE_S = 1.0


def figures(port: int, post: Callable[[float], Outcome]) -> dict[str, float]:
    """p50 and p99 alone and beside each way, and the worst of the ratios; `post` posts good jobs for some seconds."""
    alone = post(SECONDS).latencies_ms
    found = {"alone_p50_ms": statistics.median(alone), "alone_p99_ms": quantile(alone, 0.99)}
    for way in WAYS:
        with _misbehaving(port, way):
            beside = post(SECONDS).latencies_ms
        found[f"{way}_p50_ms"] = statistics.median(beside)
        found[f"{way}_p99_ms"] = quantile(beside, 0.99)
    found["worst_p99_ratio"] = max(found[f"{way}_p99_ms"] for way in WAYS) / found["alone_p99_ms"]
    return found


@contextmanager
def _misbehaving(port: int, way: str) -> Iterator[None]:
    """Somebody posts bad jobs meanwhile, each as soon as the one before has failed."""
    body = json.dumps({"arguments": {"way": way}})
    plan = Plan(port=port, path=f"/job/{service.WORKFLOW}/bad", body=body, seconds=SECONDS + SETTLE_S)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(client.post(plan)))
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if not outcomes or any(not answer.startswith("500 ") for outcome in outcomes for answer in outcome.answers):
        raise BenchmarkError(f"a job whose handler {way} did not fail: {[one.answers for one in outcomes]}"[:500])
