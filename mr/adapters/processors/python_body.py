"""Python source as code objects, never executed here: used where handlers are checked and where they run.

A bare body has `yield` and `return` at its top level. Python parses that without complaint and refuses it only when
it compiles, so the body is parsed as it stands and its syntax tree, not its text, is moved into a function. Nothing
is indented: string literals keep their lines and tracebacks show the line numbers of the file.

The hard part is source that wants to hurt the parser. What CPython 3.11 was seen to do, and the guard:

    100,000 `for` in one comprehension   the compiler overflows the C stack   at most CLAUSES_MAX
    returns under nested `finally`       code doubles with each level         estimated size at most WEIGHT_MAX
    deep expressions, 5 MB of source     MemoryError, RecursionError          caught; SOURCE_BYTES_MAX
"""

from __future__ import annotations

import ast
from types import CodeType

from mr.adapters.source_text import check_text, normal
from mr.errors import InvalidHandler

CLAUSES_MAX = 100
WEIGHT_MAX = 3_000_000

_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_TRIES = (ast.Try, ast.TryStar)


def parse(source: str, name: str) -> ast.Module:
    """The syntax tree of a normal source; top-level `yield`, `return` and `await` are not refused here.

    Raises: InvalidHandler with `<name>:<line>: <problem>`, also for source made to exhaust the parser.
    """
    check_text(source, name)
    try:
        tree = ast.parse(source, filename=name)
    except SyntaxError as error:
        raise _syntax(error, name) from error
    except (ValueError, OverflowError) as error:
        raise InvalidHandler(f"{name}:1: cannot be parsed: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise InvalidHandler(f"{name}:1: is nested too deeply to be parsed") from error
    _check_weight(tree, name)
    return tree


def body_as_function(source: str, name: str, parameter: str) -> CodeType:
    """A bare body as code of a module that defines `handle(<parameter>)`; its file name is `handler(<name>)`.

    Raises: InvalidHandler, also when the body holds what no function may hold.
    """
    label = f"handler({name})"
    return tree_as_function(parse(normal(source), label), label, parameter)


def module_as_code(source: str, name: str) -> CodeType:
    """A file with `def handle` as code of a module; its file name is `handler(<name>)`.

    Raises: InvalidHandler.
    """
    label = f"handler({name})"
    return compile_tree(parse(normal(source), label), label)


def tree_as_function(tree: ast.Module, label: str, parameter: str) -> CodeType:
    """What `body_as_function` does, from a tree that `parse` made; the tree stays as it is."""
    if not tree.body:
        raise InvalidHandler(f"{label}:1: is empty")
    # The frame comes from the parser too, so that it has every field which this version of Python wants.
    module = ast.parse(f"def handle({parameter}): pass", filename=label)
    function = module.body[0]
    assert isinstance(function, ast.FunctionDef)
    function.body = tree.body
    return compile_tree(module, label)


def compile_tree(tree: ast.Module, label: str) -> CodeType:
    """A tree that `parse` made as code.

    Raises: InvalidHandler for what Python finds only now: a `return` outside, `await`, `nonlocal`, `__future__`.
    """
    try:
        # dont_inherit: else this file's own __future__ imports would be the handler's as well.
        code: CodeType = compile(tree, label, "exec", dont_inherit=True)
    except SyntaxError as error:
        raise _syntax(error, label) from error
    except (ValueError, OverflowError) as error:
        raise InvalidHandler(f"{label}:1: cannot be compiled: {error}") from error
    except (RecursionError, MemoryError) as error:
        raise InvalidHandler(f"{label}:1: is nested too deeply to be compiled") from error
    return code


def yields(statements: list[ast.stmt]) -> bool:
    """Whether the statements yield at their own level, not in a function or lambda inside."""
    waiting: list[ast.AST] = list(statements)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        # Decorators and defaults of an inner function belong to the level that it stands on, its body does not.
        inside: list[ast.AST] = []
        if isinstance(node, ast.Lambda):
            inside = [node.body]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = [*node.body]
        skipped = {id(statement) for statement in inside}
        waiting.extend(child for child in ast.iter_child_nodes(node) if id(child) not in skipped)
    return False


def _check_weight(tree: ast.Module, name: str) -> None:
    nodes = list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, _COMPREHENSIONS) and len(node.generators) > CLAUSES_MAX:
            raise InvalidHandler(f"{name}:{node.lineno}: a comprehension has more than {CLAUSES_MAX} 'for' clauses")
    if not any(isinstance(node, _TRIES) and node.finalbody for node in nodes):
        return
    # The compiler writes a `finally` once for each way out of its `try`, and the ways out inside of it as often.
    # Children come after their parents in `nodes`, so going backwards adds up from the leaves without recursion.
    weights: dict[int, int] = {}
    ways: dict[int, int] = {}
    for node in reversed(nodes):
        children = [id(child) for child in ast.iter_child_nodes(node)]
        weight = 1 + sum(weights[child] for child in children)
        ways_out = sum(ways[child] for child in children) + isinstance(node, ast.Return | ast.Break | ast.Continue)
        if isinstance(node, _TRIES):
            finally_ways = sum(ways[id(child)] for child in node.finalbody)
            copies = ways_out - finally_ways + 2
            weight += (copies - 1) * sum(weights[id(child)] for child in node.finalbody)
            ways_out += (copies - 1) * finally_ways
        weights[id(node)], ways[id(node)] = weight, ways_out
    if weights[id(tree)] > WEIGHT_MAX:
        raise InvalidHandler(f"{name}:1: too many ways out of nested 'finally' blocks")


def _syntax(error: SyntaxError, name: str) -> InvalidHandler:
    return InvalidHandler(f"{name}:{error.lineno or 1}: {error.msg}")
