"""Calls that share: whatever waits when a thread comes free goes into one call of the function.

A thread for each call would be the plain way, and is `threads.NativeThreads`. But every thread that is ready competes
with the event loop for the interpreter, and with a few dozen of them handing over costs more than the work. So where
a function can take many arguments at once, one or two threads serve all clients, and the groups grow with the load.
"""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from gevent.event import Event
from gevent.hub import get_hub

from mr.errors import MrError, StoreUnavailable
from mr.http.threads import ANSWER_S, LINE_MAX, wake

A = TypeVar("A")
R = TypeVar("R")

THREADS = 2
"""While one waits for the disk, the other fills the next group."""
GROUP_MAX = 64


class Grouped(Generic[A, R]):
    """Calls of `function`, which says for each of its arguments what came of it. `call` belongs to greenlets."""

    def __init__(
        self,
        function: Callable[[Sequence[A]], Sequence[R | MrError]],
        *,
        threads: int = THREADS,
        line_max: int = LINE_MAX,
        answer_s: float = ANSWER_S,
    ) -> None:
        self._function, self._size, self._line_max, self._answer_s = function, threads, line_max, answer_s
        self._line: queue.SimpleQueue[_Call[A, R] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def call(self, argument: A) -> R:
        """What came of this argument; raises what the function says of it.

        Raises: StoreUnavailable if the line is too long, or no answer came in time; `unknown` is set exactly when
        the call was begun, and then it goes on.
        """
        if self._closed:
            raise StoreUnavailable("the front end is shutting down")
        if self._line.qsize() >= self._line_max:
            raise StoreUnavailable(f"more than {self._line_max} calls are waiting already", hint="try again later")
        call: _Call[A, R] = _Call(argument)
        self._line.put(call)
        if len(self._threads) < self._size:
            self._start()
        if not call.done.wait(self._answer_s):
            unknown = not call.claim()
            raise StoreUnavailable(f"there was no answer for {self._answer_s:g} s", unknown=unknown)
        return call.result()

    def close(self) -> None:
        """Let the threads end after what is in line. Twice is harmless."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._line.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"group-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (first := self._line.get()) is not None:
            group = [first]
            while len(group) < GROUP_MAX and not self._line.empty():
                more = self._line.get()
                if more is None:
                    self._line.put(None)
                    break
                group.append(more)
            if claimed := [call for call in group if call.claim()]:
                self._run(claimed)
                del claimed
            del first, group  # else the thread would keep their answers until the next ones

    def _run(self, calls: list[_Call[A, R]]) -> None:
        outcomes: Sequence[R | BaseException]
        try:
            outcomes = self._function([call.argument for call in calls])
        except BaseException as error:  # the greenlets raise it
            outcomes = [error] * len(calls)
        loops: dict[Any, list[_Call[A, R]]] = defaultdict(list)
        for call, outcome in zip(calls, outcomes, strict=True):
            call.outcome = outcome
            loops[call.loop].append(call)
        for loop, done in loops.items():
            wake(loop, _release, done)


class _Call(Generic[A, R]):
    """One argument on its way. Whoever claims it first, a thread to call or its greenlet to give it up, has it."""

    __slots__ = ("_claimed", "argument", "done", "loop", "outcome")

    def __init__(self, argument: A) -> None:
        self.argument = argument
        self.done = Event()
        self.loop = get_hub().loop
        self.outcome: R | BaseException | None = None
        self._claimed = threading.Lock()

    def claim(self) -> bool:
        """Take the call; False if it is taken."""
        return self._claimed.acquire(blocking=False)

    def result(self) -> R:
        """What came out."""
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome  # type: ignore[return-value]  # set, unless R itself allows None


def _release(calls: list[_Call[Any, Any]]) -> None:
    for call in calls:
        call.done.set()
