"""Processor: what mr must know about one language to accept its handlers.

Checking and running are apart on purpose. Whoever pushes a handler holds rights that user code must not get, so
nothing of it is executed to find out whether it is good: a processor only parses. Running happens in executors.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from mr.model.handler import Handler

SOURCE_BYTES_MAX = 512 * 1024

_NAMED = re.compile(
    r"^(\S{1,4}) /// mr\s*\n(?:(?!\1 ///\s*$)\1.*\n)*?\1 source_type\s*=\s*[\"']([\w-]+)[\"']",
    re.MULTILINE,
)


def named_language(source: str) -> str | None:
    """The language that the header of a file names, which counts for more than its extension; None if it does not."""
    found = _NAMED.search(source)
    return found[2] if found else None


class Processor(ABC):
    """Checks handler source of one language. Safe to call from several threads.

    `source_type` is the language as handlers name it; `extensions` are those of its files, lower case, no dot.
    """

    source_type: str
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
