"""How far executors are kept apart from each other and from the machine, and the cgroup that keeps them.

Everywhere: a process group and a folder of its own for each executor, no credentials, no core files, a limit on its
address space (`RLIMIT_AS`, each process by itself). Where this process may make cgroups (version 2), every executor
gets a leaf: what it starts, whatever becomes of it, is killed as one. Where the memory and pids controllers can be had
below, too, all processes of an executor share its memory limit, and can only be so many.

The hard part is the kernel's rule that a cgroup has processes or controllers for those below it, not both. So a worker
that is alone in its cgroup, as a service with `Delegate=yes` is, moves itself into a leaf first. Whatever of this is
refused is left out: executors run all the same, and `reached` says how far it went.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Literal

import msgspec

TASKS_MAX = 1000
"""Processes and threads of one executor."""

LEAF_PREFIX = "mr-executor-"
_WANTED = ("memory", "pids")
_REMOVE_S = 1.0


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """The level reached: what limits the memory of an executor, what ends all of its processes, and why not more."""

    memory: Literal["cgroup", "rlimit"]
    processes: Literal["cgroup", "environment"]
    reason: str = ""


class Leaf:
    """The cgroup of one executor."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def enter(self, pid: int) -> None:
        """Put a process in, with all that it starts from now on. Raises: OSError."""
        _write(self.path / "cgroup.procs", str(pid))

    def kill(self) -> None:
        """Kill all that is in it."""
        try:
            _write(self.path / "cgroup.kill", "1")
        except OSError:  # before Linux 5.14
            for pid in self._processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether the kernel killed anything in it for using too much memory."""
        return any(
            line.startswith("oom_kill ") and line != "oom_kill 0" for line in _lines(self.path / "memory.events")
        )

    def remove(self) -> None:
        """Kill what is left in it and remove it. Waits a moment for the dead to go."""
        until = time.monotonic() + _REMOVE_S
        while True:
            self.kill()
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() > until:
                    return
                time.sleep(0.005)
            else:
                return

    def _processes(self) -> list[int]:
        return [int(line) for line in _lines(self.path / "cgroup.procs")]


class Cgroup:
    """The cgroup below which executors get their leaves; `path` is None where there is none of version 2."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._limits_memory = False

    @classmethod
    def own(cls) -> Cgroup:
        """The cgroup of this process."""
        mounts = map(str.split, _lines(Path("/proc/self/mountinfo")))
        mount = next((fields[4] for fields in mounts if _is_v2(fields)), "")
        inside = next((line[3:] for line in _lines(Path("/proc/self/cgroup")) if line.startswith("0::")), "")
        return cls(Path(mount + inside) if mount and inside else None)

    def look(self) -> Isolation:
        """The level that executors below this cgroup can have; changes nothing."""
        if self.path is None:
            return Isolation(memory="rlimit", processes="environment", reason="there is no cgroup of version 2")
        trial = self.path / f"mr-trial-{os.getpid()}"
        try:
            trial.mkdir()
            trial.rmdir()
        except OSError as error:
            reason = f"no cgroup may be made below {self.path}: {error.strerror}"
            return Isolation(memory="rlimit", processes="environment", reason=reason)
        offered = self._words("cgroup.controllers")
        if missing := [name for name in _WANTED if name not in offered]:
            reason = f"{self.path} does not offer the controllers {' and '.join(missing)}"
        elif not (self._passes_on or self._is_root or self._is_alone):
            reason = f"other processes share {self.path}"
        else:
            return Isolation(memory="cgroup", processes="cgroup")
        return Isolation(memory="rlimit", processes="cgroup", reason=reason)

    def prepare(self) -> Isolation:
        """Get what can be had for the leaves, before there are any; the level reached."""
        level = self.look()
        if level.processes != "cgroup":
            self.path = None
            return level
        self._tidy()
        if level.memory == "cgroup":
            try:
                self._pass_on()
                self._limits_memory = True
            except OSError as error:
                reason = f"{self.path} does not pass its controllers on: {error.strerror}"
                return msgspec.structs.replace(level, memory="rlimit", reason=reason)
        return level

    def leaf(self, name: str, memory_bytes: int | None) -> Leaf | None:
        """A new leaf with its limits, or None where there cannot be one."""
        if self.path is None:
            return None
        leaf = Leaf(self.path / name)
        try:
            leaf.path.mkdir(exist_ok=True)
        except OSError:
            return None
        if self._limits_memory:
            limits = {"pids.max": str(TASKS_MAX), "memory.oom.group": "1", "memory.swap.max": "0"}
            if memory_bytes is not None:
                limits["memory.max"] = str(memory_bytes)
            for file, value in limits.items():
                with contextlib.suppress(OSError):  # a kernel without swap has no file for it
                    _write(leaf.path / file, value)
        return leaf

    def remove(self, name: str) -> None:
        """Remove the leaf of an executor whose worker was killed, if it had one here."""
        if self.path is not None:
            Leaf(self.path / name).remove()

    def _tidy(self) -> None:
        """Remove the empty leaves of workers that were killed. One that somebody is about to enter may go, too:
        its executor does without.
        """
        assert self.path is not None
        for leaf in self.path.glob(f"{LEAF_PREFIX}*"):
            with contextlib.suppress(OSError):  # somebody is in it
                leaf.rmdir()

    def _pass_on(self) -> None:
        assert self.path is not None
        if self._passes_on:
            return
        if not self._is_root:
            home = Leaf(self.path / f"mr-worker-{os.getpid()}")
            home.path.mkdir(exist_ok=True)
            home.enter(os.getpid())
        _write(self.path / "cgroup.subtree_control", " ".join(f"+{name}" for name in _WANTED))

    @property
    def _passes_on(self) -> bool:
        return set(_WANTED) <= set(self._words("cgroup.subtree_control"))

    @property
    def _is_root(self) -> bool:
        """The root of all cgroups may have both, and has no type."""
        assert self.path is not None
        return not (self.path / "cgroup.type").exists()

    @property
    def _is_alone(self) -> bool:
        return self._words("cgroup.procs") == [str(os.getpid())]

    def _words(self, file: str) -> list[str]:
        assert self.path is not None
        return " ".join(_lines(self.path / file)).split()


def reached() -> Isolation:
    """The level of isolation that the executors of a worker started like this process have; changes nothing."""
    return Cgroup.own().look()


def _is_v2(fields: list[str]) -> bool:
    """Whether a line of mountinfo is of cgroup version 2: its type follows a lone `-`."""
    return fields[fields.index("-") + 1] == "cgroup2"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _write(path: Path, text: str) -> None:
    # Not to be created: a file that is not there is a controller that is not there.
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
