"""The supervisor's end of one executor: starts it, talks to it, watches it, kills it.

Lives in an asyncio loop and never blocks it. Frames are handed to the sink of the current run in the order in which
the executor sent them; documents are not looked into.

The hard part is dying. The exit callback comes exactly once, after the last frame that the executor managed to send
and after the process is reaped, with what it had printed. The whole process group is killed before the leader is
reaped, because until then its number cannot belong to anybody else. Start it from a thread that lives as long as the
worker: the kernel kills an executor when the thread that started it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from mr import codec
from mr.addresses import FileSystemUrl
from mr.codec import Items
from mr.errors import CorruptEntry, MrError
from mr.model.handler import Handler
from mr.model.language import Language
from mr.services.isolation import Cgroup, Leaf
from mr.worker import frames, output
from mr.worker.environment import of_executor
from mr.worker.executor import Start
from mr.worker.exit import Exit, How, by_itself
from mr.worker.family import kill_marked
from mr.worker.frame_stream import FrameStream
from mr.worker.frames import Cell
from mr.worker.leftovers import Folder
from mr.worker.log import Hooks
from mr.worker.scopes import Given
from mr.worker.wear import Wear

START_TIMEOUT_S = 30.0
TRIM_EVERY_S = 0.1
LAST_FRAMES_S = 1.0
"""How long to wait for the end of the socket after the process has ended; a forked child may hold it open."""

_WRITE_HIGH_BYTES = 1024 * 1024


class ExecutorGone(MrError):
    """The executor does not run (any more); what was asked of it must go to another one."""

    code = "executor_gone"


class Current(msgspec.Struct, frozen=True):
    """What an executor does now: the child and its stage, since how many seconds it runs, how many are finished.

    The time in which this side did not read, so that the executor may have had to wait, is not counted. `is_below`: the
    child is one that the executor went on with, which may not have been told yet.
    """

    child: int
    stage: frames.Stage
    seconds: float
    finished: int
    is_below: bool = False


class Sink(Protocol):
    """Receives what a run reports, in order; `finished` is the last call for it. Nothing but `called` raises."""

    def results(self, frame: frames.Results, items: Items, us: array[int]) -> None:
        """One dataset for each of the consecutive children from `frame.first` on."""

    def chunk(self, frame: frames.Chunk, items: Items) -> None:
        """A piece of the arguments, rows or pairs of `frame.child`; more follow."""

    def mapped(self, frame: frames.Mapped, items: Items) -> None:
        """A child has mapped; `items` is the last piece of arguments."""

    def returned(self, frame: frames.Returned, items: Items) -> None:
        """A child has returned data to be reduced elsewhere; `items` is the last piece of rows."""

    def reduced(self, frame: frames.Reduced, items: Items) -> None:
        """A child is reduced; `items` is the last piece of pairs."""

    def failed(self, frame: frames.Failed) -> None:
        """A child has failed; the run goes on with the next."""

    def turned(self, frame: frames.Turn) -> None:
        """The executor is through with the children that it went on with."""

    def noticed(self, frame: frames.Notice) -> None:
        """A handler wants somebody to be told."""

    def called(self, frame: frames.Call, body: bytes) -> None:
        """A handler waits for `ExecutorProcess.answer`. Raises: CorruptEntry if it did not wait before."""

    def finished(self, frame: frames.Finished) -> None:
        """The run is over."""


class ExecutorProcess:
    """One executor. All methods belong to the thread of the loop."""

    def __init__(
        self,
        *,
        on_exit: Callable[[Exit], None],
        environ: Mapping[str, str],
        memory_bytes: int | None = None,
        output_bytes: int = 1024 * 1024,
        languages: Mapping[str, Language] | None = None,
        hooks: Hooks = Hooks(),  # noqa: B008 - frozen
        file_system: FileSystemUrl | None = None,
        cgroup: Cgroup | None = None,
    ) -> None:
        self._on_exit = on_exit
        self._environ = environ
        self._memory_bytes = memory_bytes
        self._output_bytes = output_bytes
        self._hooks = hooks
        self._languages = dict(languages or {})
        self._file_system = file_system
        self._cgroup = cgroup
        self._leaf: Leaf | None = None
        self.wear: Wear
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._output = -1
        self._folder: Folder | None = None
        self._cell: Cell | None = None
        self._transport: asyncio.Transport | None = None
        self._defined: set[tuple[str, str]] = set()
        self._scopes: dict[tuple[str, str, str], Given] = {}
        self._sink: Sink | None = None
        self._run: int | None = None
        self._kill_asked = False
        self._broken = ""
        self._socket_ended = False
        self._process_ended = False
        self._family_ended = False
        self._is_out_of_memory = False
        self._exit: Exit | None = None
        self._gone: asyncio.Future[Exit]
        self._ready: asyncio.Future[frames.Ready]
        self._writable: asyncio.Future[None] | None = None
        self._paused_since: float | None = None
        self._pauses: deque[tuple[float, float]] = deque(maxlen=1000)
        self._trimming: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start the process and wait until it is ready.

        Raises: ExecutorGone when it ends or hangs while it starts.
        """
        loop = asyncio.get_running_loop()
        self._gone = loop.create_future()
        self._ready = loop.create_future()
        self._folder = Folder()
        ours, theirs = socket.socketpair()
        cell = os.memfd_create("mr-cell", os.MFD_CLOEXEC)
        self._output = output.create()
        try:
            os.ftruncate(cell, Cell.SIZE)
            self._cell = Cell(cell)
            self._cell.clear()
            self._process = self._spawn(theirs.fileno(), cell, str(self._folder.path))
            self._pidfd = os.pidfd_open(self._process.pid)
            # The kernel takes 10 to 20 ms for it, most of them waiting for all of its cores.
            await loop.run_in_executor(None, self._enter_leaf, self._process.pid)
        except BaseException:
            ours.close()
            self._clean()
            raise
        finally:
            theirs.close()
            os.close(cell)
        loop.add_reader(self._pidfd, self._on_process_end)
        ours.setblocking(False)
        await loop.create_unix_connection(lambda: FrameStream(self), sock=ours)
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), START_TIMEOUT_S)
        except TimeoutError as error:
            await self.kill()
            raise ExecutorGone(f"an executor was not ready after {START_TIMEOUT_S:.0f} s") from error
        if self._file_system is not None:
            self._write(frames.pack(frames.Mount(url=self._file_system.text)))
        self.wear = Wear(loop.time(), self.resident_bytes(), self._memory_bytes or sys.maxsize)

    def _spawn(self, channel: int, cell: int, directory: str) -> subprocess.Popen[bytes]:
        start = Start(
            socket=channel,
            cell=cell,
            output=self._output,
            parent=os.getpid(),
            directory=directory,
            memory_bytes=self._memory_bytes,
            output_bytes=self._output_bytes,
            languages=self._languages,
            hooks=self._hooks,
        )
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "mr.worker.executor", codec.encode(start).decode()],
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            pass_fds=(channel, cell, self._output),
            cwd=directory,
            env=of_executor(self._environ, directory),
            start_new_session=True,
        )

    def _enter_leaf(self, pid: int) -> None:
        """In a thread, and before anybody reaps the process: its number is its own."""
        if self._cgroup is not None and self._folder is not None:
            leaf = self._cgroup.leaf(self._folder.path.name, self._memory_bytes)
            try:
                if leaf is not None:
                    leaf.enter(pid)
            except OSError:
                assert leaf is not None
                leaf.remove()
            else:
                self._leaf = leaf

    @property
    def pid(self) -> int:
        """Process id. Raises: ExecutorGone before start."""
        return self._alive().pid

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and not self._process_ended and not self._broken

    @property
    def busy(self) -> bool:
        """Whether a run is not finished."""
        return self._run is not None

    def _alive(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process_ended:
            raise ExecutorGone("the executor does not run")
        return self._process

    def resident_bytes(self) -> int:
        """Memory that it holds; 0 when it is gone."""
        try:
            pages = Path(f"/proc/{self._alive().pid}/statm").read_text().split()[1]
        except (OSError, IndexError, ExecutorGone):
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def handlers(self) -> int:
        """How many handlers it was told of."""
        return len(self._defined)

    def knows(self, name: str, version: str) -> bool:
        """Whether `define` was called for this version under this name."""
        return (name, version) in self._defined

    def define(self, name: str, version: str, handler: Handler) -> None:
        """Give it a handler, once. Raises: ExecutorGone."""
        if (name, version) not in self._defined:
            self._defined.add((name, version))
            self._write(frames.pack(frames.Define(name=name, version=version), codec.encode(handler)))

    def give(self, workflow: str, name: str, version: str, given: Given) -> None:
        """Give a handler the names of the site, unless it has them. Raises: ExecutorGone."""
        key = (workflow, name, version)
        if self._scopes.get(key) != given:
            self._scopes[key] = given
            frame = frames.Scope(workflow=workflow, name=name, version=version, problem=given.problem)
            self._write(frames.pack(frame, given.document))

    def run(self, frame: frames.RunMap | frames.RunReduce, items: Items | None, sink: Sink) -> None:
        """Begin a run; `items` are the arguments of a map's children, or all datasets of a reduce. One run at a time.

        After a RunReduce without them come `send_input` and `end_input`. Raises: ExecutorGone.
        """
        assert self._run is None, "a run is not finished"
        needed = [frame.reducer]
        if isinstance(frame, frames.RunMap):
            needed += [frame.mapper, frame.combiner]
            if frame.below is not None:
                needed += [frame.below.mapper, frame.below.combiner, frame.below.reducer]
        for handler in needed:
            assert handler is None or (handler.name, handler.version) in self._defined, f"define {handler} first"
        assert self._cell is not None
        self._alive()
        self._sink, self._run = sink, frame.id
        self._output_bytes = frame.limits.output
        self._pauses.clear()
        self._cell.integers[Cell.FINISHED] = self._cell.integers[Cell.UNTOLD] = 0
        # Ids are unique within a visit only: a stop of another visit's run must not end this one before it starts,
        # or its work goes back to the queue, comes again under the same id, and so on without end.
        self._cell.integers[Cell.STOP] = frames.NO_RUN
        if items is None:
            self._write(frames.pack(frame))
        elif isinstance(frame, frames.RunMap):
            self._write(frames.pack(frame, frames.pack_items(items)))
        else:
            whole = frames.pack(frames.Input(kind="datasets"), frames.pack_items(items))
            self._write(frames.pack(frame) + whole + frames.pack(frames.End()))
        self._trim_later()

    async def send_input(self, kind: frames.InputKind, items: Items) -> None:
        """Send a piece of what is to be reduced; waits while the executor is behind. Raises: ExecutorGone."""
        self._write(frames.pack(frames.Input(kind=kind), frames.pack_items(items)))
        if self._writable is not None:
            await asyncio.shield(self._writable)
            self._alive()

    def end_input(self) -> None:
        """There is no more input. Raises: ExecutorGone."""
        self._write(frames.pack(frames.End()))

    def answer(self, frame: frames.Answer, items: Items) -> None:
        """Answer a Call, if there is still anybody who waits."""
        with contextlib.suppress(ExecutorGone):
            self._write(frames.pack(frame, frames.pack_items(items)))

    def _write(self, data: bytes) -> None:
        self._alive()
        if self._transport is None or self._transport.is_closing():
            raise ExecutorGone("the executor has closed its socket")
        self._transport.write(data)

    def stop_after_current(self) -> None:
        """Let the run end after the child that runs now; Finished then says which was not started."""
        if self._cell is not None and self._run is not None:
            self._cell.integers[Cell.STOP] = self._run

    def current(self) -> Current | None:
        """What runs now; None between runs and while a reduce still receives its input."""
        if self._cell is None or self._run is None:
            return None
        integers, floats = self._cell.integers, self._cell.floats
        while True:
            word, started = integers[Cell.CHILD], floats[Cell.STARTED]
            if word == integers[Cell.CHILD]:
                break
        if word == frames.NO_CHILD:
            return None
        child, stage, is_below = Cell.split(word)
        now = time.monotonic()
        seconds = max(0.0, now - started - self._paused_s(started, now))
        return Current(child, stage, seconds, integers[Cell.FINISHED], is_below)

    def _paused_s(self, start: float, now: float) -> float:
        pauses = [*self._pauses, (self._paused_since, now)] if self._paused_since is not None else self._pauses
        return sum(max(0.0, end - max(begin, start)) for begin, end in pauses)

    def printed(self) -> str:
        """What the child that runs has printed so far."""
        return output.printed(self._output, self._output_bytes) if self._output >= 0 else ""

    def last_line(self) -> str:
        """The last line that the child that runs has printed so far."""
        return output.last_line(self._output) if self._output >= 0 else ""

    def pause_reading(self) -> None:
        """Take no more frames for now; the executor soon waits."""
        if self._paused_since is None and self._transport is not None:
            self._paused_since = time.monotonic()
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take frames again."""
        if self._paused_since is not None and self._transport is not None:
            self._pauses.append((self._paused_since, time.monotonic()))
            self._paused_since = None
            if not self._transport.is_closing():
                self._transport.resume_reading()

    async def kill(self) -> Exit:
        """Kill it and everything in its process group, and wait until it is reaped. Harmless when it is gone."""
        if self._process is None:
            raise ExecutorGone("the executor was never started")
        if not self._process_ended:
            self._kill_asked = True
            self._kill_group()
        self.resume_reading()
        return await asyncio.shield(self._gone)

    def _kill_group(self) -> None:
        if self._process is None or self._process_ended:
            return  # the number may belong to somebody else by now
        # Before setsid in the child there is no group of its own yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        if self._leaf is not None:
            self._leaf.kill()

    def _trim_later(self) -> None:
        if self._trimming is None and self._run is not None and self._output >= 0:
            self._trimming = asyncio.get_running_loop().call_later(TRIM_EVERY_S, self._trim)

    def _trim(self) -> None:
        if self._output >= 0 and output.is_beyond(self._output, self._output_bytes):
            # The thread has a descriptor of its own: this one may be closed, and its number be another file's, by then.
            descriptor = os.dup(self._output)
            done = asyncio.get_running_loop().run_in_executor(None, output.trim, descriptor, self._output_bytes)
            done.add_done_callback(lambda _: self._trimmed(descriptor))
        else:
            self._trimming = None
            self._trim_later()

    def _trimmed(self, descriptor: int) -> None:
        os.close(descriptor)
        self._trimming = None
        self._trim_later()

    # What comes from the socket.

    def connected(self, transport: asyncio.Transport) -> None:
        """The socket is open."""
        self._transport = transport
        transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES)

    def received(self, header: memoryview, body: bytes) -> None:
        """One frame. Raises: CorruptEntry."""
        if self._broken:
            return
        frame = frames.report(header)
        if isinstance(frame, frames.Ready):
            if not self._ready.done():
                self._ready.set_result(frame)
            return
        sink = self._sink
        if isinstance(frame, frames.Notice):
            # A thread that a handler has left behind may still tell something; it is nobody's by now.
            if sink is not None and frame.id == self._run:
                sink.noticed(frame)
            return
        if sink is None or frame.id != self._run:
            raise CorruptEntry(f"a frame of run {frame.id} came while {self._run} was running")
        if isinstance(frame, frames.Results):
            us, items = frames.unpack_results(body)
            sink.results(frame, items, us)
        elif isinstance(frame, frames.Chunk):
            sink.chunk(frame, frames.unpack_items(body))
        elif isinstance(frame, frames.Mapped):
            sink.mapped(frame, frames.unpack_items(body))
        elif isinstance(frame, frames.Returned):
            sink.returned(frame, frames.unpack_items(body))
        elif isinstance(frame, frames.Reduced):
            sink.reduced(frame, frames.unpack_items(body))
        elif isinstance(frame, frames.Failed):
            sink.failed(frame)
        elif isinstance(frame, frames.Turn):
            sink.turned(frame)
        elif isinstance(frame, frames.Call):
            sink.called(frame, body)
        else:
            # Cleared first: the sink may begin the next run at once.
            self._sink = self._run = None
            sink.finished(frame)

    def broken(self, problem: str) -> None:
        """The executor sent what is no frame; it cannot be trusted any further."""
        if not self._broken:
            self._broken = problem
            self._kill_group()

    def writing_paused(self, paused: bool) -> None:
        """The executor is behind with reading, or has caught up."""
        if paused:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
        elif self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def socket_ended(self) -> None:
        """No more frames will come."""
        self._socket_ended = True
        self.writing_paused(False)
        if not self._process_ended:
            # Closing its end of the socket is no way to live on: without it nothing can be said.
            asyncio.get_running_loop().call_later(LAST_FRAMES_S, self._kill_left)
        self._finish()

    def _kill_left(self) -> None:
        if not self._process_ended:
            self._broken = self._broken or "it closed its socket"
            self._kill_group()

    # What comes from the process.

    def _on_process_end(self) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        self._kill_group()
        self._process.wait()
        self._process_ended = True
        os.close(self._pidfd)
        self._pidfd = -1
        loop.call_later(LAST_FRAMES_S, self._give_up_socket)
        loop.run_in_executor(None, self._end_family).add_done_callback(lambda _: self._family_ended_now())

    def _end_family(self) -> None:
        """In a thread: kill what has left the process group of the executor, which is reaped, and remove its files."""
        assert self._folder is not None
        if self._leaf is not None:
            self._is_out_of_memory = self._leaf.ran_out_of_memory
            self._leaf.remove()
        else:
            kill_marked(str(self._folder.path))
        self._folder.remove()

    def _family_ended_now(self) -> None:
        self._family_ended = True
        self._finish()

    def _give_up_socket(self) -> None:
        if not self._socket_ended and self._paused_since is None and self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        if not (self._socket_ended and self._family_ended) or self._exit is not None:
            return
        self._exit = self._how()
        if self._trimming is not None:
            self._trimming.cancel()
        self._sink = None  # It holds all that its visit has.
        last_words = "" if self._ready.done() else self.printed()
        self._clean()
        self._gone.set_result(self._exit)
        if not self._ready.done():
            self._ready.set_exception(ExecutorGone(f"an executor did not start: {self._exit.detail}: {last_words}"))
        else:
            self._on_exit(self._exit)

    def _how(self) -> Exit:
        assert self._process is not None
        assert self._cell is not None
        word = self._cell.integers[Cell.CHILD]
        running = self._run is not None
        child: int | None = None
        stage: frames.Stage = "map"
        is_below = False
        if running and word != frames.NO_CHILD:
            child, stage, is_below = Cell.split(word)
        status = self._process.returncode
        class_: How
        if self._kill_asked:
            class_, detail = "killed", "killed by the supervisor"
        elif self._broken:
            class_, detail = "protocol", self._broken
        else:
            class_, detail = by_itself(status, (self._memory_bytes or 0) if self._is_out_of_memory else None)
        return Exit(
            class_=class_,
            detail=detail,
            code=status,
            run=self._run,
            child=child,
            stage=stage,
            output=self.printed() if running else "",
            is_untold=is_below and bool(self._cell.integers[Cell.UNTOLD]),
        )

    def _clean(self) -> None:
        if self._output >= 0:
            os.close(self._output)
            self._output = -1
        if self._cell is not None and self._process_ended:
            self._cell.close()
            self._cell = None
        if self._folder is not None:
            self._folder.remove()
