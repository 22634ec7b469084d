"""A template: text of an operator's in which `%(name)s` stands for a value, and `%%` for a percent sign.

It looks like Python's own formatting and is much less: nothing else after a percent sign is known, so no template can
ask for a million blanks. What is wrong with one is found when it is read, not when the first value is to be filled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

_PLACE = re.compile(r"%(?:\((\w+)\)s|%)")


class Template(msgspec.Struct, frozen=True):
    """Text that was checked by `parse`."""

    text: str

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with the values in their places."""
        return _PLACE.sub(lambda place: values[place[1]] if place[1] else "%", self.text)

    def __str__(self) -> str:
        return self.text


def parse(text: str, known: tuple[str, ...], *, lines: bool = True) -> Template:
    """Check a template that may name these values; `lines`: it may have more than one line.

    Raises: ValueError with what was expected.
    """
    words = [f"%({name})s" for name in known]
    expectation = f"text with {', '.join(words[:-1])} and {words[-1]} for values, and %% for a percent sign"
    if "%" in _PLACE.sub("", text):
        raise ValueError(expectation)
    if unknown := sorted({place for place in _PLACE.findall(text) if place} - set(known)):
        raise ValueError(f"{expectation} (there is no value {', '.join(unknown)})")
    if not lines and not text.isprintable():
        raise ValueError(f"one line of {expectation}")
    return Template(text)
