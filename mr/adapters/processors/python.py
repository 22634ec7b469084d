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
from typing import Any, Literal

import msgspec
import yaml

from mr import codec
from mr.adapters import handler_header as header
from mr.adapters.processors import python_body
from mr.adapters.source_text import normal
from mr.errors import InvalidDocument, InvalidHandler
from mr.model.handler import Handler
from mr.ports.processor import Processor

BODY_FIELDS = frozenset({"argument_spec", "handler_type", "required_capability"})


class PythonProcessor(Processor):
    """Handlers in Python, as `mr.worker` runs them."""

    source_type = "python"
    extensions = ("py",)

    def check(self, name: str, source: str) -> Handler:
        source = normal(source)
        tree = python_body.parse(source, name)
        form = _form(tree)
        return _checked(
            name, tree, form, _body_header(name, tree, source) if form == "body" else _block(name, tree, source)
        )

    def verify(self, name: str, handler: Handler) -> Handler:
        source = normal(handler.source_code)
        tree = python_body.parse(source, name)
        return _checked(name, tree, _form(tree), msgspec.structs.replace(handler, source_code=source))


def _checked(name: str, tree: ast.Module, form: Literal["body", "module"], handler: Handler) -> Handler:
    """The last checks, of fields and code together, whichever way the fields came."""
    handler = header.checked(name, handler)
    parameter = header.ARGUMENT[handler.handler_type]
    if form == "module":
        _check_handle(name, tree, parameter)
        python_body.compile_tree(tree, name)
    else:
        if not python_body.yields(tree.body):
            raise InvalidHandler(f"{name}:1: is no generator: it has no 'yield' at its top level")
        python_body.tree_as_function(tree, name, parameter)
    return msgspec.structs.replace(handler, form=form)


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
    header.check_size(name, parser_line, "header", block, header.HEADER_BYTES_MAX)
    if parser in ("", "yaml"):
        fields = _read_yaml(name, parser_line + 1, block)
    elif parser == "json":
        fields = _read_json(name, parser_line, block)
    else:
        raise InvalidHandler(
            f"{name}:{parser_line}: Parser for description is invalid: [{parser[:40]}]", hint="'yaml' or 'json'"
        )
    place = f"{name}:{parser_line}"
    table = header.fields(place, fields, BODY_FIELDS, frozenset())
    return Handler(
        description=header.description(name, first_line, "\n".join(lines[:mark])),
        argument_spec=header.argument_spec(place, table["argument_spec"]),
        source_type="python",
        source_code=source,
        handler_type=header.handler_type(place, table["handler_type"]),
        required_capability=header.text(place, "required_capability", table["required_capability"]),
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
    place = f"{name}:{line}"
    table = header.fields(place, header.read_toml(name, line, lines), header.FIELDS, header.OPTIONS | {"source_type"})
    text, first_line = _doc_string(tree)
    description = header.description(name, first_line, text or "")
    return header.handler_of_block(place, table, source_type="python", source=source, description=description)


def _block_lines(name: str, source: str) -> tuple[int, list[str]] | None:
    return header.block_of(name, source.split("\n"), "#")


def _doc_string(tree: ast.Module) -> tuple[str | None, int]:
    """The doc string as it was written, and the line on which it starts."""
    match tree.body:
        case [ast.Expr(value=ast.Constant(value=str() as text, lineno=line)), *_]:
            return text, line
    return None, 1


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
                problem = f"the key {header.show(key.value)} is {'given twice' if key.value in seen else 'not allowed'}"
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
