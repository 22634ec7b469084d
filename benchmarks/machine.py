"""Where a benchmark ran: cores, memory, kernel, Python, and the disk that everything durable lies on."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.processes import BenchmarkError

_SYNCS = 50
_BLOCK = b"x" * 4096


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What figures depend on. `sync_ms` is the median of appending 4 KiB to a file and waiting for the disk."""

    cores: int
    processor: str
    memory_gb: float
    kernel: str
    python: str
    folder: str
    filesystem: str
    sync_ms: float
    load: float


def describe(folder: Path) -> Machine:
    """Look at the machine; `folder` takes the data of all contestants."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    return Machine(
        cores=os.cpu_count() or 1,
        processor=next((line.partition(":")[2].strip() for line in facts if line.startswith("model name")), "unknown"),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=platform.release(),
        python=platform.python_version(),
        folder=str(folder),
        filesystem=filesystem(folder),
        sync_ms=round(_sync_ms(folder), 3),
        load=round(os.getloadavg()[0], 2),
    )


def data_folder(asked: Path | None) -> Path:
    """A folder on a disk: the one asked for, else a temporary one that does not lie in memory.

    Raises: BenchmarkError if there is none.
    """
    for folder in [asked] if asked is not None else [Path(tempfile.gettempdir()), Path("/var/tmp"), Path.home()]:
        if folder.is_dir() and filesystem(folder) not in ("tmpfs", "ramfs"):
            return folder.resolve()
    raise BenchmarkError("durable settings need a disk; name a folder on one with --folder")


def filesystem(folder: Path) -> str:
    """The kind of file system that a folder lies on."""
    path = os.fspath(folder.resolve())
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, found = line.split()[:3]
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, kind = place, found
    return kind


def _sync_ms(folder: Path) -> float:
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            begun = time.perf_counter()
            file.write(_BLOCK)
            file.flush()
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)
