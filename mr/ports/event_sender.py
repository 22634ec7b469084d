"""Sender of events: hands one to somebody else's server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from mr.addresses import HttpUrl


class EventSender(ABC):
    """Posts events. Called from several threads at once."""

    @abstractmethod
    def send(self, url: HttpUrl, headers: Mapping[str, str], body: bytes) -> None:
        """Post it. Ends by itself within a minute, and follows nobody elsewhere.

        Guarantee: when it returns, the receiver has taken it.
        Raises: NotDelivered; perhaps it has taken it all the same.
        """
