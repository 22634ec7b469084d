"""This machine, as far as it limits what mr may do: open files, room for temporary files, what confines handlers.

Limits are those of the process that asks; a service may have been given others by systemd or a container.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mr.model.condition import Condition, broken, doubtful, fine
from mr.rules import condition
from mr.settings import Settings

FILES_WARN = 4096
FILES_FAIL = 256
CGROUPS = "/sys/fs/cgroup"


def conditions(settings: Settings) -> Iterator[Condition]:
    """Each of the machine's conditions."""
    yield files(resource.getrlimit(resource.RLIMIT_NOFILE))
    folder = tempfile.gettempdir()
    disk = os.statvfs(folder)
    yield condition.free("temporary files", disk.f_bavail * disk.f_frsize, folder)
    yield memory(settings)
    yield sandbox()


def files(limits: tuple[int, int]) -> Condition:
    """How many files, and so clients, a process may have open; `limits` are soft and hard."""
    soft, hard = limits
    many = "without limit" if soft == resource.RLIM_INFINITY else f"{soft:,} at a time"
    if soft == resource.RLIM_INFINITY or soft >= FILES_WARN:
        return fine("open files", many)
    # The front end raises its own soft limit; nobody can raise the hard one.
    advice = f"ulimit -n {FILES_WARN}, or LimitNOFILE={FILES_WARN} in the unit (the hard limit is {hard:,})"
    return (broken if soft < FILES_FAIL else doubtful)("open files", many, advice)


def memory(settings: Settings) -> Condition:
    """What the executors of a worker here may take together, against what there is."""
    each_mb, executors = settings.handlers.memory_mb, settings.worker.executors
    there_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 20)
    text = f"{executors} of {each_mb:,.0f} MB each, enforced by rlimit; the machine has {there_mb:,.0f} MB"
    if each_mb * executors > there_mb:
        return doubtful("executors", text, "lower MR_HANDLER_MEMORY_MB or MR_EXECUTORS")
    return fine("executors", text)


def sandbox(root: str = CGROUPS, own: str = "/proc/self/cgroup") -> Condition:
    """What confines handlers, and what else this machine would have to offer."""
    folder = own_cgroup(root, own)
    cgroup = f"control group {folder} is ours to write" if folder else "no control group (v2) is ours to write"
    bubblewrap = "bubblewrap is installed" if shutil.which("bwrap") else "bubblewrap is not installed"
    return fine("sandbox", f"executors are confined by rlimits and by being processes; {cgroup}, {bubblewrap}")


def own_cgroup(root: str, own: str) -> str:
    """The control group of version 2 that this process may make others in; empty if there is none."""
    if not os.path.exists(f"{root}/cgroup.controllers"):
        return ""
    try:
        lines = Path(own).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if path is None:
        return ""
    folder = f"{root}{path}".rstrip("/")
    return folder if os.access(f"{folder}/cgroup.procs", os.W_OK) else ""
