"""What handlers say: `LOG` to who looks later, `NOTIFY`, `EMAIL` and `HTTP` to who is told now.

Each call is a line in the output of the running invocation: level, handler, text. What is to be told goes to the
supervisor as a frame of its own, for an executor has neither credentials nor addresses; which of the ways exist, and
from which level on, it knows from its start. An invocation may tell so much; a loop must not fill somebody's mailbox.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Literal, NoReturn

import msgspec

from mr.ports.notifier import LEVELS
from mr.worker.output import Capture

By = Literal["notify", "email", "http"]
Tell = Callable[[By, str, str, str], None]
"""By which way, at which level, by which handler, what."""

NOTICES_MAX = 100
"""What one invocation may tell."""
TEXT_MAX = 16 * 1024


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """From which level on each is kept or told; None: that way is not configured. `notify`: there is any way."""

    log: str = "debug"
    notify: bool = False
    email: str | None = None
    http: str | None = None


class NotConfigured(Exception):
    """A handler used something that this deployment has not set up; the text names the setting."""


class Missing:
    """Stands for something that is not configured: every use raises NotConfigured with the setting's name."""

    def __init__(self, message: str) -> None:
        self.__dict__["_message"] = message

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NotConfigured(self.__dict__["_message"])

    def __call__(self, *_arguments: object, **_named: object) -> NoReturn:
        raise NotConfigured(self.__dict__["_message"])


class Log:
    """A logger as handlers know it. `by` None: nobody is told, it is only a line."""

    def __init__(
        self, capture: Capture, handler: str, level: str = "debug", by: By | None = None, tell: Tell | None = None
    ) -> None:
        self._write, self._handler, self._least = capture.write, handler, LEVELS[level]
        self._label = f"{handler} {by.upper()}" if by is not None else handler
        self._by, self._tell = by, tell

    def _say(self, level: str, message: object, arguments: tuple[object, ...], more: str = "") -> None:
        if LEVELS[level] < self._least:
            return
        try:
            text = str(message) % arguments if arguments else str(message)
        except Exception:  # the handler's own objects; saying something must not fail a request
            text = f"{type(message).__name__} that cannot be told with {len(arguments)} arguments"
        self._write(f"{level.upper()} [{self._label}] {text}\n{more}")
        if self._by is not None and self._tell is not None:
            self._tell(self._by, level, self._handler, f"{text}\n{more}".rstrip("\n"))

    def debug(self, message: object, *arguments: object) -> None:
        self._say("debug", message, arguments)

    def info(self, message: object, *arguments: object) -> None:
        self._say("info", message, arguments)

    def warning(self, message: object, *arguments: object) -> None:
        self._say("warning", message, arguments)

    warn = warning

    def error(self, message: object, *arguments: object) -> None:
        self._say("error", message, arguments)

    def critical(self, message: object, *arguments: object) -> None:
        self._say("critical", message, arguments)

    fatal = critical

    def exception(self, message: object, *arguments: object) -> None:
        """An error line, then the traceback of the exception that is being handled."""
        self._say("error", message, arguments, traceback.format_exc())


def loggers(capture: Capture, handler: str, hooks: Hooks, tell: Tell) -> dict[str, Log | Missing]:
    """`LOG`, `NOTIFY`, `EMAIL` and `HTTP` of a handler."""
    return {
        "LOG": Log(capture, handler, hooks.log),
        # Without a hook a notification is a line in the output; it must never fail a request.
        "NOTIFY": Log(capture, handler, by="notify", tell=tell if hooks.notify else None),
        "EMAIL": Log(capture, handler, hooks.email, "email", tell)
        if hooks.email
        else Missing("no e-mail notifications configured: set MR_LOG_EMAIL_HOOK=1 and MR_LOG_EMAIL_TO"),
        "HTTP": Log(capture, handler, hooks.http, "http", tell)
        if hooks.http
        else Missing("no HTTP notifications configured: set MR_LOG_HTTP_HOOK=1"),
    }
