"""Processor: what mr must know about one language to accept its handlers.

Checking and running are apart on purpose. Whoever pushes a handler holds rights that user code must not get, so
nothing of it is executed to find out whether it is good: a processor only parses. Running happens in executors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from mr.model.handler import Handler, SourceType

SOURCE_BYTES_MAX = 512 * 1024


class Processor(ABC):
    """Checks handler source of one language. Safe to call from several threads.

    `source_type` is the language as handlers name it; `extensions` are those of its files, lower case, no dot.
    """

    source_type: SourceType
    extensions: tuple[str, ...]

    @abstractmethod
    def check(self, name: str, source: str) -> Handler:
        """A handler file, header and code, as a handler.

        `name` is what errors call the file, e.g. its path. Equal text with other line ends makes an equal handler.
        Guarantee: nothing of the source is executed.
        Raises: InvalidHandler with `<name>:<line>: <problem>`.
        """

    @abstractmethod
    def verify(self, name: str, handler: Handler) -> Handler:
        """The same for a handler whose fields were given apart from its code, which then needs no header.

        Returns the handler with its source in the one spelling that versions are made of.
        Raises: InvalidHandler.
        """
