"""Handler versions as something that can be called.

A bare body becomes a function once, and gets new globals for each call: copying a dict of twenty names costs a tenth
of a microsecond, and no call can leave anything behind for the next. A `def handle` module is executed once for each
version and executor, at its first call, so that its import time, prints and mistakes belong to an invocation. Behind
a handler in another language stands a process (`foreign`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from mr import codec
from mr.adapters.processors.python_body import body_as_function, module_as_code
from mr.model.handler import Handler
from mr.model.language import Language
from mr.worker.children import Children
from mr.worker.json_lines import JsonLines
from mr.worker.log import Hooks
from mr.worker.memory import Memory
from mr.worker.scope import COLLECTIONS, Context, Current, Refused, build
from mr.worker.scopes import imported
from mr.worker.text_lines import TextLines

_CASTS: dict[str, Callable[[Any], Any]] = {
    "dict": dict,
    "tuple": tuple,
    "str": str,
    "int": int,
    "float": float,
    "bool": bool,
}


class Body:
    """A handler that can be called: `call(subject)` gives its generator, or what else it gives.

    `is_module` tells that it is of the `def handle` form, whose `ctx` is in `Current.context` after the call.
    """

    __slots__ = ("call", "is_module", "memory_mb", "name", "source", "version")

    def __init__(self, name: str, version: str, handler: Handler, call: Callable[[Any], Any]) -> None:
        self.name = name
        self.version = version
        self.source = handler.source_code
        is_python = handler.source_type == "python"
        self.is_module = is_python and handler.form == "module"
        # The process of another language is limited by itself.
        self.memory_mb = handler.memory_mb if is_python else None
        self.call = call


class Foreigners:
    """What handlers in other languages need of their executor."""

    def __init__(self, languages: Mapping[str, Language], children: Children, directory: str, memory: Memory) -> None:
        self._languages, self._children = languages, children
        self._directory, self._memory = directory, memory

    def call(self, handler: Handler, name: str, version: str, workflow: str, current: Current) -> Callable[[Any], Any]:
        """What calls a handler. Raises: Refused `rejected` for a language that this worker does not know."""
        language = self._languages.get(handler.source_type)
        if language is None:
            raise Refused(
                "rejected",
                f"handler {name} is in {handler.source_type}, which this worker does not know; "
                "it has to be described in the file that MR_PROCESSORS names",
            )
        talk = JsonLines if language.speaks == "json" else TextLines
        return talk(
            handler, name, version, workflow,
            language=language, current=current, children=self._children, directory=self._directory,
            memory=self._memory,
        ).call  # fmt: skip


class Bodies:
    """The handlers that an executor was told of, and those compiled so far."""

    def __init__(
        self,
        current: Current,
        hooks: Hooks,
        builtins: dict[str, Any],
        foreigners: Foreigners,
    ) -> None:
        self._current = current
        self._foreigners = foreigners
        self._hooks = hooks
        self._builtins = builtins
        self._handlers: dict[tuple[str, str], Handler] = {}
        self._bodies: dict[tuple[str, str, str], Body] = {}
        self._scopes: dict[tuple[str, str, str], tuple[bytes, str]] = {}

    def define(self, name: str, version: str, handler: Handler) -> None:
        """Remember a handler; it is compiled when it is first used."""
        self._handlers[name, version] = handler

    def give(self, name: str, version: str, workflow: str, document: bytes, problem: str) -> None:
        """Names that the site gives to a handler from now on, or why it has none."""
        key = (name, version, workflow)
        if self._scopes.get(key) != (document, problem):
            self._scopes[key] = document, problem
            self._bodies.pop(key, None)

    def get(self, name: str, version: str, workflow: str) -> Body:
        """The handler, ready to be called.

        Raises: Refused `rejected` if it was never defined or is in a language that is not known here, and
        `scope_factory` if the site could not give it its names;
        InvalidHandler if it does not compile; for a module, whatever its execution raises.
        """
        key = (name, version, workflow)
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = self._make(name, version, workflow)
        return body

    def memory_mb(self, name: str, version: str) -> int | None:
        """What the header of a handler says of its memory."""
        handler = self._handlers.get((name, version))
        return handler.memory_mb if handler is not None else None

    def source(self, name: str, version: str) -> str:
        """The source of a handler, empty if it is not known."""
        handler = self._handlers.get((name, version))
        return handler.source_code if handler is not None else ""

    def _make(self, name: str, version: str, workflow: str) -> Body:
        handler = self._handlers.get((name, version))
        if handler is None:
            raise Refused("rejected", f"handler {name} version {version} was not given to this executor")
        if handler.source_type != "python":
            return Body(name, version, handler, self._foreigners.call(handler, name, version, workflow, self._current))
        document, problem = self._scopes.get((name, version, workflow), (b"", ""))
        if problem:
            raise Refused("scope_factory", problem)
        given = _given(document)
        scope = build(self._current, name, workflow, self._hooks, self._builtins, given)
        # JobX's handlers find exactly JobX's names; this one is younger.
        if handler.form == "module" or COLLECTIONS in handler.source_code:
            scope.setdefault(COLLECTIONS, self._current.collections(workflow))
        if handler.form == "module":
            call = self._module(handler, name, scope)
        else:
            call = _body(handler, name, scope, document if _may_change(given) else b"")
        return Body(name, version, handler, call)

    def _module(self, handler: Handler, name: str, scope: dict[str, Any]) -> Callable[[Any], Any]:
        module = ModuleType(scope["__name__"])
        module.__dict__.update(scope)
        # Dataclasses and type hints look their module up by name.
        sys.modules[module.__name__] = module
        exec(module_as_code(handler.source_code, name), module.__dict__)
        handle = module.__dict__.get("handle")
        if not callable(handle):
            raise Refused("rejected", f"handler {name} defines no function handle")
        current, entry = self._current, handle
        # `results` of this form is an iterator, so that a handler written for small data also takes big.
        streams = handler.handler_type != "mapper"

        def call(subject: Any) -> Any:
            context = current.context = Context(current, scope, current.request, current.path, current.child)
            return entry(iter(subject) if streams else subject, context)

        return call


def _given(document: bytes) -> dict[str, Any]:
    """The names in a document of the site's."""
    if not document:
        return {}
    found = codec.loads(document)
    names: dict[str, Any] = found["values"]
    for name, reference in found["imports"].items():
        try:
            names[name] = imported(reference)
        except Exception as error:  # the site's own module
            problem = f"{name}, which the site gives to handlers, cannot be imported: {type(error).__name__}: {error}"
            raise Refused("scope_factory", problem) from error
    return names


def _may_change(given: Mapping[str, Any]) -> bool:
    """Whether a call could leave something in it for the next."""
    return any(isinstance(value, list | dict) for value in given.values())


def _body(handler: Handler, name: str, scope: dict[str, Any], document: bytes) -> Callable[[Any], Any]:
    parameter, kind = handler.argument_spec[0]
    code = _function_code(body_as_function(handler.source_code, name, parameter))
    copy = scope.copy if not document else lambda: scope | _given(document)
    cast = _CASTS.get(kind) if kind is not None else None
    if cast is None:
        return lambda subject: FunctionType(code, copy())(subject)
    change = cast
    return lambda subject: FunctionType(code, copy())(change(subject))


def _function_code(module: CodeType) -> CodeType:
    for constant in module.co_consts:
        if isinstance(constant, CodeType) and constant.co_name == "handle":
            return constant
    raise AssertionError("a compiled body defines the function handle")
