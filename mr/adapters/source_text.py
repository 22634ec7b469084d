"""The text of a handler, whatever its language: one spelling of line ends, and what no source may hold."""

from __future__ import annotations

from mr.errors import InvalidHandler
from mr.ports.processor import SOURCE_BYTES_MAX

# Control characters that a source may hold; JSON spells each of the others with six bytes.
_CONTROLS = frozenset(map(chr, range(32))) - frozenset("\t\n\f")


def normal(source: str) -> str:
    """The source with the line ends that Python sees, so that a checkout on Windows has the same version."""
    return source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def check_text(source: str, name: str) -> None:
    """Raises: InvalidHandler when a source is too big, or holds what is no text."""
    try:
        size = len(source.encode("utf-8"))
    except UnicodeEncodeError as error:
        line = source.count("\n", 0, error.start) + 1
        raise InvalidHandler(f"{name}:{line}: holds a lone surrogate, which is no text") from error
    if size > SOURCE_BYTES_MAX:
        raise InvalidHandler(f"{name}:1: has {size} bytes; a handler has at most {SOURCE_BYTES_MAX}")
    for control in _CONTROLS:
        at = source.find(control)
        if at >= 0:
            line = source.count("\n", 0, at) + 1
            raise InvalidHandler(f"{name}:{line}: holds the control character {control!r}")
