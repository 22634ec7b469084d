"""Processes of other languages that run handlers for an executor.

A child gets bytes on stdin, answers in lines on stdout, and what it says on stderr is output of the invocation. It is
in the process group and folder of its executor, has its environment, and ends with it like anything that a handler
starts. stderr is a pipe and not the capture file: a script that opens /dev/stderr anew would empty the file.

The hard part is that neither side may wait for the other: a child may answer before it has read its input, and talk on
stderr at any time. So all three pipes are looked at together (`exchange`), in as much memory as they hold.

What handlers patch or close must not reach this code: functions are taken at import, and the pipes of a child that was
kept are compared with what they were.
"""

from __future__ import annotations

import resource
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from os import close, fstat, pidfd_open, read, set_blocking, write
from select import POLLIN, POLLOUT, poll
from signal import Signals
from subprocess import PIPE, Popen
from time import monotonic

from mr.worker.output import Capture
from mr.worker.scope import Refused

LINE_BYTES_MAX = 16 * 1024 * 1024
KEPT_MAX = 8
"""Children that wait for their next invocation, at most."""
INVOCATIONS_MAX = 10_000
ROOM_BYTES = 64 * 1024 * 1024
"""So much beside twice what it began with is the coming and going of a heap."""
TOLD_BYTES = 16 * 1024
_CHUNK = 65536
_PAGE = resource.getpagesize()
_open_file = open

Key = tuple[str, str, str]


class Child:
    """One process. `told` is the end of what it said on stderr since `begin`."""

    def __init__(
        self,
        argv: Sequence[str],
        capture: Capture,
        folder: str,
        *,
        environ: Mapping[str, str] | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Start it. Raises: OSError."""
        self._capture = capture
        self._process = Popen(
            argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, bufsize=0, cwd=folder,
            env=None if environ is None else dict(environ),
        )  # fmt: skip
        self.pid = self._process.pid
        self._memory = memory_bytes
        if memory_bytes is not None:
            # From this side: between fork and exec hardly anything is safe to do beside a second thread.
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            most = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
            resource.prlimit(self.pid, resource.RLIMIT_AS, (most, hard))
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._in, self._out, self._err = process.stdin.fileno(), process.stdout.fileno(), process.stderr.fileno()
        self._pipes = [self._in, self._out, self._err]
        for pipe in self._pipes:
            set_blocking(pipe, False)
        self._marks = [fstat(pipe).st_ino for pipe in self._pipes]
        self._lines: deque[bytes] = deque()
        self._parts: list[bytes] = []
        self._size = 0
        self.told = b""
        self.unsent = 0
        """Bytes of the feed that wait for room in its stdin."""
        self.invocations = 0
        self._first = 0
        self._is_over = False

    @property
    def is_whole(self) -> bool:
        """Whether it lives, nothing of it is left over, and its pipes are still its own."""
        try:
            intact = [fstat(pipe).st_ino for pipe in self._pipes] == self._marks
        except OSError:
            intact = False
        return intact and not self._lines and not self._parts and self._process.poll() is None

    @property
    def is_worn(self) -> bool:
        """Whether it should not run another invocation."""
        if self.invocations >= INVOCATIONS_MAX:
            return True
        try:
            with _open_file(f"/proc/{self.pid}/statm", "rb") as file:
                resident = int(file.read().split()[1]) * _PAGE
        except (OSError, IndexError):
            return True
        self._first = self._first or resident
        has_grown = resident > 2 * self._first + ROOM_BYTES
        return has_grown or (self._memory is not None and resident > self._memory // 2)

    def begin(self) -> None:
        """The next invocation begins."""
        self.told = b""
        self.invocations += 1

    def exchange(self, feed: Iterator[bytes], *, closes: bool) -> Iterator[bytes]:
        """Give it what `feed` has, as fast as it takes that; each line that it writes, without its end.

        `closes`: its stdin is closed behind the feed. A child that reads no further is let alone; it may be done.
        Ends when it closes its stdout or ends, whoever else holds its pipes. Raises: Refused for a line without end.
        """
        end = pidfd_open(self.pid)
        poller = poll()
        for descriptor, event in ((self._out, POLLIN), (self._err, POLLIN), (self._in, POLLOUT), (end, POLLIN)):
            poller.register(descriptor, event)
        waiting: memoryview | None = memoryview(b"")
        more: bool | None = True
        try:
            while more is not False:
                while self._lines:
                    yield self._lines.popleft()
                for descriptor, _ in poller.poll():
                    if descriptor == self._out:
                        more = self._take_lines()
                    elif descriptor == self._err:
                        if self._take_told() is False:
                            poller.unregister(self._err)
                    elif descriptor == end:
                        while self._take_lines():
                            pass
                        more = False
                    elif waiting is not None:
                        waiting = self._give(waiting or next(feed, None))
                        self.unsent = len(waiting or b"")
                        if waiting is None:
                            poller.unregister(self._in)
                            if closes:
                                self._close_in()
        finally:
            close(end)
        if self._parts:
            self._lines.append(b"".join(self._parts))
            self._parts = []
        while self._lines:
            yield self._lines.popleft()

    def _give(self, data: memoryview | bytes | None) -> memoryview | None:
        """Write what goes; what is left of it, or None when there is nothing more to give, or nobody who takes it."""
        if data is None:
            return None
        try:
            return memoryview(data)[write(self._in, data) :]
        except BlockingIOError:
            return memoryview(data)
        except BrokenPipeError:
            return None

    def _take_lines(self) -> bool | None:
        """Read once; None: there is nothing now, False: it has closed its stdout."""
        data = self._read(self._out)
        if not data:
            return None if data is None else False
        first, *more = data.split(b"\n")
        self._size += len(first)
        if self._size > LINE_BYTES_MAX:
            raise Refused("output_limit", f"it writes a line of more than {LINE_BYTES_MAX} bytes")
        if first:
            self._parts.append(first)
        if more:
            self._lines.append(b"".join(self._parts))
            last = more.pop()
            self._lines.extend(more)
            self._parts = [last] if last else []
            self._size = len(last)
        return True

    def _take_told(self) -> bool | None:
        """The same for stderr, which goes to the output."""
        data = self._read(self._err)
        if not data:
            return None if data is None else False
        self._capture.write_bytes(data)
        self.told = (self.told + data)[-TOLD_BYTES:]
        return True

    @staticmethod
    def _read(descriptor: int) -> bytes | None:
        """What there is now; None for nothing yet, empty at the end."""
        try:
            return read(descriptor, _CHUNK)
        except BlockingIOError:
            return None

    def drain(self) -> None:
        """Take what it has said on stderr so far."""
        try:
            while self._take_told():
                pass
        except OSError:
            pass  # it was let go of

    def wait(self, patience_s: float = inf) -> int | None:
        """Its exit code, negative for a signal, once it has closed its stdout; None if it does not end in this time."""
        until = monotonic() + patience_s
        if self._process.poll() is None:
            end = pidfd_open(self.pid)
            try:
                poller = poll()
                poller.register(self._err, POLLIN)
                poller.register(end, POLLIN)
                while self._process.poll() is None:
                    left_s = until - monotonic()
                    if left_s <= 0:
                        return None
                    for descriptor, _ in poller.poll(None if left_s == inf else 1000 * left_s):
                        if descriptor == self._err and self._take_told() is False:
                            poller.unregister(self._err)
            finally:
                close(end)
        self.drain()
        return self._process.returncode

    def end(self) -> None:
        """Kill it, unless it has ended, and let go of it. Twice is harmless."""
        if self._is_over:
            return
        self._is_over = True
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        process = self._process
        for stream, mark in zip((process.stdin, process.stdout, process.stderr), self._marks, strict=True):
            assert stream is not None
            try:
                if not stream.closed and fstat(stream.fileno()).st_ino == mark:
                    stream.close()
            except OSError:
                pass  # a handler has closed it

    def _close_in(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()


class Children:
    """Those that wait for their next invocation, by handler version; who waited longest goes first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, Child] = OrderedDict()

    def take(self, key: Key) -> Child | None:
        """One that can begin at once; it belongs to the caller now."""
        child = self._kept.pop(key, None)
        if child is None or child.is_whole:
            return child
        child.end()
        return None

    def keep(self, key: Key, child: Child) -> None:
        """Keep one whose invocation is over."""
        before = self._kept.pop(key, None)
        if before is not None:
            before.end()
        self._kept[key] = child
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)[1].end()

    def settle(self) -> frozenset[int]:
        """A run is over: end those that are worn; process ids of those that stay."""
        for key, child in [*self._kept.items()]:
            if child.is_worn or not child.is_whole:
                del self._kept[key]
                child.end()
        return frozenset(child.pid for child in self._kept.values())


def signal_name(code: int) -> str:
    """The name of the signal that a negative exit code stands for."""
    try:
        return Signals(-code).name
    except ValueError:
        return f"signal {-code}"
