"""A language other than Python: how its files are told, and how a process that runs them is started and spoken to.

Shipped ones and those of an operator are described by the same file (`adapters/language_file.py`); what the process
and mr say to each other is in `docs/languages.rst`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

HANDLER = "{handler}"
"""In a command: the path of the handler's file; behind all words of a command that does not name it."""
MEMORY = "{memory_mb}"
"""In a command: the megabytes that the handler may use. A language without it is limited by its address space."""
INTERPRETER = "{interpreter}"
"""In a command, as a word by itself: the words behind `#!` in the handler's first line."""


class Language(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One language. `extensions` are those of its files, lower case, no dot; `comment` begins a comment of one line.

    `command` starts a process that runs a handler; `speaks` says how: `json`, one process for many invocations, or
    `lines`, one process for each. With `keys` off, a mapper of `lines` gets its values alone. `check` is a command that
    finds mistakes of syntax without executing anything. `install` tells people what to do when the program is missing.
    `out_of_memory` has texts of which the process prints one when it dies for want of memory.
    """

    name: str
    command: tuple[str, ...]
    extensions: tuple[str, ...] = ()
    comment: str = "#"
    speaks: Literal["json", "lines"] = "json"
    keys: bool = True
    check: tuple[str, ...] = ()
    install: str = ""
    out_of_memory: tuple[str, ...] = ()

    @property
    def wants_interpreter(self) -> bool:
        """Whether the handler's own first line names the program."""
        return INTERPRETER in self.command

    def argv(self, handler: str, *, interpreter: tuple[str, ...] = (), memory_mb: int = 0) -> list[str]:
        """The command for a handler in this file."""
        return filled(self.command, handler, interpreter=interpreter, memory_mb=memory_mb)


def filled(
    command: tuple[str, ...], handler: str, *, interpreter: tuple[str, ...] = (), memory_mb: int = 0
) -> list[str]:
    """A command with everything put in for its placeholders."""
    words: list[str] = []
    for word in command:
        if word == INTERPRETER:
            words += interpreter
        else:
            words.append(word.replace(HANDLER, handler).replace(MEMORY, str(memory_mb)))
    return words if any(HANDLER in word for word in command) else [*words, handler]


def interpreter_of(source: str) -> tuple[str, ...]:
    """The words behind `#!` in the first line, as the kernel cuts them: a program and at most one argument."""
    first = source.partition("\n")[0]
    return tuple(first[2:].strip().split(None, 1)) if first.startswith("#!") else ()
