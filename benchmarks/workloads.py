"""The workloads, who takes part in each, and the goals.

    w1     one client, one kept connection, jobs one after the other: two numbers mapped and reduced
    w2     one job that maps to N tiny items and sums them, from POST to answer
    w3     64 clients, each with a job of ten items and a reduce, again and again
    beside w1's first job again, beside handlers that misbehave on the same worker
    idle   CPU of everything that runs, some time after a job
    start  wall time of commands

Every answer is checked, and of mr's biggest requests the whole tree is read afterwards.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from benchmarks import beside as harm
from benchmarks import client, service
from benchmarks.client import Outcome, Plan
from benchmarks.measure import Contestant, Goal, Meter, Turn, quantile
from benchmarks.peers import contestants as peers
from benchmarks.peers import install
from benchmarks.processes import BenchmarkError, Crew

EMBEDDED, CLUSTER = "mr embedded", "mr cluster"
EMBEDDED_SINGLE, CLUSTER_SINGLE = "mr embedded, MR_BATCH_SIZE=1", "mr cluster, MR_BATCH_SIZE=1"
CELERY, DRAMATIQ, POOL = "celery", "dramatiq", "multiprocessing.Pool"
SINGLE = {"MR_BATCH_SIZE": "1"}
ONE_EACH = 0.99
"""Messages per item from which on a broker is said to carry one message for each."""

KNOWN = {
    (CELERY, "p50_ms"): 4.9,
    (CELERY, "each_p50_ms"): 4.9,
    (CELERY, "items_per_s"): 18_500.0,
    (DRAMATIQ, "items_per_s"): 2_850.0,
    (DRAMATIQ, "jobs_per_s"): 200.0,
}
"""What the peers reached on another machine of two cores, measured with other code."""

CLIENTS = 64
TEN = 10
WARM_REQUESTS = 50
WARM_S = 3.0
REPEATS = 3
"""W2 posts so often in each turn; the median counts."""
COMMAND_REPEATS = 7


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of the workloads, and how the peers are set."""

    disk: Path
    requests: int = 300
    items: int = 10_000
    scale: int | None = None
    seconds: float = 20.0
    idle_s: float = 60.0
    settle_s: float = 10.0
    tuning: peers.Tuning = peers.Tuning()


class Workload(msgspec.Struct, frozen=True):
    """A workload: its contestants take turns, then the goals are judged."""

    title: str
    contestants: list[Contestant]
    goals: list[Goal]


class _Running(msgspec.Struct, frozen=True):
    """A contestant that answers on `port`; `mr` is there if it is mr."""

    crew: Crew
    port: int
    mr: service.Service | None = None

    def post(
        self,
        job: str,
        arguments: Mapping[str, int],
        connections: int = 1,
        *,
        count: int | None = None,
        seconds: float | None = None,
    ) -> Outcome:
        """Post a job and check all answers.

        Raises: BenchmarkError.
        """
        body = json.dumps({"arguments": arguments})
        path = f"/job/{service.WORKFLOW}/{job}"
        plan = Plan(port=self.port, path=path, body=body, connections=connections, count=count, seconds=seconds)
        outcome = client.post(plan)
        numbers = range(arguments["count"]) if "count" in arguments else arguments.values()
        expected = {"result": {"pairs": [["sum", sum(number * number for number in numbers)]]}}
        for answer, times in outcome.answers.items():
            status, _, text = answer.partition(" ")
            if status != "200" or json.loads(text) != expected:
                raise BenchmarkError(f"{times} wrong answers to {job}: {answer[:500]}")
        return outcome


def _mr(start: Callable[[Crew, Mapping[str, str]], service.Service], extra: Mapping[str, str], crew: Crew) -> _Running:
    started = start(crew, extra)
    return _Running(crew, started.port, started)


def _peer(start: Callable[[Crew, peers.Tuning], int], tuning: peers.Tuning, crew: Crew) -> _Running:
    return _Running(crew, start(crew, tuning))


def _served(
    name: str, options: Options, exercise: Callable[[_Running, Options], Turn], extra: Mapping[str, str] | None = None
) -> Contestant:
    """A contestant that is started for each turn, then exercised."""
    starts: dict[str, Callable[[Crew], _Running]] = {
        EMBEDDED: partial(_mr, service.embedded, extra or {}),
        CLUSTER: partial(_mr, service.cluster, extra or {}),
        CELERY: partial(_peer, peers.start_celery, options.tuning),
        DRAMATIQ: partial(_peer, peers.start_dramatiq, options.tuning),
    }
    start = starts[name.partition(",")[0]]

    def turn() -> Turn:
        with Crew(options.disk) as crew:
            return exercise(start(crew), options)

    return Contestant(name, turn)


def _against(peer: str, contestant: str, figure: str, bound: float, *, at_most: bool) -> Goal:
    known = KNOWN.get((peer, figure))
    return Goal(contestant=contestant, figure=figure, peer=peer, bound=bound, at_most=at_most, known=known)


def _check_tree(running: _Running, outcome: Outcome, items: int) -> None:
    """Read the tree of the last request, if the contestant keeps trees: the root and every item must be there.

    Raises: BenchmarkError.
    """
    if running.mr is not None and (found := running.mr.tree_size(outcome.request_id)) <= items:
        raise BenchmarkError(f"the tree of a request of {items} items shows only {found} invocations")


def w1(options: Options) -> Workload:
    """Latency of tiny jobs."""

    def exercise(running: _Running, options: Options) -> Turn:
        arguments = {"a": 1, "b": 2}
        for job in ("two", "each"):
            running.post(job, arguments, count=WARM_REQUESTS)
        meter = Meter(running.crew)
        two = running.post("two", arguments, count=options.requests).latencies_ms
        each = running.post("each", arguments, count=options.requests).latencies_ms
        figures = {"p50_ms": statistics.median(two), "p99_ms": quantile(two, 0.99)}
        return meter.turn({**figures, "each_p50_ms": statistics.median(each), "each_p99_ms": quantile(each, 0.99)})

    return Workload(
        f"w1: map and reduce of two numbers, one client, {options.requests} in a row"
        " (each_: every number in an invocation of its own; a Celery chord does that anyway)",
        [_served(name, options, exercise) for name in (EMBEDDED, CLUSTER, CELERY)],
        [
            _against(CELERY, EMBEDDED, "p50_ms", 0.4, at_most=True),
            _against(CELERY, CLUSTER, "p50_ms", 0.8, at_most=True),
            _against(CELERY, EMBEDDED, "each_p50_ms", 0.4, at_most=True),
            _against(CELERY, CLUSTER, "each_p50_ms", 0.8, at_most=True),
        ],
    )


def w2(options: Options) -> Workload:
    """Throughput of one job."""

    def exercise(running: _Running, options: Options) -> Turn:
        running.post("many", {"count": options.items}, count=1)
        messages = running.mr.messages() if running.mr is not None else 0
        meter = Meter(running.crew)
        outcomes = [running.post("many", {"count": options.items}, count=1) for _ in range(REPEATS)]
        took_ms = statistics.median(outcome.latencies_ms[0] for outcome in outcomes)
        turn = meter.turn({"items_per_s": options.items / took_ms * 1000})
        figures = turn.figures
        if running.mr is not None:
            figures["messages_per_item"] = (running.mr.messages() - messages) / (options.items * REPEATS)
        _check_tree(running, outcomes[-1], options.items)
        if options.scale is not None and running.mr is not None:
            scaled = running.post("many", {"count": options.scale}, count=1)
            figures["scaled_items_per_s"] = options.scale / scaled.latencies_ms[0] * 1000
            figures["scaled_time_ratio"] = scaled.latencies_ms[0] / took_ms
        return turn

    def pool() -> Turn:
        meter = Meter()
        done = subprocess.run(
            [install.python(), "-m", "benchmarks.peers.pool", str(options.items), str(REPEATS)],
            cwd=peers.ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise BenchmarkError(f"the pool failed: {done.stderr[-500:]}")
        return meter.turn({"items_per_s": options.items / statistics.median(json.loads(done.stdout))})

    def goal(contestant: str, peer: str, bound: float) -> Goal:
        return _against(peer, contestant, "items_per_s", bound, at_most=False)

    def one_each(contestant: str, bound: float) -> Goal:
        # Against one message per item only one message per item counts.
        needs = {"needs": "messages_per_item", "needs_at_least": ONE_EACH}
        return msgspec.structs.replace(goal(contestant, DRAMATIQ, bound), **needs)

    return Workload(
        f"w2: one job of {options.items:,} items, from POST to answer (Celery in chunks of 100, Dramatiq one by one;"
        " the pool is bare: nothing stored, nothing served)",
        [
            *(_served(name, options, exercise) for name in (EMBEDDED, CLUSTER, CELERY)),
            *(_served(name, options, exercise, SINGLE) for name in (EMBEDDED_SINGLE, CLUSTER_SINGLE)),
            _served(DRAMATIQ, options, exercise),
            Contestant(POOL, pool),
        ],
        [
            goal(EMBEDDED, CELERY, 8),
            goal(CLUSTER, CELERY, 6),
            one_each(EMBEDDED_SINGLE, 6),
            one_each(CLUSTER_SINGLE, 3),
            *(
                # Linear but for a sixth: 115 times the time for 100 times the items.
                Goal(
                    contestant=name,
                    figure="scaled_time_ratio",
                    bound=1.15 * options.scale / options.items,
                    at_most=True,
                )
                for name in (EMBEDDED, CLUSTER)
                if options.scale is not None
            ),
        ],
    )


def w3(options: Options) -> Workload:
    """Throughput and latency of many small jobs at once."""

    def exercise(running: _Running, options: Options) -> Turn:
        arguments = {"count": TEN}
        running.post("many", arguments, CLIENTS, seconds=WARM_S)
        meter = Meter(running.crew)
        outcome = running.post("many", arguments, CLIENTS, seconds=options.seconds)
        turn = meter.turn(
            {
                "jobs_per_s": outcome.in_time / outcome.seconds,
                "p50_ms": statistics.median(outcome.latencies_ms),
                "p99_ms": quantile(outcome.latencies_ms, 0.99),
            }
        )
        done = len(outcome.latencies_ms)
        turn.figures["cpu_ms_per_job"] = sum(one.cpu_s for one in turn.usage.values()) * 1000 / done
        turn.figures["client_cpu_ms_per_job"] = outcome.cpu_s * 1000 / done
        _check_tree(running, outcome, TEN)
        return turn

    return Workload(
        f"w3: {CLIENTS} clients for {options.seconds:g} s, each a job of {TEN} items and a reduce",
        [_served(name, options, exercise) for name in (EMBEDDED, CLUSTER, DRAMATIQ)],
        [
            _against(DRAMATIQ, EMBEDDED, "jobs_per_s", 10, at_most=False),
            _against(DRAMATIQ, CLUSTER, "jobs_per_s", 6, at_most=False),
            Goal(contestant=EMBEDDED, figure="p99_ms", bound=100, at_most=True),
            Goal(contestant=CLUSTER, figure="p99_ms", bound=120, at_most=True),
        ],
    )


def beside(options: Options) -> Workload:
    """What others notice of handlers that misbehave."""

    def exercise(running: _Running, options: Options) -> Turn:
        arguments = {"a": 1, "b": 2}
        running.post("two", arguments, seconds=WARM_S)
        meter = Meter(running.crew)
        return meter.turn(harm.figures(running.port, lambda seconds: running.post("two", arguments, seconds=seconds)))

    return Workload(
        f"beside: map and reduce of two numbers, one client for {harm.SECONDS:g} s; alone, then beside a handler that "
        + ", ".join(harm.WAYS),
        [_served(name, options, exercise) for name in (EMBEDDED, CLUSTER)],
        [Goal(contestant=name, figure="worst_p99_ratio", bound=1.2, at_most=True) for name in (EMBEDDED, CLUSTER)],
    )


def idle(options: Options) -> Workload:
    """CPU when there is nothing to do."""
    servers = ("etcd", "nsqd", "redis")

    def exercise(running: _Running, options: Options) -> Turn:
        running.post("many", {"count": TEN}, count=1)
        time.sleep(options.settle_s)
        meter = Meter(running.crew)
        time.sleep(options.idle_s)
        turn = meter.turn({"own_percent": 0.0, "servers_percent": 0.0})
        for name, usage in turn.usage.items():
            turn.figures["servers_percent" if name in servers else "own_percent"] += usage.cpu_s / options.idle_s * 100
        return turn

    return Workload(
        f"idle: CPU over {options.idle_s:g} s, {options.settle_s:g} s after a job, in percent of a core",
        [_served(name, options, exercise) for name in (EMBEDDED, CLUSTER, CELERY, DRAMATIQ)],
        [Goal(contestant=name, figure="own_percent", bound=2, at_most=True) for name in (EMBEDDED, CLUSTER)],
    )


def start(options: Options) -> Workload:
    """Wall time of commands."""

    def contestant(name: str, command: list[str]) -> Contestant:
        def turn() -> Turn:
            meter, times = Meter(), []
            for _ in range(COMMAND_REPEATS):
                begun = time.perf_counter()
                done = subprocess.run(command, capture_output=True, text=True, cwd=options.disk)
                times.append((time.perf_counter() - begun) * 1000)
                if done.returncode != 0:
                    raise BenchmarkError(f"{name} exited with {done.returncode}: {done.stderr[-500:]}")
            return meter.turn({"wall_ms": statistics.median(times)})

        return Contestant(name, turn)

    ours = ("mr --help", "mr config show")
    return Workload(
        "start: wall time of a command",
        [
            *(contestant(name, [*service.program(), *name.split()[1:]]) for name in ours),
            contestant("celery --help", [str(install.python().with_name("celery")), "--help"]),
            contestant("dramatiq --help", [str(install.python().with_name("dramatiq")), "--help"]),
        ],
        [Goal(contestant=name, figure="wall_ms", bound=150, at_most=True) for name in ours],
    )


WORKLOADS: Mapping[str, Callable[[Options], Workload]] = {
    "w1": w1, "w2": w2, "w3": w3, "beside": beside, "idle": idle, "start": start
}  # fmt: skip
ONCE = frozenset({"idle"})
"""One turn is enough: it lasts a minute by itself."""
