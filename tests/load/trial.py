"""One trial: clients come, wait, a worker comes, and every client is answered with its own square."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import quantiles

import msgspec

from mr.rules import keys
from tests.acceptance.service import Service, eventually
from tests.load.clients import Crowd
from tests.unit.front_ends import enlist

PAIRS = ("embedded", "cluster")
MEMORY_MAX_MB = 400.0
WORKFLOW, JOB = "load", "square"
STEP_S = 300.0
"""How long it may take until all wait, or all are answered."""
_MAPPER = '''# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///
"""The square of a number."""


def handle(arguments, ctx):
    for key, number in arguments:
        yield key, number * number
'''
_REDUCER = '''# /// mr
# handler_type = "reducer"
# required_capability = "none"
# ///
"""The sum of each key."""


def handle(results, ctx):
    for key, values in results:
        yield key, sum(values)
'''


class Outcome(msgspec.Struct, kw_only=True):
    """What came of it. Memory is that of the process which serves; `others_ms` is how long others wait for `GET /`."""

    pair: str
    clients: int
    opened_s: float
    answered_s: float
    memory_before_mb: float
    memory_mb: float
    others_ms: tuple[float, float]
    answers: dict[int, int]
    problems: list[str]

    def __str__(self) -> str:
        told = ", ".join(f"{status} {count}" for status, count in sorted(self.answers.items()))
        each_kb = (self.memory_mb - self.memory_before_mb) * 1024 / self.clients
        lines = [
            f"{self.pair}: {self.clients} clients wait after {self.opened_s:.1f} s; all have their answer "
            f"{self.answered_s:.1f} s after the worker came",
            f"  answers: {told} (0: cut off; who is told 202 or 503 comes back)",
            f"  front end: {self.memory_before_mb:.0f} MB without them, {self.memory_mb:.0f} MB at most with them, "
            f"{each_kb:.0f} KB each; goal: {MEMORY_MAX_MB:g} MB",
            f"  others were answered in {self.others_ms[0]:.0f} ms (median), {self.others_ms[1]:.0f} ms (p99)",
        ]
        return "\n".join([*lines, *(f"  PROBLEM: {problem}" for problem in self.problems)])


def run(pair: str, clients: int) -> Outcome:
    """Let so many clients wait on a deployment of its own."""
    with Service(pair) as service, service.web() as front_end:
        service.define(WORKFLOW, {"square": (_MAPPER, _REDUCER)}, job=JOB)
        # Else clients are told within a second that nobody could begin their job, and do not wait at all.
        enlist(service.parts.store)
        others = _Others(service)
        crowd = Crowd(service.port, WORKFLOW, JOB, clients)
        try:
            others.ask()
            (serving,) = front_end.family() - {front_end.pid}
            before_mb = _memory_mb(serving, "VmRSS")
            started = time.monotonic()
            problems = _turn_until(crowd, others, lambda: crowd.waiting == clients, "all clients wait")
            opened_s = time.monotonic() - started
            eventually(lambda: service.parts.store.count(keys.requests(WORKFLOW)) >= clients, "all are accepted")
            with service.worker():
                started = time.monotonic()
                problems += _turn_until(crowd, others, lambda: not crowd.left, "all clients are answered")
            answered_s = time.monotonic() - started
        finally:
            crowd.close()
        if serving not in front_end.family():
            problems.append(f"the process that served has died:\n{front_end.log[-2000:]}")
        wrong = [one.number for one in crowd.clients if one.answered != _right(one.number)]
        if wrong:
            problems.append(
                f"{len(wrong)} clients were told something wrong, such as {crowd.clients[wrong[0]].answered}"
            )
        return Outcome(
            pair=pair, clients=clients, opened_s=opened_s, answered_s=answered_s, memory_before_mb=before_mb,
            memory_mb=_memory_mb(serving, "VmHWM"), others_ms=others.times_ms(), answers=dict(crowd.answers),
            problems=problems,
        )  # fmt: skip


def _turn_until(crowd: Crowd, others: _Others, condition: Callable[[], bool], what: str) -> list[str]:
    deadline = time.monotonic() + STEP_S
    ask_at = 0.0
    while not condition():
        now = time.monotonic()
        if now > deadline:
            return [f"not within {STEP_S:g} s: {what}; {crowd.waiting} wait, {crowd.left} are not answered"]
        crowd.turn(0.05)
        if now >= ask_at:
            others.ask()
            ask_at = now + 0.2
    return []


class _Others:
    """Somebody who asks how the front end is, now and then."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._took_ms: list[float] = []

    def ask(self) -> None:
        started = time.monotonic()
        assert self._service.ask("GET", "/").status == 200
        self._took_ms.append((time.monotonic() - started) * 1000)

    def times_ms(self) -> tuple[float, float]:
        """Median and 99th percentile."""
        cuts = quantiles(self._took_ms, n=100)
        return cuts[49], cuts[98]


def _right(number: int) -> object:
    return {"result": {"pairs": [["number", number * number]]}}


def _memory_mb(pid: int, field: str) -> float:
    """What the kernel says of a process: `VmRSS` is its memory now, `VmHWM` the most it ever had; 0 if it has gone."""
    with suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return 0.0
