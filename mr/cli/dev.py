"""`mr dev`: the front end and a worker as two children of one parent, for trying things on one machine.

They are separate processes, because the front end's event loop must never share a process with the worker's. The
parent starts both, starts one again that dies, and ends both in order: the front end first, so that nothing new is
accepted, then the worker, which hands back what it has. The children are in sessions of their own, so that Ctrl-C
reaches the parent alone, and get SIGTERM from the kernel if the parent is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from types import FrameType

import click

from mr import __version__
from mr.addresses import Endpoint
from mr.cli.command import Command
from mr.cli.exits import DONE, FAILED, REFUSED, USAGE, Refused, complain
from mr.cli.output import say
from mr.cli.session import opened, settings
from mr.settings import Settings

LOOK_EVERY_S = 0.05
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 10.0
STEADY_S = 10.0
"""A child that ran for this long has started well: its next death is a new story."""
DEATHS_MAX = 5
"""So many deaths in a row without a steady run, and it is given up."""
READY_S = 30.0
PR_SET_PDEATHSIG = 1


@click.command("dev", cls=Command, examples=["mr dev", "mr dev --bind 127.0.0.1:8081", "MR_EXECUTORS=4 mr dev"])
@click.option("--bind", metavar="HOST:PORT", help="Where to listen, on this machine only (127.0.0.1:8080).")
def dev(bind: str | None) -> int:
    """Run the front end and a worker together, on one SQLite file or whatever is configured. Not for production."""
    found = settings({"MR_WEB_BIND": bind}, development=True)
    endpoint = found.http.bind.endpoint
    address = str(found.http.bind)
    if endpoint is not None:
        endpoint = free(endpoint)
        address = str(endpoint)
    say(f"mr {__version__} · development · starting")
    known = whats_known(found)
    children = [Child("front end", ["web", "--development", "--bind", address])]
    if found.worker.consume:
        children.append(Child("worker", ["worker", "--development"]))
    return Parent(children, found.worker.drain_s + 5.0).run(lambda: banner(found, endpoint, known), endpoint)


def free(endpoint: Endpoint) -> Endpoint:
    """The endpoint, if nobody listens there; for port 0 a free port.

    Raises: Refused with the next step if it is taken.
    """
    host = endpoint.host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, endpoint.port))
        except OSError as error:
            raise Refused(
                f"{endpoint} is taken: {error.strerror}",
                hint=f"end what listens there, or take another: mr dev --bind {Endpoint(host, endpoint.port + 1)}",
                exit_code=REFUSED,
            ) from error
        return Endpoint(host, probe.getsockname()[1])


def whats_known(found: Settings) -> list[str]:
    """What stands in the store already, a line for each workflow, and the first thing to do."""
    with opened(found) as parts:
        lines = []
        job = ""
        for name in list(parts.registry.list_workflows())[:5]:
            _, _, now = parts.registry.current(name)
            jobs = ", ".join(sorted(now.jobs)) or "none"
            lines.append(f"  workflow  {name}: {len(now.handlers)} handlers, {len(now.steps)} steps, jobs: {jobs}")
            job = job or next((f"{name}/{one}" for one in sorted(now.jobs)), "")
        if job:
            lines.append(f"  next: mr run {job} key=value")
        elif lines:
            lines.append("  next: mr handler sync WORKFLOW FOLDER, mr step create …, mr job create …")
        else:
            lines.append("  next: mr workflow create NAME DESCRIPTION, then mr handler sync NAME FOLDER")
        return lines


def banner(found: Settings, endpoint: Endpoint | None, known: list[str]) -> None:
    """Say what runs, and what to do next."""
    offered = ", ".join(found.worker.capabilities)
    executors = f"{found.worker.executors} executor{'s' if found.worker.executors > 1 else ''}"
    say(f"  web       {f'http://{endpoint}' if endpoint else found.http.bind}")
    say(f"  worker    {f'{executors}, capabilities: {offered}' if found.worker.consume else 'none (MR_CONSUME=0)'}")
    say(f"  store     {found.store.url}")
    if found.broker.url.kind != "sqlite":
        say(f"  broker    {found.broker.url}")
    for line in known:
        say(line)
    say("  Ctrl-C ends it. Not for production: mr help web, mr help worker")


class Child:
    """One of the processes, over all its lives."""

    def __init__(self, name: str, words: list[str]) -> None:
        self.name = name
        self.command = [sys.executable, "-m", "mr.cli.main", *words]
        self.process: subprocess.Popen[bytes] | None = None
        self.deaths = 0
        self.started = 0.0
        self.again_at = 0.0

    def start(self) -> None:
        """A new life."""
        self.started = time.monotonic()
        parent = os.getpid()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=lambda: _die_with(parent)
        )

    def died(self, code: int, now: float) -> None:
        """Note a death, and when to start again."""
        self.process = None
        self.deaths = 1 if now - self.started >= STEADY_S else self.deaths + 1
        pause = min(PAUSE_FIRST_S * 2.0 ** (self.deaths - 1), PAUSE_MAX_S)
        self.again_at = now + pause
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if self.deaths < DEATHS_MAX:
            say(f"mr dev: the {self.name} {how}; starting it again in {pause:g} s")

    def end(self, patience_s: float, is_hurried: Callable[[], bool]) -> None:
        """SIGTERM, and SIGKILL to all that it has started if that takes too long."""
        if self.process is None:
            return
        self.process.terminate()
        deadline = time.monotonic() + patience_s
        while self.process.poll() is None and time.monotonic() < deadline and not is_hurried():
            time.sleep(LOOK_EVERY_S)
        if self.process.poll() is None:
            say(f"mr dev: the {self.name} does not end; killing it")
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


class Parent:
    """Starts the children, keeps them alive, and ends them."""

    def __init__(self, children: list[Child], patience_s: float) -> None:
        self._children = children
        self._patience_s = patience_s
        self._signals = 0

    def run(self, on_ready: Callable[[], None], endpoint: Endpoint | None) -> int:
        """Until a signal, or until a child cannot live; the exit code."""
        before = {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return self._run(on_ready, endpoint)
        finally:
            for child in self._children:
                child.end(self._patience_s, lambda: self._signals > 1)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _run(self, on_ready: Callable[[], None], endpoint: Endpoint | None) -> int:
        started = time.monotonic()
        is_ready = False
        for child in self._children:
            child.start()
        while not self._signals:
            now = time.monotonic()
            for child in self._children:
                if child.process is None:
                    if now >= child.again_at:
                        child.start()
                    continue
                code = child.process.poll()
                if code is None:
                    continue
                if code == USAGE:
                    return USAGE  # it has said what is wrong with its settings, and will say so again
                child.died(code, now)
                if child.deaths >= DEATHS_MAX:
                    complain(
                        f"the {child.name} died {child.deaths} times in a row, giving up", "its last words are above"
                    )
                    return FAILED
            if not is_ready and (endpoint is None or _answers(endpoint)):
                is_ready = True
                on_ready()
            elif not is_ready and now - started > READY_S:
                is_ready = True
                say(f"mr dev: {endpoint} does not answer after {READY_S:g} s; going on")
            time.sleep(LOOK_EVERY_S)
        say("mr dev: ending")
        return DONE

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1


def _answers(endpoint: Endpoint) -> bool:
    try:
        socket.create_connection((endpoint.host, endpoint.port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _die_with(parent: int) -> None:
    """In the child, before it becomes another program: SIGTERM when the parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(FAILED)  # it was gone before the kernel knew of the wish
