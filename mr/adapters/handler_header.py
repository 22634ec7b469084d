"""What the headers of all languages have in common: their fields, one by one, and the rules across them.

Every error names file and line. `place` is `<file>:<line>` of what is looked at. Headers come from strangers too, so
sizes are bounded and nothing is taken for what it is not.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import msgspec

from mr.errors import InvalidHandler, InvalidName
from mr.model.capability import requirement
from mr.model.handler import ARGUMENT_TYPES, Handler, HandlerType

DESCRIPTION_BYTES_MAX = 64 * 1024
HEADER_BYTES_MAX = 16 * 1024
ATTEMPTS_MAX = 100

FIELDS = frozenset({"handler_type", "required_capability"})
OPTIONS = frozenset({"timeout_s", "memory_mb", "attempts"})
ARGUMENT: Mapping[HandlerType, str] = {"mapper": "arguments", "combiner": "results", "reducer": "results"}

_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


def block_of(name: str, lines: Sequence[str], comment: str) -> tuple[int, list[str]] | None:
    """The number of the line that opens the `/// mr` block, and the lines in it without their comment sign.

    None without a block. `comment` is the sign that begins a comment, e.g. `#`. Raises: InvalidHandler.
    """
    opens, closes = f"{comment} /// mr", f"{comment} ///"
    opening = [number for number, line in enumerate(lines, 1) if line.rstrip() == opens]
    if not opening:
        return None
    if len(opening) > 1:
        raise InvalidHandler(f"{name}:{opening[1]}: a second '{opens}' block; the first is in line {opening[0]}")
    block: list[str] = []
    for number, line in enumerate(lines[opening[0] :], opening[0] + 1):
        if line.rstrip() == closes:
            return opening[0], block
        if line.rstrip() != comment and not line.startswith(comment + " "):
            raise InvalidHandler(f"{name}:{number}: expected '{comment} ' or the closing '{closes}' of the block")
        block.append(line[len(comment) + 1 :])
    raise InvalidHandler(f"{name}:{opening[0]}: the '{opens}' block is not closed with '{closes}'")


def read_toml(name: str, line: int, lines: Sequence[str]) -> dict[str, Any]:
    """The fields of a block that was opened in this line. Raises: InvalidHandler."""
    block = "\n".join(lines)
    check_size(name, line, "block", block, HEADER_BYTES_MAX)
    try:
        return tomllib.loads(block)
    except tomllib.TOMLDecodeError as error:
        # Lines are counted from the block there, and from the file here.
        at = _TOML_PLACE.search(str(error))
        number = line if at is None else line + int(at[1] or len(lines))
        what = _TOML_PLACE.sub("", str(error))
        text = lines[number - line - 1].strip()[:80] if line < number <= line + len(lines) else ""
        raise InvalidHandler(f"{name}:{number}: no TOML: {what}{f', in: {text}' if text else ''}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidHandler(f"{name}:{line}: no TOML that can be read: {str(error)[:100]}") from error


def handler_of_block(
    place: str, table: Mapping[str, Any], *, source_type: str, source: str, description: str
) -> Handler:
    """The handler that the fields of a block describe, in the form `module`. Raises: InvalidHandler."""
    kind = handler_type(place, table["handler_type"])
    given = table.get("argument_spec")
    return Handler(
        description=description,
        argument_spec=[(ARGUMENT[kind], None)] if given is None else argument_spec(place, given),
        source_type=source_type,
        source_code=source,
        handler_type=kind,
        required_capability=text(place, "required_capability", table["required_capability"]),
        form="module",
        timeout_s=seconds(place, table.get("timeout_s")),
        memory_mb=whole(place, "memory_mb", table.get("memory_mb"), 2**31),
        attempts=whole(place, "attempts", table.get("attempts"), ATTEMPTS_MAX),
    )


def checked(name: str, handler: Handler) -> Handler:
    """A handler whose fields are good together, what it requires in its one spelling. Raises: InvalidHandler."""
    if handler.handler_type not in get_args(HandlerType):
        raise InvalidHandler(
            f"{name}:1: handler_type is {show(handler.handler_type)}; expected mapper, combiner or reducer"
        )
    parameter = ARGUMENT[handler.handler_type]
    declared = [argument for argument, _ in handler.argument_spec]
    if declared != [parameter]:
        raise InvalidHandler(
            f"{name}:1: Can not save {handler.handler_type.upper()} handler with invalid defined arguments: "
            f"[{', '.join(declared)}]; expected exactly [{parameter}]"
        )
    for argument, kind in handler.argument_spec:
        if kind is not None and kind not in ARGUMENT_TYPES:
            raise InvalidHandler(
                f"{name}:1: argument {argument} has the type {show(kind)}; expected null or one of "
                f"{', '.join(ARGUMENT_TYPES)}"
            )
    try:
        capability = requirement(handler.required_capability).text
    except InvalidName as error:
        raise InvalidHandler(f"{name}:1: {error.message}", hint=error.hint) from error
    return msgspec.structs.replace(handler, required_capability=capability)


def description(name: str, line: int, content: str) -> str:
    """A description without the space around it. Raises: InvalidHandler when it is too long."""
    check_size(name, line, "description", content, DESCRIPTION_BYTES_MAX)
    return content.strip()


def check_size(name: str, line: int, what: str, content: str, size_max: int) -> None:
    """Raises: InvalidHandler when a part of the header that begins in this line is too long, or no text."""
    try:
        size = len(content.encode("utf-8"))
    except UnicodeEncodeError as error:
        # Written as an escape, so the source itself was good UTF-8.
        raise InvalidHandler(f"{name}:{line}: the {what} holds a lone surrogate, which is no text") from error
    if size > size_max:
        raise InvalidHandler(f"{name}:{line}: the {what} has {size} bytes; at most {size_max} are allowed")


def fields(place: str, given_fields: Any, needed: frozenset[str], optional: frozenset[str]) -> dict[str, Any]:
    """The header's fields as a table. Raises: InvalidHandler naming those that are missing or too many."""
    if not isinstance(given_fields, dict):
        raise InvalidHandler(f"{place}: the header is {show(given_fields)}; expected the fields {_listed(needed)}")
    given = {key if isinstance(key, str) else repr(key) for key in given_fields}
    if not needed <= given <= needed | optional:
        also = f", and of {_listed(optional)} what you like" if optional else ""
        raise InvalidHandler(
            f"{place}: the header has the fields {_listed(given)}; expected exactly {_listed(needed)}{also}"
        )
    return cast("dict[str, Any]", given_fields)


def argument_spec(place: str, value: Any) -> list[tuple[str, str | None]]:
    """The value of `argument_spec`. Raises: InvalidHandler."""
    if not isinstance(value, list):
        raise InvalidHandler(f"{place}: argument_spec is {show(value)}; expected a list of {{name, type}}")
    spec: list[tuple[str, str | None]] = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"name", "type"}:
            raise InvalidHandler(f"{place}: argument_spec has {show(item)}; expected exactly the fields [name, type]")
        kind = item["type"]
        spec.append(
            (text(place, "name of an argument", item["name"]), None if kind is None else text(place, "type", kind))
        )
    return spec


def handler_type(place: str, value: Any) -> HandlerType:
    """The value of `handler_type`. Raises: InvalidHandler."""
    if value not in get_args(HandlerType):
        raise InvalidHandler(f"{place}: handler_type is {show(value)}; expected mapper, combiner or reducer")
    return cast("HandlerType", value)


def text(place: str, field: str, value: Any) -> str:
    """A field that is a text. Raises: InvalidHandler."""
    if not isinstance(value, str) or not value:
        raise InvalidHandler(f"{place}: {field} is {show(value)}; expected a text that is not empty")
    return value


def seconds(place: str, value: Any) -> float | None:
    """The value of `timeout_s`, or None. Raises: InvalidHandler."""
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise InvalidHandler(f"{place}: expected timeout_s to be a positive number of seconds, got: {show(value)}")
    return float(value)


def whole(place: str, field: str, value: Any, most: int) -> int | None:
    """A field that is a whole number, or None. Raises: InvalidHandler."""
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= most:
        raise InvalidHandler(f"{place}: expected {field} to be a whole number from 1 to {most}, got: {show(value)}")
    return value


def _listed(fields: frozenset[str] | set[str]) -> str:
    return f"[{', '.join(sorted(field[:60] for field in fields))}]"


def show(value: Any) -> str:
    """A value as errors show it."""
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
