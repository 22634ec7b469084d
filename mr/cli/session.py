"""What a command works with: settings from the environment, and the parts that they make.

Wiring is imported when parts are asked for: a command that only reads settings does not pay for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mr.cli.output import say
from mr.settings import Settings

if TYPE_CHECKING:
    from mr.wiring import Parts


def settings(
    flags: Mapping[str, str | None] | None = None, *, development: bool = False, listens: bool = False
) -> Settings:
    """The settings of this process; what is worth a line about them, or about what `listens`, goes to stderr.

    `flags` are what the command line gave, by the variables they stand for; None where nothing was given.
    Raises: ConfigError.
    """
    given = {name: text for name, text in (flags or {}).items() if text is not None}
    found = Settings.from_env(os.environ, flags=given, development=development)
    for notice in (*found.notices, *(found.exposure() if listens else ())):
        say(f"mr: {notice}")
    return found


@contextmanager
def opened(found: Settings | None = None) -> Iterator[Parts]:
    """The parts for one command; closed at its end."""
    from mr.wiring import Parts

    parts = Parts(found or settings())
    try:
        yield parts
    finally:
        parts.close()
