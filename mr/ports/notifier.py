"""Notifier: how people hear that something happened, while it is of interest to them.

A notice is told once, or not at all: it is no record, and nothing waits for it. What must arrive is an event
(`ports.event_sender`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What is told. `level` is one of LEVELS, `at` seconds since 1970.

    `message` and `traceback` are those of an error. Whose it is stands beside the text, empty where it is nobody's.
    """

    level: str
    text: str
    at: float
    workflow: str = ""
    request: str = ""
    invocation: str = ""
    handler: str = ""
    message: str = ""
    traceback: str = ""

    @property
    def name(self) -> str:
        """The name of the logger, as listeners show it."""
        return ".".join(part for part in ("mr", self.workflow, self.handler) if part)


class Notifier(ABC):
    """One way to tell people. Called from one thread at a time."""

    name: str
    """What handlers and settings call it: `email`, `http`."""

    @abstractmethod
    def notify(self, notice: Notice) -> None:
        """Tell it. Ends by itself within a minute.

        Raises: NotDelivered; it is not tried again.
        """
