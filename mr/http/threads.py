"""Native threads beside the event loop: every call of a store, a broker or a service runs in one of them.

Greenlets share one thread, so a call that blocks in the kernel would stop all clients of the process. Nothing is
monkey-patched here; instead a greenlet hands such a call to a few native threads and sleeps until one has made it.
While many calls are in the threads at once, the store can take their writes together.

The hard part is a store that does not answer. The line of waiting calls is bounded, and so is the time that a
greenlet waits; whether its call was begun by then decides whether anything may have happened.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from gevent.event import Event
from gevent.hub import get_hub

from mr.errors import StoreUnavailable

P = ParamSpec("P")
T = TypeVar("T")

SIZE = 16
"""As many writes can share one commit of the store."""
LINE_MAX = 2000
"""Calls that wait for a thread; at 1,000 a second the last of them waits two seconds."""
ANSWER_S = 30.0
"""Longer than every patience of the stores, so that their own errors, which say more, come first."""


class NativeThreads:
    """Up to `size` threads, started when they are needed. `call` belongs to greenlets, of any event loop."""

    def __init__(self, size: int = SIZE, *, line_max: int = LINE_MAX, answer_s: float = ANSWER_S) -> None:
        self._size, self._line_max, self._answer_s = size, line_max, answer_s
        self._line: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in a native thread while other greenlets run; returns and raises what it does.

        Raises: StoreUnavailable if the line is too long, or no answer came in time; `unknown` is set exactly when
        the call was begun, and then it goes on.
        """
        if self._closed:
            raise StoreUnavailable("the front end is shutting down")
        if self._line.qsize() >= self._line_max:
            raise StoreUnavailable(f"more than {self._line_max} calls are waiting already", hint="try again later")
        call = _Call(lambda: function(*args, **kwargs))
        self._line.put(call)
        if len(self._threads) < self._size:
            self._start()
        if not call.done.wait(self._answer_s):
            unknown = not call.claim()
            raise StoreUnavailable(f"there was no answer for {self._answer_s:g} s", unknown=unknown)
        return call.outcome()

    def close(self) -> None:
        """Let the threads end after what is in line. Twice is harmless."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._line.put(None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name=f"call-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while (call := self._line.get()) is not None:
            call.run()
            del call  # else the thread would keep its answer until the next one


class _Call(Generic[T]):
    """One call on its way. Whoever claims it first, a thread to run it or its greenlet to give it up, has it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.done = Event()
        self._function = function
        self._loop = get_hub().loop
        self._claimed = threading.Lock()
        self._value: T | None = None
        self._error: BaseException | None = None

    def claim(self) -> bool:
        """Take the call; False if it is taken."""
        return self._claimed.acquire(blocking=False)

    def run(self) -> None:
        """Make the call, in a native thread, unless it was given up."""
        if not self.claim():
            return
        try:
            self._value = self._function()
        except BaseException as error:  # the greenlet raises it
            self._error = error
        wake(self._loop, self.done.set)

    def outcome(self) -> T:
        """What came out."""
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # set, unless T itself allows None


def wake(loop: Any, function: Callable[..., None], *args: Any) -> None:
    """Have an event loop of another thread call the function, which must not block."""
    try:
        loop.run_callback_threadsafe(function, *args)
    except ValueError:
        pass  # its thread is gone, and so is everyone who waited there
