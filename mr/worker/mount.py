"""The shared file system as an executor has it: opened for a workflow when one of its handlers first uses it.

The URL comes by a frame, so it stands in neither environment nor command line. It is in the memory of the executor all
the same: what the URL allows, handlers can do.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from mr.addresses import FileSystemUrl
from mr.ports.file_system import FileSystem


class SharedFiles:
    """`FS` of one workflow: all names of `ports.file_system.FileSystem`."""

    def __init__(self, url: FileSystemUrl, workflow: str) -> None:
        self._url, self._workflow = url, workflow
        self._opened: FileSystem | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._opened is None:
            # Here, since many handlers never use it, and fsspec takes a tenth of a second.
            from mr.adapters.file_systems.opening import open_file_system

            self._opened = open_file_system(self._url, self._workflow)
        return getattr(self._opened, name)

    def __repr__(self) -> str:
        return f"SharedFiles({self._url}, {self._workflow!r})"


def driver_threads() -> int:
    """Threads that drivers have started and keep: no handler left them behind."""
    if "fsspec.asyn" not in sys.modules:
        return 0
    return sum(thread.name.startswith(("fsspecIO", "asyncio_")) for thread in threading.enumerate())
