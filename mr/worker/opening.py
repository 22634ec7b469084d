"""Opening: from a delivery to a visit, at once where the message says enough, else by a thread that reads the store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from mr.errors import CorruptEntry, MrError, NotFound, StoreFull, StoreUnavailable
from mr.model.message import Message, unseal
from mr.ports.broker import Delivery
from mr.services.briefing import Briefing
from mr.services.progress import Visit

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Read(Protocol):
    """Calls in a thread; the result, or what was raised, comes back into the loop."""

    def __call__(
        self, call: Callable[[], T], then: Callable[[T], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Soon."""


class Opening:
    """`begin` is called in the loop with each visit that there is something to do for; other messages are finished."""

    def __init__(
        self, briefing: Briefing, key: bytes, *, read: Read, begin: Callable[[Delivery, Message, Visit], None]
    ) -> None:
        self._briefing, self._key, self._read, self._begin = briefing, key, read, begin

    def deliver(self, delivery: Delivery) -> None:
        """A message has come."""
        message = unsealed(delivery, self._key)
        if message is None:
            return
        again = delivery.attempts > 1
        try:
            visit = None if again else self._briefing.open_quickly(message)
        except MrError as error:
            _log.warning("a message of topic %s is looked at again: %s", delivery.topic, error)
            visit, again = None, True
        if visit is not None:
            self._begin(delivery, message, visit)
        else:
            self._open(delivery, message, again)

    def once_more(self, delivery: Delivery, message: Message) -> None:
        """Look at it against what the store says now."""
        self._open(delivery, message, True)

    def _open(self, delivery: Delivery, message: Message, again: bool) -> None:
        self._read(
            partial(self._briefing.open, message, again=again, since=time.monotonic()),
            partial(self._opened, delivery, message),
            partial(self._not_opened, delivery, message),
        )

    def _opened(self, delivery: Delivery, message: Message, visit: Visit | None) -> None:
        if visit is None:
            delivery.finish()
        else:
            self._begin(delivery, message, visit)

    def _not_opened(self, delivery: Delivery, message: Message, error: BaseException) -> None:
        if isinstance(error, (StoreUnavailable, StoreFull)):
            delivery.requeue(0.5)
        elif isinstance(error, NotFound):
            delivery.finish()  # cleaned away while it was looked at
        else:
            _log.error("a message of request %s cannot be opened", message.r, exc_info=error)
            delivery.requeue(5.0)


def unsealed(delivery: Delivery, key: bytes) -> Message | None:
    """The message of a delivery; None if it is none of ours, and then the delivery is finished."""
    try:
        return unseal(delivery.body, key)
    except CorruptEntry as error:
        _log.warning("a message of topic %s is dropped: %s", delivery.topic, error)
        delivery.finish()
        return None
