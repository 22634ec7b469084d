"""A consumer of the simulated broker. Workers of the simulation poll it themselves; the contract suite needs this."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence, Set

from mr.ports.broker import Consumer, Delivery

from .backends import SimBroker, SimDelivery
from .world import Process

POLL_S = 0.001


class SimConsumer(Consumer):
    """A task that asks for a message of each topic in turn while there is room.

    Its process is alive as long as it is, and the broker takes that for touching.
    """

    def __init__(self, broker: SimBroker) -> None:
        self.process = Process("consumer")
        self._broker = broker
        self._topics: list[str] = []
        self._paused: Set[str] = frozenset()
        self._allowed = 0
        self._unanswered: set[SimDelivery] = set()
        self._polling: asyncio.Task[None] | None = None

    async def start(self, on_delivery: Callable[[Delivery], None]) -> None:
        self._on_delivery = on_delivery
        self._polling = asyncio.create_task(self._poll())

    async def subscribe(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def allow(self, in_flight: int) -> None:
        self._allowed = in_flight

    def pause(self, topics: Set[str]) -> None:
        self._paused = frozenset(topics)

    async def close(self) -> None:
        await self.die()
        for delivery in self._unanswered:
            delivery.requeue()
        self._unanswered.clear()

    async def die(self) -> None:
        """End without a word, as a killed process does."""
        self.process.is_alive = False
        if self._polling is not None:
            self._polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._polling

    async def _poll(self) -> None:
        while True:
            for topic in self._topics:
                if topic in self._paused:
                    continue
                self._unanswered = {delivery for delivery in self._unanswered if delivery.is_live}
                if len(self._unanswered) >= self._allowed:
                    break
                delivery = self._broker.receive(self.process, [topic])
                if delivery is not None:
                    self._unanswered.add(delivery)
                    self._on_delivery(delivery)
            await asyncio.sleep(POLL_S)
