"""What handlers print: one file in memory that file descriptors 1 and 2 and `sys.stdout` all append to.

Because it is a file and no pipe, nobody has to read while a handler prints: native code that prints while it holds
the interpreter cannot block, text that Python, native code and subprocesses print keeps its order, and the supervisor
can still read what a dead executor had printed. A child that prints nothing costs one `lseek`.

The hard part is endless printing. The file has no limit, because a write that fails would be an error in the handler;
instead the supervisor, which looks every tenth of a second anyway, gives the memory beyond the limit back (`trim`).
And what no record takes never leaves the file: a megabyte of text for each failure would keep the supervisor's loop,
and all others who wait for it, for milliseconds. The end of the file always stays, so that the last line of what is
still running can be told.
"""

from __future__ import annotations

import ctypes
import io
import os
import sys
from os import O_RDONLY, SEEK_END, close, devnull, dup2, fstat, ftruncate, lseek, pread, write
from os import open as open_file

from mr.rules import limits

TAIL_BYTES = 4096
LINE_MAX = 200
"""Characters of a last line that are told."""
_KEEP_SIZE_AND_PUNCH_HOLE = 3


def create() -> int:
    """A new file descriptor of an empty capture file; appends always go to its end, whoever writes."""
    import fcntl

    descriptor = os.memfd_create("mr-output", os.MFD_CLOEXEC)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    return descriptor


def printed(descriptor: int, limit_bytes: int) -> str:
    """What stands in the file, cut at the limit and at what a record takes, and flagged when it is cut."""
    size = lseek(descriptor, 0, SEEK_END)
    most = min(limit_bytes, limits.OUTPUT_MAX)
    text = pread(descriptor, min(size, most), 0).decode("utf-8", "replace")
    if size <= most:
        return text
    why = "MR_HANDLER_OUTPUT_MB" if most == limit_bytes else "what a record takes"
    return f"{text}\n… output cut at {most} bytes ({why})"


def last_line(descriptor: int) -> str:
    """The last line in the file with any text in it, finished or not, cut."""
    start = max(0, lseek(descriptor, 0, SEEK_END) - TAIL_BYTES)
    lines = pread(descriptor, TAIL_BYTES, start).decode("utf-8", "ignore").splitlines()
    line = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return line if len(line) <= LINE_MAX else f"{line[: LINE_MAX - 1]}…"


def is_beyond(descriptor: int, limit_bytes: int) -> bool:
    """Whether there is anything to `trim`."""
    return lseek(descriptor, 0, SEEK_END) > limit_bytes


def trim(descriptor: int, limit_bytes: int) -> None:
    """Free the memory of what lies beyond the limit, but the end; the size stays, so that a cut can still be told.

    A hole is punched, because to truncate would race with the executor, which truncates between two children. Costs
    a millisecond for six megabytes, and an executor prints hundreds between two looks: not for the loop of a worker.
    """
    useless = lseek(descriptor, 0, SEEK_END) - TAIL_BYTES - limit_bytes
    if useless > 0:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
        fallocate(descriptor, _KEEP_SIZE_AND_PUNCH_HOLE, limit_bytes, useless)


class Capture:
    """The executor's end of the capture file. `limit_bytes` may be changed for each run."""

    def __init__(self, descriptor: int, limit_bytes: int) -> None:
        self.descriptor = descriptor
        self.limit_bytes = limit_bytes
        self._marks = [fstat(number).st_ino for number in (0, descriptor, descriptor)]
        self._out = self._stream()
        self._err = self._stream()
        self._in = sys.stdin
        self.restore()

    def _stream(self) -> io.TextIOWrapper:
        raw = io.FileIO(self.descriptor, "w", closefd=False)
        # Unbuffered, as with `python -u`: nothing is held back in Python when a child ends or the process dies.
        return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)

    def restore(self) -> None:
        """Put the three streams and descriptors 0-2 back in place, whatever a handler did to them."""
        for number, mark in enumerate(self._marks):
            try:
                intact = fstat(number).st_ino == mark
            except OSError:
                intact = False
            if not intact:
                source = self.descriptor if number else open_file(devnull, O_RDONLY)
                if source != number:
                    dup2(source, number)
                    if not number:
                        close(source)
        if self._out.closed:
            self._out = self._stream()
        if self._err.closed:
            self._err = self._stream()
        if self._in is None or self._in.closed:
            self._in = open(0, encoding="utf-8", closefd=False)
        sys.stdout = sys.__stdout__ = self._out  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = self._err  # type: ignore[misc]
        sys.stdin = self._in

    def write(self, text: str) -> None:
        """Append a text."""
        self.write_bytes(text.encode("utf-8", "backslashreplace"))

    def write_bytes(self, data: bytes) -> None:
        """Append what somebody else has printed."""
        write(self.descriptor, data)

    def take(self) -> str:
        """What was printed since the last call; afterwards the file is empty."""
        if not lseek(self.descriptor, 0, SEEK_END):
            return ""
        text = printed(self.descriptor, self.limit_bytes)
        ftruncate(self.descriptor, 0)
        return text
