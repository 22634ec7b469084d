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
from typing import Literal, NamedTuple

from tests.chaos.deployment import EXECUTORS, PAIRS, Deployment, executors
from tests.chaos.ledger import Ledger
from tests.chaos.processes import Process, wait_for
from tests.servers import EtcdServer

STOPPED_S = 10.0
AWAY_S = 5.0
"""How long one of several servers stays dead."""
DIE_S = 5.0
"""Executors of a killed worker are gone after this."""
RECOVER_S = 15.0

Strike = Callable[[Deployment, Random, Ledger], Iterator[str]]


class Kind(NamedTuple):
    """One kind of fault. `client` is what happens to the client that waits; `repeats`: a leaf may run a second time."""

    strike: Strike
    pairs: tuple[str, ...] = PAIRS
    client: Literal["answered", "cut off", "told to come back"] = "answered"
    repeats: bool = True


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


def end_worker(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Ask a worker to end (SIGTERM): it finishes what it has begun, hands back the rest, and leaves nothing running."""
    worker = draw.choice(deployment.workers)
    family = worker.family
    worker.send(signal.SIGTERM)
    yield worker.name
    code = worker.wait()
    assert code == 0, f"{worker.name} ended with {code} when it was asked to end"
    assert not any(pid.is_alive for pid in family), f"processes of {worker.name} outlived it"
    worker.start()
    yield ""


def end_front_end(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Ask the front end to end (SIGTERM): who waits there is told the id of the request, and to come back."""
    family = deployment.front_end.family
    deployment.front_end.send(signal.SIGTERM)
    yield "the front end"
    code = deployment.front_end.wait()
    assert code == 0, f"the front end ended with {code} when it was asked to end"
    assert not any(pid.is_alive for pid in family), "processes of the front end outlived it"
    deployment.front_end.start()
    yield ""


def nsqd(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill an nsqd and wipe its disk: every message that it has is lost."""
    victim = draw.choice(deployment.nsqds)
    victim.kill(wipe=True)
    yield "an nsqd and its data" if len(deployment.nsqds) > 1 else "nsqd and its data"
    victim.start()
    yield ""


def nsqd_away(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill one nsqd of two, with its data, and leave it dead for longer than a request may need."""
    victim = draw.choice(deployment.nsqds)
    victim.kill(wipe=True)
    since = time.monotonic()
    yield f"an nsqd, away for {AWAY_S:g} s"
    time.sleep(max(since + AWAY_S - time.monotonic(), 0.0))
    victim.start()
    yield ""


def nsqlookupd(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill nsqlookupd for a while; all that it knows is known already."""
    victim = draw.choice(deployment.lookupds)
    victim.kill()
    since = time.monotonic()
    yield f"nsqlookupd, away for {AWAY_S:g} s"
    time.sleep(max(since + AWAY_S - time.monotonic(), 0.0))
    victim.start()
    yield ""


def etcd(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill etcd; what it had acknowledged has to be there when it is back."""
    (victim,) = deployment.etcds
    victim.kill()
    yield "etcd"
    victim.start()
    yield ""


def etcd_leader(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill the member of etcd that leads, for a while; the others go on."""
    yield from _member_away(next(etcd for etcd in deployment.etcds if etcd.leads()), "the leader of etcd")


def etcd_member(deployment: Deployment, draw: Random, ledger: Ledger) -> Iterator[str]:
    """Kill another member of etcd, for a while."""
    yield from _member_away(draw.choice([etcd for etcd in deployment.etcds if not etcd.leads()]), "a member of etcd")


def _member_away(victim: EtcdServer, name: str) -> Iterator[str]:
    victim.kill()
    since = time.monotonic()
    yield f"{name}, away for {AWAY_S:g} s"
    time.sleep(max(since + AWAY_S - time.monotonic(), 0.0))
    victim.start()
    yield ""


ALONE = ("cluster", "etcd2")
SEVERAL = ("several",)
KINDS: Mapping[str, Kind] = {
    "executor": Kind(executor),
    "supervisor": Kind(supervisor),
    "front-end": Kind(front_end, client="cut off"),
    "stop": Kind(stop),
    "end-worker": Kind(end_worker, repeats=False),
    "end-front-end": Kind(end_front_end, client="told to come back", repeats=False),
    "nsqd": Kind(nsqd, pairs=ALONE + SEVERAL),
    "nsqd-away": Kind(nsqd_away, pairs=SEVERAL),
    "nsqlookupd": Kind(nsqlookupd, pairs=SEVERAL, repeats=False),
    "etcd": Kind(etcd, pairs=ALONE),
    "etcd-leader": Kind(etcd_leader, pairs=SEVERAL),
    "etcd-member": Kind(etcd_member, pairs=SEVERAL),
}
UNDISTURBED = Kind(nothing, repeats=False)


def _is_on_record(deployment: Deployment, worker: Process) -> bool:
    return worker.pid.number in [record.pid for record in deployment.worker_records()]
