'''Python handlers: their two forms, told apart and checked by parsing alone.

    a bare body                                 a module
    """Split the text.                          """Split the text."""
    **                                          # /// mr
    argument_spec:                              # handler_type = "mapper"
      - {name: arguments, type: list}           # required_capability = "none"
    handler_type: mapper                        # ///
    required_capability: none                   def handle(arguments, ctx):
    """                                             ctx.map_to("count")
    yield MrConfigureToMap("count")                 yield "key", "value"
    yield "key", "value"

A file with a top-level `def handle` and no top-level `yield` is a module, everything else a body. The text after
`**` names what the rest of a body's doc string is written in: YAML (nothing, `yaml`) or JSON (`json`).

The hard part is to be strict with headers, which come from strangers too: YAML without aliases (they multiply),
without tags that make objects, without keys given twice; and to name the line of the file in every error.
'''

from __future__ import annotations

import ast
import math
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

import msgspec
import yaml

from mr import codec
from mr.adapters.processors import python_body
from mr.errors import InvalidDocument, InvalidHandler, InvalidName
from mr.model.capability import requirement
from mr.model.handler import ARGUMENT_TYPES, Handler, HandlerType
from mr.ports.processor import Processor

DESCRIPTION_BYTES_MAX = 64 * 1024
HEADER_BYTES_MAX = 16 * 1024
ATTEMPTS_MAX = 100

BODY_FIELDS = frozenset({"argument_spec", "handler_type", "required_capability"})
MODULE_FIELDS = frozenset({"handler_type", "required_capability"})
MODULE_OPTIONS = frozenset({"timeout_s", "memory_mb", "attempts"})
ARGUMENT: Mapping[HandlerType, str] = {"mapper": "arguments", "combiner": "results", "reducer": "results"}

_TOML_LINE = re.compile(r"at line (\d+)")


class PythonProcessor(Processor):
    """Handlers in Python, as `mr.worker` runs them."""

    source_type = "python"
    extensions = ("py",)

    def check(self, name: str, source: str) -> Handler:
        source = python_body.normal(source)
        tree = python_body.parse(source, name)
        form = _form(tree)
        return _checked(
            name, tree, form, _body_header(name, tree, source) if form == "body" else _block(name, tree, source)
        )

    def verify(self, name: str, handler: Handler) -> Handler:
        source = python_body.normal(handler.source_code)
        tree = python_body.parse(source, name)
        return _checked(name, tree, _form(tree), msgspec.structs.replace(handler, source_code=source))


def _checked(name: str, tree: ast.Module, form: Literal["body", "module"], handler: Handler) -> Handler:
    """The last checks, of fields and code together, whichever way the fields came."""
    if handler.handler_type not in get_args(HandlerType):
        raise InvalidHandler(
            f"{name}:1: handler_type is {_show(handler.handler_type)}; expected mapper, combiner or reducer"
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
                f"{name}:1: argument {argument} has the type {_show(kind)}; expected null or one of "
                f"{', '.join(ARGUMENT_TYPES)}"
            )
    try:
        capability = requirement(handler.required_capability).text
    except InvalidName as error:
        raise InvalidHandler(f"{name}:1: {error.message}", hint=error.hint) from error
    if form == "module":
        _check_handle(name, tree, parameter)
        python_body.compile_tree(tree, name)
    else:
        if not python_body.yields(tree.body):
            raise InvalidHandler(f"{name}:1: is no generator: it has no 'yield' at its top level")
        python_body.tree_as_function(tree, name, parameter)
    return msgspec.structs.replace(handler, required_capability=capability, form=form)


def _form(tree: ast.Module) -> Literal["body", "module"]:
    return "module" if _handles(tree) and not python_body.yields(tree.body) else "body"


def _handles(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        statement
        for statement in tree.body
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == "handle"
    ]


def _check_handle(name: str, tree: ast.Module, parameter: str) -> None:
    first, *others = _handles(tree)
    if others:
        raise InvalidHandler(f"{name}:{others[0].lineno}: 'handle' is defined again; first in line {first.lineno}")
    expected = f"def handle({parameter}, ctx)"
    given = first.args
    plain = [argument.arg for argument in given.args]
    extras = [*given.posonlyargs, *given.kwonlyargs, *given.defaults, given.vararg, given.kwarg]
    if isinstance(first, ast.AsyncFunctionDef) or plain != [parameter, "ctx"] or any(extras):
        kind = "async def" if isinstance(first, ast.AsyncFunctionDef) else "def"
        raise InvalidHandler(f"{name}:{first.lineno}: expected {expected}, got: {kind} handle({ast.unparse(given)})")
    if not python_body.yields(first.body):
        raise InvalidHandler(f"{name}:{first.lineno}: is no generator: 'handle' has no 'yield' of its own")


def _body_header(name: str, tree: ast.Module, source: str) -> Handler:
    """The handler that the doc string of a bare body describes."""
    text, first_line = _doc_string(tree)
    if text is None:
        if (opened := _block_lines(name, source)) is not None:
            raise InvalidHandler(f"{name}:{opened[0]}: has a '# /// mr' block, but no top-level 'def handle'")
        raise InvalidHandler(
            f"{name}:1: has no header: its first statement is no doc string",
            hint="a doc string with a '**' line, or a '# /// mr' block and 'def handle'",
        )
    lines = text.split("\n")
    mark = next((number for number, line in enumerate(lines) if line.startswith("**")), None)
    if mark is None:
        raise InvalidHandler(
            f"{name}:{first_line}: No description could be isolated.",
            hint="the doc string needs a line that starts with '**', and the header below it",
        )
    block = "\n".join(lines[mark + 1 :])
    parser, parser_line = lines[mark][2:].strip().lower(), first_line + mark
    _check_size(name, parser_line, "header", block, HEADER_BYTES_MAX)
    if parser in ("", "yaml"):
        fields = _read_yaml(name, parser_line + 1, block)
    elif parser == "json":
        fields = _read_json(name, parser_line, block)
    else:
        raise InvalidHandler(
            f"{name}:{parser_line}: Parser for description is invalid: [{parser[:40]}]", hint="'yaml' or 'json'"
        )
    place = f"{name}:{parser_line}"
    table = _fields(place, fields, BODY_FIELDS, frozenset())
    return Handler(
        description=_description(name, first_line, "\n".join(lines[:mark])),
        argument_spec=_argument_spec(place, table["argument_spec"]),
        source_type="python",
        source_code=source,
        handler_type=_handler_type(place, table["handler_type"]),
        required_capability=_text(place, "required_capability", table["required_capability"]),
    )


def _block(name: str, tree: ast.Module, source: str) -> Handler:
    """The handler that the `# /// mr` block of a module describes."""
    found = _block_lines(name, source)
    if found is None:
        raise InvalidHandler(
            f"{name}:{_handles(tree)[0].lineno}: has 'def handle', but no '# /// mr' block",
            hint="it needs handler_type and required_capability, in TOML, up to a line '# ///'",
        )
    line, lines = found
    place, block = f"{name}:{line}", "\n".join(lines)
    _check_size(name, line, "block", block, HEADER_BYTES_MAX)
    try:
        fields = tomllib.loads(block)
    except tomllib.TOMLDecodeError as error:
        at = _TOML_LINE.search(str(error))
        raise InvalidHandler(f"{name}:{line + int(at[1]) if at else line}: no TOML: {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidHandler(f"{place}: no TOML that can be read: {str(error)[:100]}") from error
    table = _fields(place, fields, MODULE_FIELDS, MODULE_OPTIONS)
    handler_type = _handler_type(place, table["handler_type"])
    text, first_line = _doc_string(tree)
    return Handler(
        description=_description(name, first_line, text or ""),
        argument_spec=[(ARGUMENT[handler_type], None)],
        source_type="python",
        source_code=source,
        handler_type=handler_type,
        required_capability=_text(place, "required_capability", table["required_capability"]),
        form="module",
        timeout_s=_seconds(place, table.get("timeout_s")),
        memory_mb=_whole(place, "memory_mb", table.get("memory_mb"), 2**31),
        attempts=_whole(place, "attempts", table.get("attempts"), ATTEMPTS_MAX),
    )


def _block_lines(name: str, source: str) -> tuple[int, list[str]] | None:
    """The number of the line that opens the block, and the lines in it without their `#`; None without a block."""
    lines = source.split("\n")
    opening = [number for number, line in enumerate(lines, 1) if line.rstrip() == "# /// mr"]
    if not opening:
        return None
    if len(opening) > 1:
        raise InvalidHandler(f"{name}:{opening[1]}: a second '# /// mr' block; the first is in line {opening[0]}")
    block: list[str] = []
    for number, line in enumerate(lines[opening[0] :], opening[0] + 1):
        if line.rstrip() == "# ///":
            return opening[0], block
        if line.rstrip() != "#" and not line.startswith("# "):
            raise InvalidHandler(f"{name}:{number}: expected '# ' or the closing '# ///' of the '# /// mr' block")
        block.append(line[2:])
    raise InvalidHandler(f"{name}:{opening[0]}: the '# /// mr' block is not closed with '# ///'")


def _doc_string(tree: ast.Module) -> tuple[str | None, int]:
    """The doc string as it was written, and the line on which it starts."""
    match tree.body:
        case [ast.Expr(value=ast.Constant(value=str() as text, lineno=line)), *_]:
            return text, line
    return None, 1


def _description(name: str, line: int, text: str) -> str:
    _check_size(name, line, "description", text, DESCRIPTION_BYTES_MAX)
    return text.strip()


def _check_size(name: str, line: int, what: str, text: str, size_max: int) -> None:
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        # Written as an escape, so the source itself was good UTF-8.
        raise InvalidHandler(f"{name}:{line}: the {what} holds a lone surrogate, which is no text") from error
    if size > size_max:
        raise InvalidHandler(f"{name}:{line}: the {what} has {size} bytes; at most {size_max} are allowed")


class _HeaderLoader(yaml.SafeLoader):
    """YAML of plain data, without aliases and without keys that are given twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise yaml.constructor.ConstructorError(None, None, "aliases are not allowed in a header", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            # A merge key ('<<') gives keys a second time without showing it.
            if key.value in seen or key.value == "<<":
                problem = f"the key {_show(key.value)} is {'given twice' if key.value in seen else 'not allowed'}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _read_yaml(name: str, line: int, block: str) -> Any:
    try:
        loader = _HeaderLoader(block)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        at = line + (error.problem_mark.line if error.problem_mark else 0)
        raise InvalidHandler(f"{name}:{at}: no YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidHandler(f"{name}:{line}: no YAML that can be read: {str(error)[:100]}") from error


def _read_json(name: str, line: int, block: str) -> Any:
    try:
        return codec.loads(block.encode("utf-8"))
    except InvalidDocument as error:
        raise InvalidHandler(f"{name}:{line}: no JSON: {error.message}") from error


def _fields(place: str, fields: Any, needed: frozenset[str], optional: frozenset[str]) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise InvalidHandler(f"{place}: the header is {_show(fields)}; expected the fields {_list(needed)}")
    given = {key if isinstance(key, str) else repr(key) for key in fields}
    if not needed <= given <= needed | optional:
        also = f", and of {_list(optional)} what you like" if optional else ""
        raise InvalidHandler(
            f"{place}: the header has the fields {_list(given)}; expected exactly {_list(needed)}{also}"
        )
    return cast("dict[str, Any]", fields)


def _argument_spec(place: str, value: Any) -> list[tuple[str, str | None]]:
    if not isinstance(value, list):
        raise InvalidHandler(f"{place}: argument_spec is {_show(value)}; expected a list of {{name, type}}")
    spec: list[tuple[str, str | None]] = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"name", "type"}:
            raise InvalidHandler(f"{place}: argument_spec has {_show(item)}; expected exactly the fields [name, type]")
        kind = item["type"]
        spec.append(
            (_text(place, "name of an argument", item["name"]), None if kind is None else _text(place, "type", kind))
        )
    return spec


def _handler_type(place: str, value: Any) -> HandlerType:
    if value not in get_args(HandlerType):
        raise InvalidHandler(f"{place}: handler_type is {_show(value)}; expected mapper, combiner or reducer")
    return cast("HandlerType", value)


def _text(place: str, field: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidHandler(f"{place}: {field} is {_show(value)}; expected a text that is not empty")
    return value


def _seconds(place: str, value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise InvalidHandler(f"{place}: expected timeout_s to be a positive number of seconds, got: {_show(value)}")
    return float(value)


def _whole(place: str, field: str, value: Any, most: int) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 < value <= most:
        raise InvalidHandler(f"{place}: expected {field} to be a whole number from 1 to {most}, got: {_show(value)}")
    return value


def _list(fields: frozenset[str] | set[str]) -> str:
    return f"[{', '.join(sorted(field[:60] for field in fields))}]"


def _show(value: Any) -> str:
    shown = "null" if value is None else repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
