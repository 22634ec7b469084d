"""A whole mr as its users have it: a store, a broker, and the processes `mr web` and `mr worker`.

Tests define workflows through the services, as commands do, post over HTTP, and read the facts in the store.
A test that needs a worker of its own (to kill it, or with other settings) starts one with a capability that only
its handlers ask for; so all tests share one store, one broker and one front end.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from mr import codec
from mr.errors import DefinitionInUse, UnknownWorkflow
from mr.model.invocation import WorkerRecord
from mr.model.request import Request
from mr.rules import keys
from mr.settings import Settings
from mr.wiring import Parts
from tests.servers import EtcdServer, free_ports
from tests.servers_nsq import NsqdServer

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0
STOP_S = 15.0

T = TypeVar("T")


def eventually(look: Callable[[], T | None], what: str, deadline_s: float = DEADLINE_S) -> T:
    """The first true value that `look` gives; fails with `what` was waited for if there is none in time."""
    until = time.monotonic() + deadline_s
    while not (found := look()):
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        time.sleep(0.02)
    return found


class Reply(msgspec.Struct, frozen=True):
    """An answer of the front end. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        """The id of the request that it is about."""
        return self.headers["x-mr-request-id"]

    @property
    def pairs(self) -> Any:
        """The pairs of a good answer."""
        assert self.status == 200, f"{self.status}: {self.body[:3000].decode(errors='replace')}"
        return self.json["result"]["pairs"]

    @property
    def error(self) -> Any:
        """The error of one that failed."""
        assert self.status == 500, f"{self.status}: {self.body[:3000].decode(errors='replace')}"
        return self.json["error"]


class Process:
    """A process of mr, with its output in a file."""

    def __init__(self, arguments: list[str], environ: Mapping[str, str], log: Path) -> None:
        self.log_path = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mr.cli.main", *arguments],
                env=dict(environ), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        self.pid = self._process.pid

    @property
    def log(self) -> str:
        """What it wrote."""
        return self.log_path.read_text(errors="replace")

    @property
    def has_ended(self) -> bool:
        """Whether it is over."""
        return self._process.poll() is not None

    def check(self) -> None:
        """Fail if it ended by itself."""
        assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.log[-4000:]}"

    def kill(self) -> None:
        """SIGKILL: a crash."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End it in order; its exit code. Twice is harmless."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"did not end on SIGTERM:\n{self.log[-4000:]}") from None
        return self._process.returncode

    def family(self) -> set[int]:
        """Its pid and those of all processes below it."""
        return {self.pid} | set(_below(self.pid))


def _below(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield child
            yield from _below(child)


class Service:
    """A store, a broker, and the processes on them. `environ` are settings that all of them get."""

    def __init__(self, pair: str, environ: Mapping[str, str] | None = None) -> None:
        self.pair = pair
        self._given = dict(environ or {})
        self._stack = ExitStack()
        self._names = 0

    def __enter__(self) -> Self:
        with self._stack:
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mr-acceptance-")))
            self.environ = {name: value for name, value in os.environ.items() if not name.startswith("MR_")}
            self.environ |= {"XDG_STATE_HOME": str(self.folder / "state"), **self._backends(), **self._given}
            self.environ.pop("DEBUG", None)
            self.parts = Parts(Settings.from_env(self.environ))
            self._stack.callback(self.parts.close)
            self.port = free_ports(1)[0]
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def _backends(self) -> dict[str, str]:
        if self.pair == "embedded":
            return {"MR_STORE": f"sqlite:///{self.folder / 'mr.db'}"}
        api = 2 if self.pair == "etcd2" else 3
        etcd = self._stack.enter_context(EtcdServer(["--enable-v2"] if api == 2 else []))
        nsqd = NsqdServer()
        self._stack.callback(nsqd.stop)
        nsqd.start()
        return {
            "MR_STORE": f"etcd{api}://127.0.0.1:{etcd.port}",
            "MR_BROKER": f"nsq://127.0.0.1:{nsqd.tcp_port}?http=127.0.0.1:{nsqd.http_port}",
        }

    # -- processes ------------------------------------------------------------------------------------------------

    @contextmanager
    def process(self, *arguments: str, **environ: str) -> Iterator[Process]:
        """Run `mr` with these arguments and settings."""
        self._names += 1
        log = self.folder / f"{self._names}-{arguments[0]}.log"
        process = Process(list(arguments), self.environ | environ, log)
        try:
            yield process
        finally:
            process.stop()

    @contextmanager
    def web(self, port: int | None = None, **environ: str) -> Iterator[Process]:
        """A front end, answering."""
        port = self.port if port is None else port
        with self.process("web", "--bind", f"127.0.0.1:{port}", **environ) as process:
            self.await_front_end(process, port)
            yield process

    def await_front_end(self, process: Process, port: int) -> None:
        """Return when a front end answers."""

        def is_up() -> bool:
            process.check()
            try:
                return self.ask("GET", "/", port=port).status == 200
            except OSError:
                return False

        eventually(is_up, "the front end answers")

    @contextmanager
    def worker(self, capabilities: str = "general", *, only: str = "", **environ: str) -> Iterator[Process]:
        """A worker, entered in the store; it serves all workflows, or `only` one."""
        environ = {"MR_EXECUTORS": "2", "MR_WORKFLOW_NAMES": only, **environ}
        with self.process("worker", "--capabilities", capabilities, **environ) as process:
            self.await_worker(process)
            yield process

    def await_worker(self, process: Process) -> str:
        """The worker's id, once it is entered in the store."""

        def look() -> str | None:
            process.check()
            return next((name for name, record in self.workers().items() if record.pid == process.pid), None)

        return eventually(look, f"worker {process.pid} is there")

    def workers(self) -> dict[str, WorkerRecord]:
        """The live workers by their ids."""
        entries = self.parts.store.range(keys.WORKERS).entries
        return {
            entry.key[len(keys.WORKERS) :]: codec.decode(entry.value, WorkerRecord, where=entry.key)
            for entry in entries
        }

    # -- definitions ----------------------------------------------------------------------------------------------

    def define(self, w: str, steps: Mapping[str, tuple[str, ...]], job: str = "job") -> None:
        """Create a workflow whose job begins with the first step.

        A step is the sources of its mapper and reducer, or of its mapper, combiner and reducer. The handlers are
        called `<step>_map`, `<step>_combine`, `<step>_reduce`.
        """
        registry = self.parts.registry
        folder = self.folder / w
        folder.mkdir()
        for name, sources in steps.items():
            roles = ("map", "reduce") if len(sources) == 2 else ("map", "combine", "reduce")
            for role, source in zip(roles, sources, strict=True):
                (folder / f"{name}_{role}.py").write_text(source)
        registry.create_workflow(w, "of a test")
        plan = self.parts.sync.plan(w, folder)
        assert plan.is_good, plan
        self.parts.sync.apply(plan)
        for name, sources in steps.items():
            combiner = f"{name}_combine" if len(sources) == 3 else None
            registry.create_step(w, name, "", f"{name}_map", combiner, f"{name}_reduce")
        registry.create_job(w, job, "", next(iter(steps)))

    def forget(self, w: str) -> None:
        """Remove a workflow, if it was created, so that workers need not serve it any more."""
        with suppress(UnknownWorkflow, DefinitionInUse):  # in use: a test failed, and left a request
            self.parts.registry.delete_workflow(w, force=True)

    # -- HTTP -----------------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
        timeout_s: float = DEADLINE_S,
    ) -> Reply:
        """Send a request to the front end as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout_s)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            names = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, names, answer.read())
        finally:
            connection.close()

    def post(
        self,
        w: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        job: str = "job",
        blocking: str | None = None,
        headers: Mapping[str, str] | None = None,
        port: int | None = None,
        timeout_s: float = DEADLINE_S,
    ) -> Reply:
        """Post a job; blocking unless `blocking` says otherwise."""
        query = "" if blocking is None else f"?blocking={blocking}"
        body = json.dumps({"arguments": arguments or {}}).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        return self.ask("POST", f"/job/{w}/{job}{query}", body, headers, port=port, timeout_s=timeout_s)

    def start(self, w: str, arguments: Mapping[str, Any] | None = None, *, job: str = "job") -> str:
        """Post a job without waiting; the request's id."""
        reply = self.post(w, arguments, job=job, blocking="false")
        assert (reply.status, reply.json) == (200, {"result": None}), reply
        return reply.request_id

    def result(self, w: str, r: str, deadline_s: float = DEADLINE_S) -> Reply:
        """What the front end says of a request once it is over."""

        def look() -> Reply | None:
            reply = self.ask("GET", f"/request/{w}/{r}/result")
            return None if reply.status == 202 else reply

        try:
            return eventually(look, f"request {r} is over", deadline_s)
        except AssertionError as error:
            logs = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))
            raise AssertionError(f"{error}\n{[*self.facts(w, r)]}\n{self.workers()}\n{logs}") from None

    # -- what the store says --------------------------------------------------------------------------------------

    def request(self, w: str, r: str) -> Request:
        """The record of a request."""
        return self.parts.results.request(w, r)

    def facts(self, w: str, r: str) -> dict[str, Any]:
        """All facts about a request's invocations, by key without its beginning; values as JSON."""
        prefix = keys.facts(w, r)
        return {key[len(prefix) :]: json.loads(value) for key, value in self.entries(prefix).items()}

    def entries(self, prefix: str) -> dict[str, bytes]:
        """Everything in the store whose key begins so."""
        found: dict[str, bytes] = {}
        after = ""
        while True:
            page = self.parts.store.range(prefix, after=after)
            found.update((entry.key, entry.value) for entry in page.entries)
            if not page.more:
                return found
            after = page.entries[-1].key
