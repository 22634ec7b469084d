"""Handlers in languages that a command runs: a header in leading comments, and code that is only looked at.

    // /// mr                                   the comment sign is the language's own
    // handler_type = "mapper"
    // required_capability = "none"
    // ///
    // Words of each text.                      what else stands in leading comments describes the handler

    export function* handle(args, ctx) { … }

Where the language has a program that finds mistakes of syntax without executing anything, and this machine has it, it
is asked; a worker without it is no reason to refuse a handler.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from mr.adapters import handler_header as header
from mr.adapters.source_text import check_text, normal
from mr.errors import InvalidHandler
from mr.model.handler import Handler
from mr.model.language import Language, filled, interpreter_of
from mr.ports.processor import Processor

CHECK_S = 20.0
OPTIONS = header.OPTIONS | {"argument_spec", "source_type"}


class CommandProcessor(Processor):
    """Handlers in one such language."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self.source_type = language.name
        self.extensions = language.extensions

    def check(self, name: str, source: str) -> Handler:
        source = normal(source)
        check_text(source, name)
        return self._checked(name, self._described(name, source))

    def verify(self, name: str, handler: Handler) -> Handler:
        source = normal(handler.source_code)
        check_text(source, name)
        return self._checked(name, msgspec.structs.replace(handler, source_code=source, form="module"))

    def _described(self, name: str, source: str) -> Handler:
        sign = self._language.comment
        lines = _leading(source, sign)
        found = header.block_of(name, lines, sign)
        if found is None:
            raise InvalidHandler(
                f"{name}:1: has no header: no line '{sign} /// mr' among its leading comments",
                hint=f"it needs handler_type and required_capability, in TOML, up to a line '{sign} ///'",
            )
        line, block = found
        place = f"{name}:{line}"
        table = header.fields(place, header.read_toml(name, line, block), header.FIELDS, OPTIONS)
        named = table.get("source_type", self.source_type)
        if named != self.source_type:
            raise InvalidHandler(f"{place}: source_type is {header.show(named)} in a file that is {self.source_type}")
        beside = lines[: line - 1] + lines[line + len(block) + 1 :]
        text = "\n".join(one[len(sign) :].removeprefix(" ") for one in beside if not one.startswith("#!"))
        return header.handler_of_block(
            place, table, source_type=self.source_type, source=source, description=header.description(name, 1, text)
        )

    def _checked(self, name: str, handler: Handler) -> Handler:
        handler = header.checked(name, handler)
        if self._language.wants_interpreter and not interpreter_of(handler.source_code):
            raise InvalidHandler(f"{name}:1: does not begin with '#!' and the program that runs it")
        self._check_syntax(name, handler.source_code)
        return handler

    def _check_syntax(self, name: str, source: str) -> None:
        language = self._language
        if not language.check or shutil.which(language.check[0]) is None:
            return
        extension = language.extensions[-1] if language.extensions else "txt"
        with tempfile.TemporaryDirectory(prefix="mr-check-") as folder:
            file = Path(folder, f"handler.{extension}")
            file.write_text(source, encoding="utf-8")
            try:
                done = subprocess.run(
                    filled(language.check, str(file)), cwd=folder, env={"PATH": os.environ.get("PATH", os.defpath)},
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=CHECK_S,
                    check=False,
                )  # fmt: skip
            except (subprocess.TimeoutExpired, OSError):
                return  # what runs it will tell
        if done.returncode:
            said = done.stdout.decode("utf-8", "replace")
            at = re.search(re.escape(str(file)) + r":\s*(?:line )?(\d+)", said)
            raise InvalidHandler(f"{name}:{at[1] if at else 1}: {_mistake(said, str(file))}")


def _leading(source: str, sign: str) -> list[str]:
    """The comments that a file begins with, and the empty lines between them."""
    lines: list[str] = []
    for line in source.split("\n"):
        if line.strip() and not line.startswith((sign, "#!")):
            break
        lines.append(line)
    return lines


def _mistake(said: str, file: str) -> str:
    """The line that names the mistake: that of an error, else the first."""
    lines = [line.strip().removeprefix(file) for line in said.splitlines() if line.strip()]
    told = next((line for line in lines if re.search(r"\berror\b|Error\b", line)), lines[0] if lines else "")
    return re.sub(r"^.*?:\s*(?:line )?\d+:\s*", "", told.replace(file, ""))[:300] or "is refused by its language"
