"""Handlers in other languages: for the runner a generator of pairs like any other, behind which a process stands.

    runner ◀── pairs ── generator ◀── lines ── child          `json_lines`, `text_lines`: what the lines say

What is common to both ways of speaking is here: the command, the file with the source, and how a death is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from os import X_OK, access, environ, makedirs
from typing import Any

from mr.model.handler import Handler
from mr.model.language import MEMORY, Language, interpreter_of
from mr.worker.children import Child, Children, signal_name
from mr.worker.memory import MEGABYTE, Memory
from mr.worker.scope import Current, Refused

_FILES = "handlers"
STACK_MAX = 16 * 1024
DYING_S = 2.0
"""How long a process that has closed its stdout may take to end."""
_open_file = open


class Told(Exception):
    """A handler in another language has failed, and this is what its language says of it."""

    def __init__(self, class_: str, kind: str, message: str, stack: str) -> None:
        super().__init__(message)
        self.class_ = class_
        self.kind = kind
        self.stack = stack


class Foreign:
    """One version of a handler. `call(subject)` gives its generator; subclasses say how it talks."""

    def __init__(
        self,
        handler: Handler,
        name: str,
        version: str,
        workflow: str,
        *,
        language: Language,
        current: Current,
        children: Children,
        directory: str,
        memory: Memory,
    ) -> None:
        self.name, self.version, self.workflow = name, version, workflow
        self.kind = {"mapper": "map", "combiner": "combine", "reducer": "reduce"}[handler.handler_type]
        self.language, self.current, self.children = language, current, children
        self._source, self._memory_mb, self._memory = handler.source_code, handler.memory_mb, memory
        self.directory = directory
        extension = language.extensions[-1] if language.extensions else "txt"
        self.path = os.path.join(directory, _FILES, f"{name}-{version}.{extension}")

    def call(self, subject: Any) -> Iterator[Any]:
        """What the handler yields for arguments or results; a mapper's first element says where the pairs go."""
        raise NotImplementedError

    def start(self, more: dict[str, str] | None = None) -> Child:
        """A new process for this handler. Raises: Refused `rejected` when its program is not on this machine."""
        interpreter = interpreter_of(self._source)
        limit_mb = self._memory.share_mb(self._memory_mb)
        argv = self.language.argv(self.path, interpreter=interpreter, memory_mb=limit_mb)
        missing = _missing(argv)
        if missing:
            raise Refused(
                "rejected",
                f"handler {self.name} is in {self.language.name}, and this worker has no {missing} on its PATH; "
                f"{self.language.install or f'install {missing}'}, or have the handler require a capability that only "
                "workers with it offer",
            )
        # Written anew each time: handlers share the folder, and may have done anything to what is in it.
        makedirs(os.path.dirname(self.path), 0o700, exist_ok=True)
        with _open_file(self.path, "w", encoding="utf-8") as file:
            file.write(self._source)
        limits_itself = any(MEMORY in word for word in self.language.command)
        try:
            return Child(
                argv, self.current.capture, self.directory,
                environ={**environ, "MR_HANDLER": self.name, **(more or {})},
                memory_bytes=None if limits_itself or not limit_mb else limit_mb * MEGABYTE,
            )  # fmt: skip
        except OSError as error:
            raise Refused("rejected", f"handler {self.name}: {argv[0]} does not start: {error.strerror}") from error

    def death(self, child: Child, when: str) -> Told:
        """The failure of a handler whose process ended by itself."""
        code = child.wait(DYING_S)
        stack = self.shown(child.told)
        if code is None:
            return Told("protocol", "ProtocolError", f"its process closed its stdout {when}", stack)
        if self.lacks_memory(child):
            return Told("memory", "OutOfMemory", f"{self.language.name} ran out of memory", stack)
        if code < 0:
            class_ = "lost_worker" if code == -9 else "signal"
            return Told(class_, "ProcessDied", f"its process was ended by {signal_name(code)} {when}", stack)
        return Told("exit", "ProcessDied", f"its process exited with code {code} {when}", stack)

    def lacks_memory(self, child: Child) -> bool:
        """Whether the process said that memory ran out."""
        return any(sign.encode() in child.told for sign in self.language.out_of_memory)

    def shown(self, told: bytes | str) -> str:
        """A stack, or what was said on stderr, with the handler in place of the path of its file."""
        text = told.decode("utf-8", "replace") if isinstance(told, bytes) else told
        return text.replace(f"file://{self.path}", f"handler({self.name})").replace(self.path, f"handler({self.name})")


def _missing(argv: list[str]) -> str:
    """The program of a command that is not there; also the one that `env` would look for."""
    path = environ.get("PATH", os.defpath)
    for program in argv[:2] if os.path.basename(argv[0]) == "env" else argv[:1]:
        if program.startswith("-") or "=" in program:
            continue
        places = (
            [program] if os.sep in program else [os.path.join(folder, program) for folder in path.split(os.pathsep)]
        )
        if not any(os.path.isfile(place) and access(place, X_OK) for place in places):
            return program
    return ""
