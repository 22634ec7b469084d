"""Answering: what handlers ask of the collections of their workflow is done here, in threads of its own.

An executor asks one thing at a time and waits, so as many threads as executors answer all at once, and no hung store
holds up what others read. Whose collections they are says the run, never the handler. What is written counts for the
request of who writes it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mr.codec import Items
from mr.errors import CorruptEntry, MrError
from mr.model import operation
from mr.services import collections
from mr.services.collections import Collections
from mr.services.progress import Visit
from mr.services.quota import Quota
from mr.worker import frames
from mr.worker.committing import Stopped
from mr.worker.endings import fence
from mr.worker.run import Run

_log = logging.getLogger(__name__)


class Answering:
    """Answers calls. `pause` waits while the store is away, and may raise Stopped; `post` has the loop do something."""

    def __init__(
        self,
        collections: Collections,
        quota: Quota,
        threads: int,
        pause: Callable[[float], None],
        post: Callable[[Callable[[], None]], object],
    ) -> None:
        self._collections, self._quota, self._pause, self._post = collections, quota, pause, post
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="collections")
        self._waiting: set[Run] = set()

    def take(self, run: Run, call: frames.Call, value: bytes) -> None:
        """A call has come; its executor gets the answer, or has gone by then. In the loop.

        Raises: CorruptEntry if it has not waited for the one before: nobody may heap up calls here.
        """
        if run in self._waiting:
            raise CorruptEntry("a call came before the one before it was answered")
        self._waiting.add(run)
        self._threads.submit(self._answer, run, call, value)

    def close(self) -> None:
        """Answer no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, run: Run, call: frames.Call, value: bytes) -> None:
        items = Items.of([])
        try:
            found = self._perform(run.visit, call.operation, value)
        except Stopped:
            return  # the worker ends, and its executors with it
        except MrError as error:
            answer = frames.Answer(code=error.code, message=str(error))
        except Exception as error:  # whatever it is, somebody waits
            _log.exception("a call of request %s cannot be answered", run.visit.request_id)
            answer = frames.Answer(code="error", message=f"this should not happen: {type(error).__name__}: {error}")
        else:
            answer, items = frames.Answer(more=found.more), Items.of(found.documents)
        self._post(partial(self._answered, run, answer, items))

    def _answered(self, run: Run, answer: frames.Answer, items: Items) -> None:
        self._waiting.discard(run)
        run.executor.answer(answer, items)

    def _perform(self, visit: Visit, asked: operation.Operation, value: bytes) -> collections.Answer:
        w, r = visit.workflow, visit.request_id
        if not isinstance(asked, operation.WRITES):
            return self._collections.perform(w, asked, value, self._pause)
        if self._quota.is_over(w, r):
            raise QuotaReached(self._quota.report("").message)
        found = self._collections.perform(w, asked, value, self._pause)
        self._quota.stored(w, r, fence(visit), len(value))
        return found


class QuotaReached(MrError):
    """The request has kept as much in the store as it may."""

    code = "output_limit"
