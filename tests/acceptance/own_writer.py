"""A result writer as an operator may write one: its class is named in MR_RESULT_WRITER, its settings are its own.

It writes files, and stands still before the last piece until a gate opens; so that tests can end a worker there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mr.adapters.writers.file import FileWriter
from mr.codec import Items
from mr.ports.result_writer import Origin, ResultWriter


class GatedWriter(ResultWriter):
    """Notes its process in `$OWN_FOLDER/begun`, and waits a minute for `$OWN_FOLDER/gate`."""

    name = "gated"

    def __init__(self) -> None:
        self._folder = Path(os.environ["OWN_FOLDER"])
        self._files = FileWriter(str(self._folder / "out"))

    def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any] | None:
        return self._files.write(origin, self._gated(pairs))

    def _gated(self, pairs: Iterator[Items]) -> Iterator[Items]:
        yield from pairs
        with (self._folder / "begun").open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        until = time.monotonic() + 60
        while not (self._folder / "gate").exists():
            if time.monotonic() > until:
                raise TimeoutError("nobody opened the gate")
            time.sleep(0.01)
