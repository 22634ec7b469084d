"""A real executor process under the hand of a test: give it handlers as text, get back what it reported."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from array import array
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mr.codec import Items, encode
from mr.model.handler import Handler, HandlerType
from mr.worker import frames
from mr.worker.executor_process import ExecutorProcess
from mr.worker.exit import Exit
from mr.worker.frames import HandlerName, Limits

DEADLINE_S = 20.0
SAME_ID = 1
"""Ids of runs are unique within a visit only, so runs that follow each other may well have the same."""
RETURN = "yield MrConfigureToReturn()\n"
SAME = RETURN + "for pair in arguments:\n    yield pair\n"
SUM = "for key, values in results:\n    yield key, sum(values)\n"
ALL = "for key, values in results:\n    yield key, values\n"


class Recorder:
    """A sink that keeps everything: `order` has the frames as they came, the rest is by child.

    A child is a number; where the executor went on below child n, those children are `(n, number)`, their reduce is
    `(n, "reduce")`.
    """

    def __init__(self) -> None:
        self.order: list[Any] = []
        self.results_of: dict[Any, Any] = {}
        self.lists: dict[tuple[Any, str], list[Any]] = defaultdict(list)
        self.closed: dict[Any, Any] = {}
        self.us: dict[Any, int] = {}
        self.outputs: dict[Any, str] = {}
        self.sessions: dict[Any, dict[str, Any]] = {}
        self.chunk_bytes: list[int] = []
        self.notices: list[frames.Notice] = []
        self.keep = True
        self.bytes = 0
        self.answers: Callable[[frames.Call, bytes], None] | None = None
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._above: int | None = None
        self._is_reduce = False

    def _name(self, child: int) -> Any:
        if self._above is None:
            return child
        return self._above, "reduce" if self._is_reduce else child

    def results(self, frame: frames.Results, items: Items, us: array[int]) -> None:
        self.order.append(frame)
        for number, (document, microseconds) in enumerate(zip(items, us, strict=True)):
            child = self._name(frame.first + number)
            assert child not in self.results_of
            self.results_of[child] = json.loads(document)
            self.us[child] = microseconds
        self.outputs.update({self._name(child): text for child, text in frame.outputs.items()})
        self.sessions.update({self._name(child): _plain(values) for child, values in frame.sessions.items()})

    def _take(self, child: int, kind: str, items: Items) -> None:
        self.bytes += items.size_bytes
        if self.keep:
            self.lists[self._name(child), kind].extend(json.loads(items.array()))

    def _close(self, frame: Any) -> None:
        child = self._name(frame.child)
        assert child not in self.closed
        self.order.append(frame)
        self.closed[child] = frame
        self.us[child] = frame.us
        self.outputs[child] = frame.output
        self.sessions[child] = _plain(frame.session)
        if self._is_reduce:
            self._above, self._is_reduce = None, False

    def chunk(self, frame: frames.Chunk, items: Items) -> None:
        self.order.append(frame)
        self.chunk_bytes.append(items.size_bytes)
        self._take(frame.child, frame.kind, items)

    def mapped(self, frame: frames.Mapped, items: Items) -> None:
        self._take(frame.child, "arguments", items)
        self._close(frame)
        if frame.goes_on:
            assert self._above is None
            self._above = frame.child

    def returned(self, frame: frames.Returned, items: Items) -> None:
        self._take(frame.child, "rows", items)
        self._close(frame)

    def reduced(self, frame: frames.Reduced, items: Items) -> None:
        self._take(frame.child, "pairs", items)
        self._close(frame)

    def failed(self, frame: frames.Failed) -> None:
        self._close(frame)

    def turned(self, frame: frames.Turn) -> None:
        assert self._above is not None
        self.order.append(frame)
        if frame.to == "reduce":
            self._is_reduce = True
        else:
            self._above = None

    def noticed(self, frame: frames.Notice) -> None:
        self.notices.append(frame)

    def called(self, frame: frames.Call, body: bytes) -> None:
        assert self.answers is not None, f"nobody answers {frame}"
        self.answers(frame, body)

    def finished(self, frame: frames.Finished) -> None:
        self.order.append(frame)
        self.done.set_result(frame.next)

    def failure(self, child: int = 0) -> frames.Failed:
        """How a child failed; it must have."""
        frame = self.closed.get(child)
        assert isinstance(frame, frames.Failed), f"did not fail: {frame or self.results_of.get(child)}"
        return frame

    def result(self, child: int = 0) -> Any:
        """The pairs of a child that was reduced, whichever frame brought them."""
        if child in self.results_of:
            return self.results_of[child]
        frame = self.closed.get(child)
        assert isinstance(frame, frames.Reduced), f"not reduced: {frame}"
        return self.lists[child, "pairs"]


def _plain(session: dict[str, Any]) -> dict[str, Any]:
    return {key: json.loads(bytes(value)) for key, value in session.items()}


class Bench:
    """One executor. Handlers that contain `def handle(` are taken as modules, all else as bare bodies."""

    def __init__(self, **options: Any) -> None:
        self.exits: list[Exit] = []
        self.gone: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.process = ExecutorProcess(on_exit=self._on_exit, environ=options.pop("environ", os.environ), **options)

    def _on_exit(self, how: Exit) -> None:
        self.exits.append(how)
        self.gone.set_result(how)

    def handler(
        self,
        source: str | Handler,
        kind: HandlerType,
        name: str = "",
        cast: str | None = None,
        memory_mb: int | None = None,
    ) -> HandlerName:
        """Define a handler and name it."""
        handler = (
            source
            if isinstance(source, Handler)
            else Handler(
                description="",
                argument_spec=[("arguments" if kind == "mapper" else "results", cast)],
                source_type="python",
                source_code=source,
                handler_type=kind,
                required_capability="none",
                form="module" if "def handle(" in source else "body",
                memory_mb=memory_mb,
            )
        )
        name = name or f"the_{kind}"
        version = hashlib.sha256(f"{handler.version}{name}".encode()).hexdigest()[:12]
        self.process.define(name, version, handler)
        return HandlerName(name, version)

    def start_map(
        self,
        mapper: str | Handler,
        arguments: list[Any] | None = None,
        *,
        combiner: str | Handler | None = None,
        reducer: str | Handler | None = ALL,
        first: int = 0,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        cast: str | None = None,
        memory_mb: int | None = None,
        workflow: str = "flow",
        below: tuple[str, str] | None = None,
        most: int = 10,
    ) -> Recorder:
        """Begin to run one child for each list of pairs in `arguments`.

        `below` are the mapper and the reducer of the step `leaf`, which the executor may go on with.
        """
        recorder = Recorder()
        frame = frames.RunMap(
            id=SAME_ID,
            workflow=workflow,
            request="f" * 40,
            parent="0.5",
            first=first,
            step="the_step",
            mapper=self.handler(mapper, "mapper", cast=cast, memory_mb=memory_mb),
            combiner=None if combiner is None else self.handler(combiner, "combiner"),
            reducer=None if reducer is None else self.handler(reducer, "reducer"),
            below=None
            if below is None
            else frames.Below(
                step="leaf",
                mapper=self.handler(below[0], "mapper", "leaf_mapper"),
                reducer=self.handler(below[1], "reducer", "leaf_reducer"),
                most=most,
            ),
            limits=limits,
        )
        documents = [encode(pairs) for pairs in ([[["k", 1]]] if arguments is None else arguments)]
        self.process.run(frame, Items.of(documents), recorder)
        return recorder

    async def map(self, mapper: str | Handler, arguments: list[Any] | None = None, **options: Any) -> Recorder:
        """Run to the end."""
        recorder = self.start_map(mapper, arguments, **options)
        await self.finish(recorder)
        return recorder

    def start_reduce(
        self,
        reducer: str | Handler,
        *,
        session: dict[str, Any] | None = None,
        limits: Limits = Limits(),  # noqa: B008
    ) -> Recorder:
        """Begin a reduce, whose input the test sends."""
        recorder = Recorder()
        frame = frames.RunReduce(
            id=SAME_ID,
            workflow="flow",
            request="f" * 40,
            path="0.5",
            child=5,
            step="the_step",
            reducer=self.handler(reducer, "reducer"),
            session={key: _raw(value) for key, value in (session or {}).items()},
            limits=limits,
        )
        self.process.run(frame, None, recorder)
        return recorder

    async def reduce(
        self, reducer: str | Handler, kind: frames.InputKind, elements: list[Any], **options: Any
    ) -> Recorder:
        """Reduce these elements, sent two to a frame."""
        recorder = self.start_reduce(reducer, **options)
        for start in range(0, len(elements), 2):
            await self.process.send_input(kind, Items.of([encode(one) for one in elements[start : start + 2]]))
        self.process.end_input()
        await self.finish(recorder)
        return recorder

    async def finish(self, recorder: Recorder) -> int:
        """Wait for the end of a run; fails when the executor dies first."""
        ends: list[asyncio.Future[Any]] = [recorder.done, self.gone]
        await asyncio.wait(ends, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        assert recorder.done.done(), f"not finished: {self.exits or 'still running'}"
        return recorder.done.result()

    async def death(self) -> Exit:
        """Wait until the executor has ended."""
        return await asyncio.wait_for(asyncio.shield(self.gone), DEADLINE_S)


def _raw(value: Any) -> Any:
    import msgspec

    return msgspec.Raw(encode(value))


@asynccontextmanager
async def bench(**options: Any) -> AsyncIterator[Bench]:
    """An executor that is killed in the end."""
    one = Bench(**options)
    await one.process.start()
    try:
        yield one
    finally:
        await one.process.kill()


async def until(condition: Any, what: str, seconds: float = DEADLINE_S) -> None:
    """Wait for a condition, looking every few milliseconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"{what} did not happen in {seconds} s"
        await asyncio.sleep(0.005)
