"""This machine, as far as it limits what mr may do: open files, room for temporary files, what confines handlers; and
what a worker on it can offer.

Limits are those of the process that asks; a service may have been given others by systemd or a container.
"""

from __future__ import annotations

import glob
import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping

from mr.model import capability
from mr.model.condition import Condition, broken, doubtful, fine
from mr.model.language import Language
from mr.rules import condition
from mr.services.isolation import Isolation, reached
from mr.settings import Settings

AUTO = "auto"
FILES_WARN = 4096
FILES_FAIL = 256


def offered(capabilities: Iterable[str]) -> dict[str, float | None]:
    """What a worker here offers. `auto` stands for what the machine shows; what is named beside it wins."""
    given = capability.offer(capabilities)
    if AUTO not in given:
        return given
    del given[AUTO]
    return {**discovered(), **given}


def discovered() -> dict[str, float | None]:
    """The system, the processor, `cpus`, `mem` in GiB, and `gpu` where there are any of NVIDIA's."""
    machine = platform.machine().lower()
    found: dict[str, float | None] = {
        {"darwin": "macos"}.get(platform.system().lower(), platform.system().lower()): None,
        {"aarch64": "arm64", "amd64": "x86_64"}.get(machine, machine): None,
        "cpus": float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        "mem": float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30),
    }
    if gpus := len(glob.glob("/dev/nvidia[0-9]*")):
        found["gpu"] = float(gpus)
    return found


def conditions(settings: Settings) -> Iterator[Condition]:
    """Each of the machine's conditions."""
    yield files(resource.getrlimit(resource.RLIMIT_NOFILE))
    folder = tempfile.gettempdir()
    disk = os.statvfs(folder)
    yield condition.free("temporary files", disk.f_bavail * disk.f_frsize, folder)
    yield memory(settings)
    yield sandbox(reached())


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


def programs(languages: Mapping[str, Language]) -> Condition:
    """Which languages handlers may be in here; one whose program is missing hurts only who needs it."""
    there, missing = ["python"], []
    for name, language in languages.items():
        program = language.command[0]
        if language.wants_interpreter or shutil.which(program) is not None:
            there.append(name)
        else:
            missing.append(f"{name} (no {program}; {language.install or f'install {program}'})")
    return fine("languages", ", ".join(there) + (f"; not here: {', '.join(missing)}" if missing else ""))


def sandbox(level: Isolation) -> Condition:
    """How far executors are kept apart."""
    memory = {"cgroup": "all processes of an executor together", "rlimit": "each process of an executor by itself"}
    ends = {"cgroup": "by the kernel, as one", "environment": "as far as their environment names their executor"}
    why = f"; {level.reason}" if level.reason else ""
    limited, ended = memory[level.memory], ends[level.processes]
    return fine("sandbox", f"memory is limited for {limited}; what they start is ended {ended}{why}")
