"""The processes that a handler started, and whatever they started: who they are, and how all of them end.

A process group is left by `setsid`, and a parent by dying. Two things stay. An executor is the reaper of its
descendants, so that an orphan becomes its own child (`end_children`, after each run). And whatever it started has the
executor's folder in its environment, which the kernel shows for as long as the process lives (`kill_marked`, once the
executor is gone). Who clears the environment *and* daemonises escapes the second, where there is no cgroup.

What handlers patch in `os` must not reach this code, so its functions are taken at import.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from os import P_ALL, WEXITED, WNOHANG, getpid, kill, listdir, waitid
from pathlib import Path
from signal import SIGKILL
from time import monotonic, sleep

_read_bytes, _glob = Path.read_bytes, Path.glob
_GIVE_UP_S = 2.0
_PAUSE_S = 0.002


def below(pid: int, most: int = 1 << 20) -> list[int]:
    """Children of a process, their children and so on; may miss some that come and go, and stops at about `most`."""
    found: list[int] = []
    waiting = [pid]
    while waiting and len(found) < most:
        children: list[int] = []
        # It may end at any moment, or one of its threads; also while its folder is listed.
        with suppress(OSError):
            for tasks in _glob(Path(f"/proc/{waiting.pop()}/task"), "*/children"):
                children += map(int, _read_bytes(tasks).split())
        found += children
        waiting += children
    return found


def end_children(kept: frozenset[int] = frozenset(), before_waiting: Callable[[], None] = lambda: None) -> bool:
    """Kill and reap all that this process, and what it started, has started; False if they are too many.

    Those in `kept` stay, without what they have started. `before_waiting` is called if some have to end.
    """
    until = 0.0
    while True:
        try:
            ended = waitid(P_ALL, 0, WEXITED | WNOHANG)
        except ChildProcessError:
            return True
        if ended is not None:
            continue
        found = below(getpid())
        if kept:
            found = [pid for pid in found if pid not in kept]
            if not found:
                return True
        _kill(found)
        if not until:
            before_waiting()
            until = monotonic() + _GIVE_UP_S
        if monotonic() > until:
            return False
        sleep(_PAUSE_S)


def kill_marked(folder: str) -> int:
    """Kill every process of this machine that was started for the executor with this folder; how many there were.

    Costs some 20 microseconds for each process of the machine: not for the loop of a worker.
    """
    mark = f"TMPDIR={folder}".encode()
    killed: set[int] = set()
    until = monotonic() + _GIVE_UP_S
    while True:
        found = [pid for name in listdir("/proc") if name.isdigit() and _has(pid := int(name), mark)]
        _kill(found)
        if not found or (killed.issuperset(found) and monotonic() > until):
            return len(killed)
        killed.update(found)
        sleep(_PAUSE_S)


def _has(pid: int, mark: bytes) -> bool:
    try:
        # A process that is dead and not reaped has no environment any more.
        return mark in _read_bytes(Path(f"/proc/{pid}/environ")).split(b"\0")
    except OSError:
        return False  # gone, or somebody else's


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            kill(pid, SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
