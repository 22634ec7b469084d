"""Processes of one turn: started with the benchmark as their parent, measured as trees, ended by process id.

The hard part is the end. Most programs here have children of their own (gunicorn, Celery, Dramatiq, mr), some in
process groups of their own. So what lives below each program is looked up before it is asked to end, and what is
left of exactly these processes afterwards is killed. If the benchmark itself is killed, the kernel tells the programs
to end, but then nobody sees to it that they do: Dramatiq's workers wait for a Redis that is gone.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import msgspec

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
END_TIMEOUT_S = 15.0
_LOG_TAIL = 1500
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class BenchmarkError(Exception):
    """A contestant could not be started, or answered something wrong; the text is for people."""


class Usage(msgspec.Struct, frozen=True):
    """What a program and all below it used: CPU seconds since they started, and the largest one's peak memory."""

    cpu_s: float
    peak_mb: float


class _Entry(msgspec.Struct, frozen=True):
    """A line of the process table. `born` tells a process from a later one with the same id."""

    pid: int
    parent: int
    born: int
    cpu_s: float


def busy_s() -> float:
    """CPU seconds that all cores were busy since the machine started, those taken by its host included."""
    user, nice, system, _idle, _waiting, *interrupts = (
        int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + sum(interrupts)) / _TICKS_PER_S


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listened on a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Crew:
    """The programs of one turn and their folder, which goes with them."""

    def __init__(self, disk: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mr-bench-", dir=disk))
        self._programs: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if isinstance(error, BenchmarkError):
            for name in self._programs:
                if text := self.log(name).strip():
                    error.add_note(f"the end of {name}'s log:\n{text[-_LOG_TAIL:]}")
        self.end()

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start a program; its output goes to a file in the folder."""
        # A file, not a pipe: nobody would read the pipe, and a full one stops the program.
        with self._log_file(name).open("ab") as log:
            self._programs[name] = subprocess.Popen(
                [str(word) for word in command],
                env=None if environment is None else dict(environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    def wait_until(self, ready: Callable[[], bool], what: str) -> None:
        """Wait for a condition.

        Raises: BenchmarkError when a program ends instead, or it takes too long.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            for name, program in self._programs.items():
                if program.poll() is not None:
                    raise BenchmarkError(f"{name} ended with {program.returncode} before {what}")
            if time.monotonic() > deadline:
                raise BenchmarkError(f"not within {START_TIMEOUT_S:g} s: {what}")
            time.sleep(0.02)

    def wait_for_http(self, port: int, path: str = "/") -> None:
        """Wait until a GET is answered with 200."""

        def answers() -> bool:
            connection = http.client.HTTPConnection(HOST, port, timeout=1.0)
            try:
                connection.request("GET", path)
                return connection.getresponse().status == 200
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()

        self.wait_until(answers, f"GET http://{HOST}:{port}{path} answered")

    def usage(self) -> dict[str, Usage]:
        """What each program has used so far, by name."""
        table = _process_table()
        trees = {name: list(_tree(table, program.pid)) for name, program in self._programs.items()}
        return {
            name: Usage(
                cpu_s=round(sum(entry.cpu_s for entry in tree), 2),
                peak_mb=round(max((_peak_mb(entry.pid) for entry in tree), default=0.0), 1),
            )
            for name, tree in trees.items()
        }

    def log(self, name: str) -> str:
        return self._log_file(name).read_text(errors="replace")

    def end(self) -> None:
        """End all programs, the last one first, and remove the folder. Twice is harmless."""
        with _no_interruption():
            table = _process_table()
            below = [entry for program in self._programs.values() for entry in _tree(table, program.pid)]
            for program in reversed(self._programs.values()):
                program.terminate()
                try:
                    program.wait(END_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    program.kill()
                    program.wait()
            left = _process_table()
            for entry in below:
                if entry.pid in left and left[entry.pid].born == entry.born:
                    os.kill(entry.pid, signal.SIGKILL)
            self._programs.clear()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _log_file(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '-')}.log"


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _no_interruption() -> Iterator[None]:
    """A second Ctrl-C may not stop the cleaning that the first one began."""
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, signal.SIG_IGN) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _process_table() -> dict[int, _Entry]:
    table: dict[int, _Entry] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path(f"/proc/{name}/stat").read_text(errors="replace")
            except OSError:
                continue  # it ended meanwhile
            # The second field is the program's name in brackets, and may hold spaces and brackets itself.
            fields = stat.rpartition(")")[2].split()
            pid, parent, born = int(name), int(fields[1]), int(fields[19])
            # Its own time, and that of its children which ended and were waited for.
            table[pid] = _Entry(pid, parent, born, sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_S)
    return table


def _tree(table: Mapping[int, _Entry], pid: int) -> Iterator[_Entry]:
    """A process and all below it."""
    if pid in table:
        yield table[pid]
        for entry in table.values():
            if entry.parent == pid:
                yield from _tree(table, entry.pid)


def _peak_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)
