"""An executor: the process in which handlers run. Start it only through `executor_process.ExecutorProcess`.

It has a socket to its supervisor, three pieces of shared memory, a directory of its own, and nothing else: no store,
no broker, no credentials, hardly any environment. It dies with its parent. It is expected to be broken by handlers at
any moment; nothing that it holds is needed afterwards.

The hard part is to stay whole between two handlers that share the process. What a handler usually breaks is put back
before each run (`_Surroundings`), and handlers get a copy of the builtins, so that patching them cannot
reach this code. What cannot be put back (threads, native state) is why executors are recycled.
"""

from __future__ import annotations

import _thread
import builtins
import ctypes
import faulthandler
import fcntl
import gc
import os
import resource
import signal
import socket
import sys

# Those of `signal` make enums of all that they give, at ten times the price.
from _signal import (  # type: ignore[import-not-found]  # no stub: it is private
    ITIMER_PROF,
    ITIMER_REAL,
    ITIMER_VIRTUAL,
    SIG_SETMASK,
    getsignal,
    pthread_sigmask,
    setitimer,
)
from _signal import signal as set_signal
from _thread import _count as thread_count
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from os import chdir, close, dup, makedirs, umask
from resource import RLIMIT_NOFILE, getrlimit
from signal import SIGKILL, SIGSTOP, valid_signals
from time import monotonic, sleep
from types import ModuleType
from typing import Any

import msgspec

from mr import codec
from mr.addresses import FileSystemUrl
from mr.codec import Items
from mr.errors import CorruptEntry
from mr.model.handler import Handler
from mr.model.language import Language
from mr.worker import frames
from mr.worker.asking import Asking
from mr.worker.bodies import Bodies, Foreigners
from mr.worker.children import Children
from mr.worker.family import end_children
from mr.worker.frames import Cell
from mr.worker.inputs import Inputs
from mr.worker.invoke import Runner
from mr.worker.log import Hooks
from mr.worker.memory import EXIT_MEMORY, Memory
from mr.worker.mount import driver_threads
from mr.worker.output import Capture
from mr.worker.scope import Current
from mr.worker.shared_collections import SharedCollections
from mr.worker.wear import Left

RESULTS_BYTES = 64 * 1024
RESULTS_AGE_S = 0.005
SLOW_US = 1000
"""The result of a child that took this long is sent at once: a frame costs a fiftieth of it."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_M_ARENA_MAX = -8
_OWN_THREADS = 1
"""The outbox has one beside the main thread."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor says on the command line: descriptors by number, and the rest."""

    socket: int
    cell: int
    output: int
    parent: int
    directory: str
    memory_bytes: int | None = None
    output_bytes: int = 1024 * 1024
    languages: dict[str, Language] = {}
    hooks: Hooks = Hooks()


class Outbox:
    """Sends frames; what is held and the results of quick children wait until they are 64 KiB or 5 ms old.

    A thread looks every 20 ms, so that results do not wait behind a child that takes an hour.
    """

    def __init__(self, channel: socket.socket, cell: Cell) -> None:
        self._send_all = channel.sendall
        self._integers = cell.integers
        self._held: list[bytes] = []
        self._lock = _thread.allocate_lock()
        self._running = _thread.allocate_lock()
        self._running.acquire()
        self._run = 0
        self._documents: list[bytes] = []
        self._us = array("I")
        self._outputs: dict[int, str] = {}
        self._sessions: dict[int, dict[str, msgspec.Raw]] = {}
        self._first = 0
        self._size = 0
        self._oldest = 0.0
        _thread.start_new_thread(self._watch, ())

    def begin(self, run: int) -> None:
        """Results now belong to this run."""
        self._run = run
        self._running.release()

    def end(self, header: frames.Finished) -> None:
        """Send what is left, and that the run is over."""
        self._running.acquire()
        self.send(header)

    def result(
        self, child: int, dataset: bytes, us: int, output: str = "", session: dict[str, msgspec.Raw] | None = None
    ) -> None:
        """Take the result of a child, and what it printed and kept."""
        with self._lock:
            documents = self._documents
            if not documents:
                self._first = child
                if not self._held:
                    self._oldest = monotonic()
            if output:
                self._outputs[child] = output
                self._size += len(output)
            if session:
                self._sessions[child] = session
                self._size += sum(map(len, map(bytes, session.values())))
            documents.append(dataset)
            self._us.append(us if us < 4294967295 else 4294967295)
            self._size += len(dataset)
            # Looking at the clock for each quick child would cost more than some handlers do.
            if (
                us >= SLOW_US
                or self._size >= RESULTS_BYTES
                or (not len(documents) & 63 and monotonic() - self._oldest >= RESULTS_AGE_S)
            ):
                self._flush()

    def send(self, header: frames.Report, body: bytes = b"") -> None:
        """Send a frame, after all results so far."""
        with self._lock:
            self._hold(header, body)
            self._flush()

    def hold(self, header: frames.Report, body: bytes = b"", *, is_descent: bool = False) -> None:
        """Send a frame after all results so far, with what comes next or soon."""
        with self._lock:
            if not (self._held or self._documents):
                self._oldest = monotonic()
            self._hold(header, body)
            if is_descent:
                self._integers[Cell.UNTOLD] = 1
            if self._size >= RESULTS_BYTES:
                self._flush()

    def flush(self) -> None:
        """Send all of it now."""
        with self._lock:
            self._flush()

    def _hold(self, header: frames.Report, body: bytes = b"") -> None:
        self._gather()
        self._held.append(frames.pack(header, body))
        self._size += len(body)

    def _gather(self) -> None:
        """Results so far become a frame."""
        if not self._documents:
            return
        header = frames.Results(id=self._run, first=self._first, outputs=self._outputs, sessions=self._sessions)
        body = frames.pack_results(self._us, Items.of(self._documents))
        self._documents, self._us = [], array("I")
        self._outputs, self._sessions = {}, {}
        self._held.append(frames.pack(header, body))

    def _flush(self) -> None:
        self._gather()
        held, self._held, self._size = self._held, [], 0
        self._send_all(held[0] if len(held) == 1 else b"".join(held))
        self._integers[Cell.UNTOLD] = 0

    def _watch(self) -> None:
        while True:
            with self._running:
                pass
            sleep(0.02)
            try:
                with self._lock:
                    if (self._documents or self._held) and monotonic() - self._oldest >= RESULTS_AGE_S:
                        self._flush()
            except OSError:
                os._exit(0)  # the supervisor is gone


class _Surroundings:
    """What handlers may have changed and the next run must find as it was."""

    def __init__(self, capture: Capture, directory: str, children: Children) -> None:
        self._capture = capture
        self._directory = directory
        self._children = children
        self._folder = os.stat(directory).st_ino
        # Handlers and whoever imports `builtins` from now on get a copy; this code was bound to the original.
        self._module = ModuleType("builtins", builtins.__doc__)
        self.builtins: dict[str, Any] = self._module.__dict__
        self._original = dict(builtins.__dict__)
        self._environ = os.environ
        # As bytes, as `os.environ` keeps them: to compare those costs a tenth.
        self._environment = dict(os.environb)
        self._recursion_limit = sys.getrecursionlimit()
        self._path = list(sys.path)
        self._signals = {number: getsignal(number) for number in valid_signals() - {SIGKILL, SIGSTOP}}
        self._descriptors_max = getrlimit(RLIMIT_NOFILE)[0] // 2
        self.restore()

    def restore(self) -> None:
        """Put all of it back."""
        self._capture.restore()
        if self.builtins != self._original:
            self.builtins.clear()
            self.builtins.update(self._original)
        sys.modules["builtins"] = self._module
        try:
            chdir(self._directory)
        except OSError:  # a handler has removed it
            makedirs(self._directory, 0o700, exist_ok=True)
            chdir(self._directory)
        umask(0o077)
        os.environ = self._environ  # noqa: B003 - a handler may have put something else there
        if self._environ._data != self._environment:  # type: ignore[attr-defined]
            os.environb.clear()
            os.environb.update(self._environment)
        sys.setrecursionlimit(self._recursion_limit)
        sys.path[:] = self._path
        sys.settrace(None)
        sys.setprofile(None)
        gc.enable()
        # An alarm that is still to come would end the next handler.
        for timer in (ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF):
            setitimer(timer, 0)
        for number, handler in self._signals.items():
            if getsignal(number) is not handler:
                set_signal(number, handler)
        pthread_sigmask(SIG_SETMASK, ())

    def _has_folder(self) -> bool:
        try:
            return os.stat(self._directory).st_ino == self._folder
        except OSError:
            return False

    def left(self, own_threads: int, before_waiting: Callable[[], None]) -> Left:
        """End the processes that handlers have left; what else they have left that cannot be put back."""
        if not end_children(self._children.settle(), before_waiting):
            return "processes"
        if not self._has_folder():
            return "no folder"
        try:
            lowest = dup(0)
        except OSError:
            return "descriptors"
        close(lowest)
        if lowest >= self._descriptors_max:
            return "descriptors"
        return "threads" if thread_count() > own_threads and thread_count() > own_threads + driver_threads() else ""


class Executor:
    """Reads orders from the supervisor and has them run, one after the other."""

    def __init__(self, channel: socket.socket, cell: Cell, start: Start) -> None:
        self._receive_into = channel.recv_into
        self._cell = cell
        self._capture = Capture(start.output, start.output_bytes)
        children = Children()
        self._surroundings = _Surroundings(self._capture, start.directory, children)
        self._outbox = Outbox(channel, cell)
        self._asking = Asking(self._outbox.send, self._read, cell, lambda: self._runner.order)
        current = self._current = Current(
            self._capture, lambda *told: self._runner.tell(*told), partial(SharedCollections, self._asking)
        )
        memory = Memory(start.memory_bytes)
        foreigners = Foreigners(start.languages, children, start.directory, memory)
        self._bodies = Bodies(current, start.hooks, self._surroundings.builtins, foreigners)
        self._runner = Runner(
            self._bodies, current, self._capture, cell, self._outbox, start.directory, memory,
            put_back=self._surroundings.restore,
        )  # fmt: skip

    def serve(self) -> None:
        """Until the supervisor closes the socket. Raises: CorruptEntry for an order that is none."""
        self._outbox.send(frames.Ready())
        while True:
            frame = self._read()
            if frame is None:
                return
            header, body = frame
            if isinstance(header, frames.Mount):
                self._current.file_system = FileSystemUrl(header.url)
                continue
            if isinstance(header, frames.Define):
                handler = codec.decode(body, Handler)
                self._bodies.define(header.name, header.version, handler)
                continue
            if isinstance(header, frames.Scope):
                self._bodies.give(header.name, header.version, header.workflow, body, header.problem)
                continue
            self._surroundings.restore()
            if isinstance(header, frames.RunMap):
                self._outbox.begin(header.id)
                following = self._runner.run_map(header, frames.unpack_items(body))
            elif isinstance(header, frames.RunReduce):
                self._outbox.begin(header.id)
                self._runner.run_reduce(header, self._inputs)
                following = header.child + 1
            else:
                raise CorruptEntry(f"{type(header).__name__} came outside of a reduce")
            self._cell.integers[Cell.CHILD] = frames.NO_CHILD
            if self._asking.threads:
                self._asking.settle()
            # Nobody waits for a result until processes have ended.
            left = self._surroundings.left(_OWN_THREADS + self._asking.threads, before_waiting=self._outbox.flush)
            self._capture.take()
            self._outbox.end(frames.Finished(id=header.id, next=following, left=left))

    def _inputs(self, inputs: Inputs) -> None:
        while True:
            frame = self._read()
            if frame is None:
                os._exit(0)
            header, body = frame
            if isinstance(header, frames.End):
                return
            if isinstance(header, frames.Define):
                self._bodies.define(header.name, header.version, codec.decode(body, Handler))
            elif isinstance(header, frames.Input):
                inputs.add(header.kind, frames.unpack_items(body))
            else:
                raise CorruptEntry(f"{type(header).__name__} came inside of a reduce")

    def _read(self) -> tuple[frames.Order, bytes] | None:
        prefix = self._exactly(frames.PREFIX.size)
        if prefix is None:
            return None
        header_size, body_size = frames.PREFIX.unpack(prefix)
        header = self._exactly(header_size)
        body = self._exactly(body_size)
        if header is None or body is None:
            return None
        return frames.order(header), bytes(body)

    def _exactly(self, size: int) -> bytearray | None:
        buffer = bytearray(size)
        view = memoryview(buffer)
        done = 0
        while done < size:
            got = self._receive_into(view[done:])
            if not got:
                return None
            done += got
        return buffer


def _die_with(parent: int) -> None:
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Orphans of what handlers start become children of this process, which ends them.
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # The parent may have died before prctl; then nobody would ever send the signal.
    if os.getppid() != parent:
        os._exit(0)


def _one_arena() -> None:
    """Have threads share one heap: glibc reserves 64 MB of address space for another, also when memory runs out."""
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def _move_up(descriptor: int) -> int:
    """The descriptor as a high number, away from what handlers close or reuse."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, max(64, min(soft, 4096) - 16))
    os.close(descriptor)
    return moved


def main(arguments: list[str]) -> int:
    """Run as an executor; returns its exit code."""
    start = codec.decode(arguments[1].encode(), Start)
    _die_with(start.parent)
    _one_arena()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = socket.socket(fileno=_move_up(start.socket))
    channel.setblocking(True)
    cell = Cell(start.cell)
    os.close(start.cell)
    start = msgspec.structs.replace(start, output=_move_up(start.output))
    faulthandler.enable(start.output, all_threads=False)
    # The command line has numbers and paths that handlers need not see.
    sys.argv[:] = ["mr-executor"]
    # A fork of a handler's must neither speak for the executor nor keep the socket open after its death.
    os.register_at_fork(after_in_child=channel.close)
    executor = Executor(channel, cell, start)
    gc.collect()
    gc.freeze()
    try:
        executor.serve()
    except MemoryError:
        return EXIT_MEMORY
    except ConnectionError:
        return 0  # the supervisor is gone
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv))
