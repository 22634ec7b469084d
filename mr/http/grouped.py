"""Calls that share: whatever waits when a thread comes free goes into one call of the function.

A thread for each call would be the plain way, and is `threads.NativeThreads`. But every thread that is ready competes
with the event loop for the interpreter, and with a few dozen of them handing over costs more than the work. So where
a function can take many arguments at once, one or two threads serve all clients, and the groups grow with the load.
"""

from __future__ import annotations

import queue
import threading
import time
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

_NOTHING = object()


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
        self._line: queue.SimpleQueue[Call[A, R] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def call(self, argument: A) -> R:
        """What came of this argument; raises what the function says of it, and what `begin` and `finish` do."""
        return self.finish(self.begin(argument))

    def begin(self, argument: A, on_error: Callable[[], None] | None = None) -> Call[A, R]:
        """Put a call in line. Who has other things to wait for gets word in its loop if an error comes out.

        Raises: StoreUnavailable if the line is too long.
        """
        if self._closed:
            raise StoreUnavailable("the front end is shutting down")
        if self._line.qsize() >= self._line_max:
            raise StoreUnavailable(f"more than {self._line_max} calls are waiting already", hint="try again later")
        call: Call[A, R] = Call(argument, on_error)
        self._line.put(call)
        if len(self._threads) < self._size:
            self._start()
        return call

    def finish(self, call: Call[A, R]) -> R:
        """What came of a call, waited for; raises what the function says of it.

        Raises: StoreUnavailable if no answer came in time since its begin; `unknown` is set exactly when the
        function was called, and then it goes on.
        """
        if not call.wait(self._answer_s):
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

    def _run(self, calls: list[Call[A, R]]) -> None:
        outcomes: Sequence[R | BaseException]
        try:
            outcomes = self._function([call.argument for call in calls])
        except BaseException as error:  # the greenlets raise it
            outcomes = [error] * len(calls)
        loops: dict[Any, list[Call[A, R]]] = defaultdict(list)
        for call, outcome in zip(calls, outcomes, strict=True):
            if call.ends_with(outcome):
                loops[call.loop].append(call)
        for loop, done in loops.items():
            wake(loop, _tell, done)


class Call(Generic[A, R]):
    """One argument on its way. Whoever claims it first, a thread to call or its greenlet to give it up, has it."""

    __slots__ = ("_begun_at", "_claimed", "_done", "_on_error", "_outcome", "argument", "loop")

    def __init__(self, argument: A, on_error: Callable[[], None] | None) -> None:
        self.argument = argument
        self.loop = get_hub().loop
        self._on_error = on_error
        self._begun_at = time.monotonic()
        self._claimed = threading.Lock()
        self._outcome: R | BaseException | object = _NOTHING
        self._done: Event | None = None

    def claim(self) -> bool:
        """Take the call; False if it is taken."""
        return self._claimed.acquire(blocking=False)

    def ends_with(self, outcome: R | BaseException) -> bool:
        """Set what came out, in a thread; says whether anybody is to be told."""
        self._outcome = outcome
        # In this order, and `wait` the other way round: whoever comes second sees what the first one did.
        return self._done is not None or (self._on_error is not None and isinstance(outcome, BaseException))

    def tell(self) -> None:
        """Wake who waits. Called in its loop."""
        if self._done is not None:
            self._done.set()
        if self._on_error is not None and isinstance(self._outcome, BaseException):
            self._on_error()

    def wait(self, answer_s: float) -> bool:
        """Wait until so long after the begin; says whether the outcome is there."""
        if self._outcome is _NOTHING:
            self._done = Event()
            if self._outcome is _NOTHING:
                self._done.wait(max(0.0, self._begun_at + answer_s - time.monotonic()))
        return self._outcome is not _NOTHING

    def result(self) -> R:
        """What came out."""
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome  # type: ignore[return-value]  # set, unless R itself allows None


def _tell(calls: list[Call[Any, Any]]) -> None:
    for call in calls:
        call.tell()
