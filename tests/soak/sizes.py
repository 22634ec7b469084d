"""How big the processes of a deployment are, each kind by its biggest."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from tests.chaos.deployment import Deployment, executors
from tests.chaos.processes import Pid


class Size(msgspec.Struct, frozen=True):
    """Memory and descriptors of a process."""

    rss_mb: float
    descriptors: int


def sizes(deployment: Deployment) -> dict[str, Size]:
    """By name, of those that run; of a worker's executors the biggest."""
    found = {}
    for process in deployment.processes:
        if not process.is_alive:
            continue
        family = [process.pid] if process is not deployment.front_end else process.family
        found[process.name] = _most(family)
        if process is not deployment.front_end:
            found[f"{process.name}'s executors"] = _most(executors(process))
    return found


def _most(pids: Iterable[Pid]) -> Size:
    """The most memory and the most descriptors: of two executors one may just be starting."""
    found = [_size(pid) for pid in pids]
    return Size(max(size.rss_mb for size in found), max(size.descriptors for size in found))


def _size(pid: Pid) -> Size:
    folder = Path(f"/proc/{pid.number}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        return Size(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir(folder / "fd")))
    except OSError:
        return Size(0.0, 0)  # it has just ended
