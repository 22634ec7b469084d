"""The writing desk of a worker: takes the messages that ask for a result to be written, and writes in its own threads.

It has a consumer of its own, beside the one that feeds the executors: a result that takes minutes, or a disk that
hangs, holds up nobody's handlers. Where results stay in the store nobody sits at it, and it listens to nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

from mr.errors import StoreFull, StoreUnavailable
from mr.model.message import Message
from mr.ports.broker import Consumer, Delivery
from mr.rules import routing
from mr.services.committer import Committer
from mr.services.work import Worker
from mr.services.writing import Writing
from mr.wiring import Parts
from mr.worker.committing import Stopped
from mr.worker.opening import unsealed

_log = logging.getLogger(__name__)

WRITERS = 4
"""Results that are written at a time."""
TOUCH_S = 1.0
TICK_S = 0.02


class Desk:
    """Its methods are called in the event loop. `gives_up`: the worker will not wait any longer.

    Raises: ConfigError if the writer of the settings is none.
    """

    def __init__(self, parts: Parts, committer: Committer, worker: Worker, gives_up: Callable[[], bool]) -> None:
        self._gives_up = gives_up
        self._message_key = parts.message_key
        self._consumer: Consumer | None = None
        if parts.writers is not None:
            self._consumer = parts.consumer()
            self._writing = Writing(
                parts.store, parts.datasets, committer, parts.writers, worker=worker.name, stamp=worker.stamp
            )
        self._hand: set[Delivery] = set()
        # Not an executor's threads: the interpreter waits for those, and a writer may hang.
        self._queue: SimpleQueue[tuple[Delivery, Message] | None] = SimpleQueue()

    async def start(self) -> None:
        """Begin."""
        if self._consumer is None:
            return
        self._loop = asyncio.get_running_loop()
        for number in range(WRITERS):
            threading.Thread(target=self._write, name=f"writer-{number}", daemon=True).start()
        await self._consumer.start(self._on_delivery)
        self._consumer.allow(WRITERS)
        self._touching = self._loop.create_task(self._touch())

    async def serve(self, workflows: Sequence[str]) -> None:
        """Write the results of these workflows from now on."""
        if self._consumer is not None:
            await self._consumer.subscribe([routing.write_topic(name) for name in workflows])

    async def stop(self, drain_s: float) -> None:
        """Take nothing new, finish what is short, hand back the rest."""
        if self._consumer is None:
            return
        self._consumer.allow(0)
        deadline = self._loop.time() + drain_s
        while self._hand and self._loop.time() < deadline and not self._gives_up():
            await asyncio.sleep(TICK_S)
        for _ in range(WRITERS):
            self._queue.put(None)
        for delivery in list(self._hand):
            self._answer(delivery, 0.0)
        self._touching.cancel()
        await self._consumer.close()

    def _on_delivery(self, delivery: Delivery) -> None:
        message = unsealed(delivery, self._message_key)
        if message is not None:
            self._hand.add(delivery)
            self._queue.put((delivery, message))

    async def _touch(self) -> None:
        while True:
            await asyncio.sleep(TOUCH_S)
            for delivery in self._hand:
                delivery.touch()

    def _answer(self, delivery: Delivery, again_s: float | None) -> None:
        if delivery not in self._hand:
            return
        self._hand.discard(delivery)
        if again_s is None:
            delivery.finish()
        else:
            delivery.requeue(again_s)

    # In the threads

    def _write(self) -> None:
        while (given := self._queue.get()) is not None:
            delivery, message = given
            try:
                again_s = self._writing.write(message)
            except Stopped:
                return
            except (StoreUnavailable, StoreFull):
                again_s = 0.5
            except Exception:  # the thread has to outlive whatever the store may hold
                _log.exception("the result of request %s cannot be written", message.r)
                again_s = 5.0
            with suppress(RuntimeError):  # the loop is closed: this took longer than the worker wanted to wait
                self._loop.call_soon_threadsafe(partial(self._answer, delivery, again_s))
