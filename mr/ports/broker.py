"""Broker: messages by topic to one of the consumers, at least once, in no order, perhaps late or never.

Nothing may depend on a message: what must run is recorded in the store, and the sweeper publishes it again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Set

import msgspec

from mr.model.condition import Condition

MESSAGE_MAX_BYTES = 1_000_000
"""No body is bigger; nsqd refuses 1 MiB."""


class Publication(msgspec.Struct, frozen=True):
    """A message to publish; `delay_s` is how long it stays invisible."""

    topic: str
    body: bytes
    delay_s: float = 0.0


class Backlog(msgspec.Struct, frozen=True):
    """Messages of a topic: waiting to be delivered, delivered but not finished, and delayed."""

    waiting: int = 0
    in_flight: int = 0
    delayed: int = 0

    @property
    def total(self) -> int:
        """All that are not finished."""
        return self.waiting + self.in_flight + self.delayed


class Publisher(ABC):
    """Sends messages. Safe to call from several threads."""

    joins_commit: bool = False
    """Whether `Transaction.messages` of the store at hand publishes to this broker."""

    @abstractmethod
    def publish(self, publications: Sequence[Publication]) -> str:
        """Publish all; says which instance took them (a key of `instances`).

        Raises: BrokerUnavailable if some may not have been taken; those taken stay, so repeating duplicates.
        ValueRefused if a body is empty or above MESSAGE_MAX_BYTES.
        """

    @abstractmethod
    def backlog(self, topics: Sequence[str]) -> Mapping[str, Backlog]:
        """What lies in each topic, over all instances; an unknown topic has an empty backlog.

        Raises: BrokerUnavailable unless every instance answered.
        """

    @abstractmethod
    def instances(self) -> Mapping[str, str]:
        """The instances that answer now, and a word that changes whenever one starts with lost messages."""

    @abstractmethod
    def topics(self) -> Sequence[str]:
        """The topics that there are, at least those that hold messages, each once.

        Raises: BrokerUnavailable unless every instance answered.
        """

    def conditions(self) -> Sequence[Condition]:
        """What who runs the broker should know of it, looked at now; see `Store.conditions`."""
        return ()

    @abstractmethod
    def close(self) -> None:
        """Let go of connections. Twice is harmless."""


class Delivery(ABC):
    """One delivered message. Its methods never block and may be called from the consumer's event loop only.

    They are hints, too: a message whose time ran out is delivered again whatever is called.
    """

    topic: str
    body: bytes
    attempts: int
    """1 for the first delivery."""

    @abstractmethod
    def finish(self) -> None:
        """The message is done with; it is not delivered again."""

    @abstractmethod
    def requeue(self, delay_s: float = 0.0) -> None:
        """Give it back; it is delivered again after the delay, to any consumer."""

    @abstractmethod
    def touch(self) -> None:
        """It is still being worked on: its time starts anew."""


class Consumer(ABC):
    """Receives messages. All methods are called from one event loop (asyncio), which also runs `on_delivery`."""

    @abstractmethod
    async def start(self, on_delivery: Callable[[Delivery], None]) -> None:
        """Begin; nothing is delivered before `subscribe` and `allow`."""

    @abstractmethod
    async def subscribe(self, topics: Sequence[str]) -> None:
        """Consume exactly these topics from now on. A topic that does not exist is created."""

    @abstractmethod
    def allow(self, in_flight: int) -> None:
        """How many deliveries may be unfinished at a time; 0 pauses. May be changed at any time."""

    @abstractmethod
    def pause(self, topics: Set[str]) -> None:
        """Take nothing of these topics for now, and of all others again. What is on its way may still come."""

    @abstractmethod
    async def close(self) -> None:
        """Take nothing new, send what was answered, and disconnect. Unanswered deliveries come back to others."""
