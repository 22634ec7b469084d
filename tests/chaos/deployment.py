"""A whole deployment of its own: servers, a front end, two workers, and a connection to its store for the checker.

`embedded` is one SQLite file; `cluster` is etcd v3 and nsqd, `etcd2` etcd v2 and nsqd; `several` is three members of
etcd and two nsqd, one of which is found through nsqlookupd as well. Both workers offer `general`, the second one also
what the job `apart` needs. Everything lies in a temporary folder on a disk, because commits that cost nothing would
leave hardly a moment to be killed in. It stays if `keep` is set, for those who look why.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mr import codec
from mr.errors import MrError, StoreUnavailable
from mr.model.invocation import WorkerRecord
from mr.rules import keys, routing
from mr.settings import Settings
from mr.wiring import Parts
from tests.chaos import client, jobs
from tests.chaos.processes import Pid, Process, children, pid_of, wait_for
from tests.servers import EtcdCluster, EtcdServer, free_ports
from tests.servers_nsq import NsqdServer, NsqlookupdServer

PAIRS = ("embedded", "cluster", "several", "etcd2")
BOUND_S = {"embedded": 15.0, "cluster": 30.0, "several": 30.0, "etcd2": 30.0}
"""A request is over this long after a fault, at the latest; a process that is stopped is a fault until it goes on."""
EXECUTORS = 2
KEEP_REQUESTS_S = 30.0
"""Longer than a trial looks at a request after its end, short enough to see the cleaner at work."""
READY_S = 30.0
_REPOSITORY = Path(__file__).resolve().parent.parent.parent
_MR = (sys.executable, "-m", "mr.cli.main")
_DISK = "/var/tmp"
"""Kept over restarts, says the standard, and so never in memory as the usual temporary folder may be."""


class Deployment:
    """Started when entered, ended in order when left."""

    def __init__(self, pair: str, workflow: str = jobs.WORKFLOW, define: Callable[[Parts], None] = jobs.define) -> None:
        self.pair, self.workflow, self._define = pair, workflow, define
        self.folder = Path(tempfile.mkdtemp(prefix=f"mr-chaos-{pair}-", dir=_DISK))
        self.etcds: list[EtcdServer] = []
        self.nsqds: list[NsqdServer] = []
        self.lookupds: list[NsqlookupdServer] = []
        self.workers: list[Process] = []
        self.keep = False
        self.finished: dict[str, float] = {}
        """When requests ended, by id, on the clock of this process: the cleaner is measured by it."""
        self._scratch = self.folder / "scratch"
        self._scratch.mkdir()
        self._was_started: set[Pid] = set()
        (self.port,) = free_ports(1)

    def __enter__(self) -> Deployment:
        try:
            self._start()
        except BaseException:
            self.keep = True
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.keep = self.keep or kind is not None
        self._end()

    def _start(self) -> None:
        environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | {
            "PYTHONPATH": str(_REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._scratch),
            "MR_EXECUTORS": str(EXECUTORS),
            "MR_CLEANUP_MANDATORY_QUIET_PERIOD_S": f"{KEEP_REQUESTS_S:g}",
            **self._backends(),
        }
        self.parts = Parts(Settings.from_env(environ))
        self._define(self.parts)
        bind = ("web", "--bind", f"127.0.0.1:{self.port}")
        self.front_end = Process("front_end", [*_MR, *bind], environ, self.folder)
        for number, capabilities in enumerate(("general", f"general,{jobs.CAPABILITY}")):
            command = [*_MR, "worker", "--capabilities", capabilities]
            self.workers.append(Process(f"worker_{number}", command, environ, self.folder))
        for process in self.processes:
            process.start()
        self.wait_until_ready()

    def _backends(self) -> dict[str, str]:
        if self.pair == "embedded":
            return {"MR_STORE": f"sqlite:///{self.folder / 'store' / 'mr.db'}"}
        with _temporary_folders_in(_DISK):
            if self.pair == "several":
                self.etcds = EtcdCluster().start().servers
                self.lookupds = [NsqlookupdServer()]
                flags = [f"--lookupd-tcp-address=127.0.0.1:{lookupd.tcp_port}" for lookupd in self.lookupds]
                self.nsqds = [NsqdServer(flags), NsqdServer(flags)]
            else:
                self.etcds = [EtcdServer(["--enable-v2"] if self.pair == "etcd2" else []).start()]
                self.nsqds = [NsqdServer()]
        for server in (*self.lookupds, *self.nsqds):
            server.start()
        broker = f"nsq://{_addresses(nsqd.tcp_port for nsqd in self.nsqds)}"
        broker += f"?http={_addresses(nsqd.http_port for nsqd in self.nsqds)}"
        if self.lookupds:
            broker += f"&lookupd={_addresses(lookupd.http_port for lookupd in self.lookupds)}"
        api = 2 if self.pair == "etcd2" else 3
        return {"MR_STORE": f"etcd{api}://{_addresses(etcd.port for etcd in self.etcds)}", "MR_BROKER": broker}

    @property
    def processes(self) -> list[Process]:
        """The product's processes that an operator starts."""
        return [self.front_end, *self.workers]

    # -- its state ------------------------------------------------------------------------------------------------

    def wait_until_ready(self) -> None:
        """Until the front end answers, exactly the workers that run are on record, and each has its executors.

        Raises: NotInTime.
        """
        wait_for("the front end answers", self._does_front_end_answer, READY_S)
        wait_for("the running workers, and no others, are on record", self._are_workers_on_record, READY_S)
        wait_for("each worker has its executors", self._are_executors_there, READY_S)
        for process in self.processes:
            self._was_started.update(process.family)

    def _does_front_end_answer(self) -> bool:
        return client.is_up(self.port)

    def _are_workers_on_record(self) -> bool:
        running = sorted(worker.pid.number for worker in self.workers)
        with contextlib.suppress(StoreUnavailable):
            return sorted(record.pid for record in self.worker_records() if record.workflows) == running
        return False

    def _are_executors_there(self) -> bool:
        return all(len(executors(worker)) >= EXECUTORS for worker in self.workers)

    def worker_records(self) -> list[WorkerRecord]:
        """What live workers say of themselves. Raises: StoreUnavailable."""
        entries = self.parts.store.range(keys.WORKERS).entries
        return [codec.decode(entry.value, WorkerRecord, where=entry.key) for entry in entries]

    def backlog(self) -> int:
        """Messages of all topics that are not finished yet."""
        topics = routing.topics(self.workflow, ["general", jobs.CAPABILITY])
        return sum(backlog.total for backlog in self.parts.publisher.backlog(topics).values())

    def leftovers(self) -> list[str]:
        """Keys of requests that the cleaner should have removed by now."""
        late = time.time() - KEEP_REQUESTS_S - BOUND_S[self.pair]
        found: list[str] = []
        for r in [r for r, at in self.finished.items() if at < late]:
            w = self.workflow
            prefixes = [keys.facts(w, r), keys.datasets(w, r), keys.sessions(w, r), keys.receipts(w, r)]
            prefixes += [keys.request(w, r), keys.active(w, r), keys.stopped(w, r)]
            for prefix in prefixes:
                found += [entry.key for entry in self.parts.store.range(prefix, keys_only=True).entries]
        return found

    # -- its end --------------------------------------------------------------------------------------------------

    def end(self) -> list[str]:
        """End it in order; what is not as it should be then. Raises: NotInTime if messages are never finished."""
        problems = []
        wait_for("no message is left over", lambda: not self.backlog(), READY_S)
        if found := self.leftovers():
            problems.append(f"{len(found)} keys were not cleaned away, such as {found[0]}")
        for process in self.processes:
            self._was_started.update(process.family)
            if code := process.stop():
                problems.append(f"{process.name} ended with {code} when it was asked to stop")
        if alive := [pid.number for pid in self._was_started if pid.is_alive]:
            problems.append(f"processes {alive} outlived the deployment")
        self.keep = self.keep or bool(problems)
        return problems

    def _end(self) -> None:
        for process in [*self.workers, *([self.front_end] if hasattr(self, "front_end") else [])]:
            if process.is_alive:
                self._was_started.update(process.family)
            process.stop()
        for pid in self._was_started:
            if pid.is_alive and pid_of(pid.number) == pid:
                os.kill(pid.number, 9)
        if hasattr(self, "parts"):
            with contextlib.suppress(MrError):
                self.parts.close()
        servers: list[NsqdServer | NsqlookupdServer | EtcdServer] = [*self.nsqds, *self.lookupds, *self.etcds]
        for number, server in enumerate(servers):
            if self.keep:
                (self.folder / f"{type(server).__name__}-{number}.log").write_text(server.log())
            server.stop()
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def executors(worker: Process) -> list[Pid]:
    """The executors of a worker, its spare one included."""
    return children(worker.pid.number)


def _addresses(ports: Iterable[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


@contextlib.contextmanager
def _temporary_folders_in(folder: str) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before
