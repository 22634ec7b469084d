"""Processes of the product under the hand of a test: started, killed by number, started again, and really gone.

A number alone does not name a process, because numbers come again. `Pid` has the time of its start beside it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

STOP_TIMEOUT_S = 20.0
POLL_S = 0.01


class NotInTime(Exception):
    """Something that was waited for did not come about."""


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    """Return as soon as the condition holds. Raises: NotInTime."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise NotInTime(f"{what}: not so after {timeout_s:g} s")
        time.sleep(POLL_S)


class Pid(NamedTuple):
    """One process: its number and when it started, in ticks since the boot."""

    number: int
    started: int

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return (fields := _stat(self.number)) is not None and fields.state not in "ZX" and self == fields.pid


class _Stat(NamedTuple):
    pid: Pid
    state: str
    parent: int


def _stat(number: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{number}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in the second field may have blanks and brackets of its own.
    fields = text.rpartition(")")[2].split()
    return _Stat(Pid(number, int(fields[19])), fields[0], int(fields[1]))


def pid_of(number: int) -> Pid | None:
    """The process that has this number now."""
    found = _stat(number)
    return found.pid if found else None


def children(number: int) -> list[Pid]:
    """The processes whose parent it is."""
    found = (_stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [one.pid for one in found if one is not None and one.parent == number and one.state not in "ZX"]


class Process:
    """A command that can be started again after it ended; what it writes goes to one file."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command, self._environ = list(command), dict(environ)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> Pid:
        """The running process."""
        assert self._process is not None, f"{self.name} does not run"
        found = pid_of(self._process.pid)
        assert found is not None
        return found

    @property
    def family(self) -> list[Pid]:
        """It and its children."""
        return [self.pid, *children(self.pid.number)]

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; it leads a process group of its own."""
        assert not self.is_alive, f"{self.name} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid.number, number)

    def kill(self) -> None:
        """SIGKILL, to this one process."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_group(self) -> None:
        """SIGKILL to it and the children that are still in its group, as a process manager does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int | None:
        """End it in order; its exit code, None if it did not run, -9 if it had to be killed."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended; its exit code, -9 if it had to be killed. A second signal would hurry it."""
        assert self._process is not None, f"{self.name} does not run"
        process, self._process = self._process, None
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
