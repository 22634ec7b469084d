"""A parent with the front end and a worker as its children, for starting a whole mr in one command.

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

from mr.addresses import Endpoint
from mr.cli.exits import DONE, FAILED, USAGE, complain
from mr.cli.output import say

LOOK_EVERY_S = 0.05
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 10.0
STEADY_S = 10.0
"""A child that ran for this long has started well: its next death is a new story."""
DEATHS_MAX = 5
"""So many deaths in a row without a steady run, and it is given up."""
READY_S = 30.0
PR_SET_PDEATHSIG = 1


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
            say(f"mr: the {self.name} {how}; starting it again in {pause:g} s")

    def end(self, patience_s: float, is_hurried: Callable[[], bool]) -> None:
        """SIGTERM, and SIGKILL to all that it has started if that takes too long."""
        if self.process is None:
            return
        self.process.terminate()
        deadline = time.monotonic() + patience_s
        while self.process.poll() is None and time.monotonic() < deadline and not is_hurried():
            time.sleep(LOOK_EVERY_S)
        if self.process.poll() is None:
            say(f"mr: the {self.name} does not end; killing it")
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
                say(f"mr: {endpoint} does not answer after {READY_S:g} s; going on")
            time.sleep(LOOK_EVERY_S)
        say("mr: ending")
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
