"""How handlers ask their supervisor: a Call goes out, and the handler waits for its Answer.

A thread does both, and the handler waits for the thread. For a handler may be interrupted wherever it waits, by an
alarm that it has set itself, and half a frame would be the end of its executor. Nothing interrupts the thread: where
nobody waits any more it takes the answer all the same, and then the next question. It begins with the first one.

The hard part is that the orders of the next run come by the same socket. So the thread asks only while the cell says
that a child runs, and a run is over when the thread has nothing left to do. What a handler has left behind is refused
between two runs, and in those of other workflows.
"""

from __future__ import annotations

import os
import traceback
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from os import getpid
from queue import SimpleQueue

from mr.codec import EMPTY, Items
from mr.errors import CorruptEntry, InvalidName, MrError, StoreFull, StoreUnavailable, ValueRefused
from mr.model.operation import Operation
from mr.worker.frames import NO_CHILD, Answer, Call, Cell, Order, Report, RunMap, RunReduce, unpack_items
from mr.worker.memory import EXIT_MEMORY
from mr.worker.scope import Refused

_ERRORS: dict[str, type[MrError]] = {
    kind.code: kind for kind in (CorruptEntry, InvalidName, StoreFull, StoreUnavailable, ValueRefused)
}


class _Question:
    """One question, and what came of it; without an operation it asks nothing."""

    def __init__(self, workflow: str = "", operation: Operation | None = None, value: bytes = b"") -> None:
        self.workflow, self.operation, self.value = workflow, operation, value
        self.answer = Answer()
        self.items = EMPTY
        self.error = ""
        self._is_open = allocate_lock()
        self._is_open.acquire()

    def close(self) -> None:
        """It is answered, or will not be."""
        self._is_open.release()

    def wait(self) -> None:
        """Until it is closed."""
        self._is_open.acquire()


class Asking:
    """Asks, one question after the other, whoever asks. `send` and `read` pass frames, `order` is the run that is on.

    `threads` is the number of those that it has begun.
    """

    def __init__(
        self,
        send: Callable[[Report, bytes], None],
        read: Callable[[], tuple[Order, bytes] | None],
        cell: Cell,
        order: Callable[[], RunMap | RunReduce],
    ) -> None:
        self._send, self._read, self._cell, self._order = send, read, cell, order
        self.threads = 0
        self._questions: SimpleQueue[_Question] = SimpleQueue()
        self._is_free = allocate_lock()
        self._pid = getpid()

    def ask(self, workflow: str, operation: Operation, value: bytes = b"") -> tuple[Items, bool]:
        """What the supervisor answers, and whether there is more of it.

        Raises: RuntimeError where no handler of the workflow runs; what went wrong there, by its own name.
        """
        if getpid() != self._pid:
            raise RuntimeError("COLLECTIONS is for the process of the handler; one that it has forked cannot use it")
        if not self.threads:
            start_new_thread(self._serve, ())
        question = _Question(workflow, operation, value)
        self._questions.put(question)
        question.wait()
        if question.error:
            raise RuntimeError(question.error)
        answer = question.answer
        if answer.code == "output_limit":
            raise Refused(answer.code, answer.message)
        if answer.code:
            raise _ERRORS.get(answer.code, MrError)(answer.message)
        return question.items, answer.more

    def settle(self) -> None:
        """Wait until nobody is asking any more; no handler runs."""
        last = _Question()
        self._questions.put(last)
        last.wait()

    def _serve(self) -> None:
        if not self._is_free.acquire(blocking=False):
            return  # two were begun at once
        self.threads = 1
        while True:
            question = self._questions.get()
            try:
                if question.operation is not None:
                    self._pass_on(question, question.operation)
            except MemoryError:
                os._exit(EXIT_MEMORY)
            except OSError:
                os._exit(0)  # the supervisor is gone
            except BaseException:  # an answer that is none: what comes next cannot be told
                traceback.print_exc()
                os._exit(1)
            question.close()

    def _pass_on(self, question: _Question, operation: Operation) -> None:
        if self._cell.integers[Cell.CHILD] == NO_CHILD:
            question.error = "COLLECTIONS was used after the end of the invocation"
            return
        order = self._order()
        if order.workflow != question.workflow:
            question.error = f"COLLECTIONS of workflow {question.workflow} was used in a run of another one"
            return
        self._send(Call(id=order.id, operation=operation), question.value)
        frame = self._read()
        if frame is None:
            os._exit(0)
        header, body = frame
        if not isinstance(header, Answer):
            raise CorruptEntry(f"{type(header).__name__} came in the place of an answer")
        question.answer, question.items = header, unpack_items(body)
