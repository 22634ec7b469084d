"""The ledger: a line for each execution of a leaf, written by the leaves themselves, outside of the product."""

from __future__ import annotations

from collections import Counter
from pathlib import Path


class Ledger:
    """Reads what has been appended so far; `executions` counts by path, `pids` are processes in order of time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.executions: Counter[str] = Counter()
        self.pids: list[int] = []
        self._nonces: set[str] = set()
        self._read_bytes = 0
        path.touch(exist_ok=False)

    def read(self) -> int:
        """Take in what is new; how many leaves have been executed at least once."""
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            lines = file.read()
        # A line that crosses a page may be seen half.
        lines = lines[: lines.rfind(b"\n") + 1]
        self._read_bytes += len(lines)
        for line in lines.decode().splitlines():
            path, pid, nonce = line.split(" ")
            assert nonce not in self._nonces, f"the line {line!r} is there twice"
            self._nonces.add(nonce)
            self.executions[path] += 1
            self.pids.append(int(pid))
        return len(self.executions)

    @property
    def more_than_once(self) -> int:
        """How many leaves were executed more than once."""
        return sum(count > 1 for count in self.executions.values())
