"""The kinds of faults. Each is a generator: it strikes, yields, heals as an operator would, yields, and looks after.

What an operator's process manager does is part of the fault: a killed process is started again at once. Whom it
hits is drawn by the seed. A kind raises NotInTime when something that has to follow does not.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import NamedTuple

from tests.chaos.deployment import EXECUTORS, PAIRS, Deployment, executors
from tests.chaos.ledger import Ledger
from tests.chaos.processes import Process, wait_for

STOPPED_S = 10.0
DIE_S = 5.0
"""Executors of a killed worker are gone after this."""
RECOVER_S = 15.0

Strike = Callable[[Deployment, Random, Ledger], Iterator[str]]


class Kind(NamedTuple):
    """One kind of fault. `cuts_client`: the client that waits loses its connection, and has to ask for the result."""

    strike: Strike
    pairs: tuple[str, ...] = PAIRS
    cuts_client: bool = False


def nothing(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """No fault at all: what it takes undisturbed."""
    yield "nothing"
    yield ""


def executor(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill the executor that has just finished a leaf; its worker has to replace it."""
    homes = {pid: worker for worker in deployment.workers for pid in executors(worker)}
    busy = {pid.number: pid for pid in homes}
    last = next((number for number in reversed(ledger.pids) if number in busy), draw.choice(sorted(busy)))
    victim = busy[last]
    os.kill(victim.number, signal.SIGKILL)
    yield f"an executor of {homes[victim].name}"
    yield ""
    wait_for("the killed executor is gone", lambda: not victim.is_alive, DIE_S)
    worker = homes[victim]
    assert worker.is_alive, f"{worker.name} ended with its executor"
    wait_for("the executor is replaced", lambda: len(executors(worker)) >= EXECUTORS, RECOVER_S)


def supervisor(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill a worker's supervisor; its executors have to die with it."""
    worker = draw.choice(deployment.workers)
    orphans = executors(worker)
    assert len(orphans) >= EXECUTORS
    worker.kill()
    yield worker.name
    worker.start()
    wait_for("the executors of a killed worker are gone", lambda: not any(pid.is_alive for pid in orphans), DIE_S)
    yield ""


def stop(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Stop a worker's supervisor for 10 s; its lease runs out meanwhile, and it may do no harm when it goes on."""
    worker = draw.choice(deployment.workers)
    worker.send(signal.SIGSTOP)
    since = time.monotonic()
    yield f"{worker.name} for {STOPPED_S:g} s"
    # The length of the fault, not a wait for something.
    time.sleep(max(since + STOPPED_S - time.monotonic(), 0.0))
    worker.send(signal.SIGCONT)
    yield ""
    wait_for("the worker that was stopped is on record again", lambda: _is_on_record(deployment, worker), RECOVER_S)


def front_end(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill the front end with all its processes."""
    deployment.front_end.kill_group()
    yield "the front end"
    deployment.front_end.start()
    yield ""


def nsqd(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill nsqd and wipe its disk: every message is lost."""
    assert deployment.nsqd is not None
    deployment.nsqd.kill(wipe=True)
    yield "nsqd and its data"
    deployment.nsqd.start()
    yield ""


def etcd(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill etcd; what it had acknowledged has to be there when it is back."""
    assert deployment.etcd is not None
    deployment.etcd.kill()
    yield "etcd"
    deployment.etcd.start()
    yield ""


KINDS: Mapping[str, Kind] = {
    "executor": Kind(executor),
    "supervisor": Kind(supervisor),
    "front-end": Kind(front_end, cuts_client=True),
    "stop": Kind(stop),
    "nsqd": Kind(nsqd, pairs=("cluster",)),
    "etcd": Kind(etcd, pairs=("cluster",)),
}
UNDISTURBED = Kind(nothing)


def _is_on_record(deployment: Deployment, worker: Process) -> bool:
    return worker.pid.number in [record.pid for record in deployment.worker_records()]
