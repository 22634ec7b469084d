"""The log of a process: one line an event, on stderr or in a file; JSON where nobody watches, plain for a person."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from mr.cli.output import harmless
from mr.errors import ConfigError
from mr.settings import Settings

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor


def set_up(settings: Settings) -> None:
    """Render what the floors below log. In development only what needs attention is shown.

    Raises: ConfigError if the file for it cannot be written.
    """
    import structlog

    log = settings.log
    handlers: list[logging.Handler] = []
    if log.stream:
        handlers.append(logging.StreamHandler(sys.stderr))
    if log.path:
        try:
            handlers.append(logging.FileHandler(log.path))
        except OSError as error:
            raise ConfigError(
                [f"MR_LOG_FILEPATH: expected a file that can be written, got: {log.path} ({error.strerror})"]
            ) from error
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    for handler in handlers:
        is_watched = not isinstance(handler, logging.FileHandler) and sys.stderr.isatty()
        renderers: list[Processor] = (
            [_harmless, structlog.dev.ConsoleRenderer()]
            if is_watched
            else [structlog.processors.JSONRenderer(sort_keys=True)]
        )
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=shared,
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
            )
        )
    usual = logging.WARNING if settings.development else logging.INFO
    logging.basicConfig(level=logging.DEBUG if log.debug else usual, handlers=handlers or [logging.NullHandler()])


def _harmless(logger: object, method: str, event: EventDict) -> EventDict:
    """What is logged may hold what a handler raised or a client sent; the colours come after this."""
    return {name: harmless(value) if isinstance(value, str) else value for name, value in event.items()}
