"""Scopes: the names that a site gives to its handlers, by a class of its own.

The class runs here, beside the supervisor, where the site's credentials are; an executor gets what it gave, by frame.
So a value is JSON, or a function, class or module that an executor can import by its name. Values are kept in memory
for a minute, and neither stored nor logged; messages name them, and their types.

The hard part is that it is somebody's code, which may ask a server that hangs. It runs in threads, its answer has a
time-out, and whatever goes wrong in it becomes the error of the invocation that needed it, told by the executor.
"""

from __future__ import annotations

import importlib
import keyword
import threading
import time
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Protocol

import msgspec

from mr import codec
from mr.errors import ConfigError, ValueRefused
from mr.model.handler import Handler

VARIABLE = "MR_WORKFLOW_SCOPE_FACTORY_FQ_CLASS"
KEEP_S = 60.0
"""How long what it gave is used before it is asked again."""
KEEP_PROBLEM_S = 1.0
TIMEOUT_S = 10.0
DOCUMENT_MAX = 1024 * 1024
MESSAGE_MAX = 1000


class HandlerDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """What a scope factory is told of a handler."""

    name: str
    version: str
    workflow_name: str
    handler_type: str
    source_type: str
    required_capability: str


class ScopeFactory(Protocol):
    """What the class named by MR_WORKFLOW_SCOPE_FACTORY_FQ_CLASS offers. Asked from several threads at once."""

    def get_handler_scope_factory(self, workflow: str) -> Any:
        """An object whose `get_scope(handler_definition)` gives a dict of names."""


class Given(msgspec.Struct, frozen=True):
    """What a handler is given. `document` has `values`, and `imports` as `module:name`; or there is a problem."""

    document: bytes
    problem: str = ""

    def __repr__(self) -> str:
        return f"Given(document=***, problem={self.problem!r})"


class Scopes:
    """Asks the factory and keeps what it gave. Safe to use from several threads.

    Raises: ConfigError when the class cannot be made, or is no scope factory.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._factory = _load(path) if path else None
        self._given: dict[tuple[str, str, str], tuple[float, Given]] = {}

    def is_ready(self, w: str, name: str, version: str) -> bool:
        """Whether nobody has to be asked before this handler runs."""
        if self._factory is None:
            return True
        found = self._given.get((w, name, version))
        return found is not None and time.monotonic() < found[0]

    def ask(self, w: str, name: str, version: str, handler: Handler) -> None:
        """Have the scope of a handler at hand. Waits for the factory; never raises."""
        if self._factory is None or self.is_ready(w, name, version):
            return
        definition = HandlerDefinition(
            name=name, version=version, workflow_name=w, handler_type=handler.handler_type,
            source_type=handler.source_type, required_capability=handler.required_capability,
        )  # fmt: skip
        given = self._asked(definition)
        keep_s = KEEP_PROBLEM_S if given.problem else KEEP_S
        self._given[w, name, version] = time.monotonic() + keep_s, given

    def given(self, w: str, name: str, version: str) -> Given | None:
        """What was given last; None where there is no factory."""
        found = self._given.get((w, name, version))
        return found[1] if found is not None else None

    def _asked(self, definition: HandlerDefinition) -> Given:
        told: list[Given] = []
        thread = threading.Thread(target=lambda: told.append(self._answer(definition)), name="scope", daemon=True)
        thread.start()
        thread.join(TIMEOUT_S)
        if told:
            return told[0]
        return self._problem(definition, f"it did not answer in {TIMEOUT_S:g} s")

    def _answer(self, definition: HandlerDefinition) -> Given:
        assert self._factory is not None
        try:
            found = self._factory.get_handler_scope_factory(definition.workflow_name).get_scope(definition)
        except BaseException as error:  # the site's own code: anything may go wrong in it
            return self._problem(definition, f"{type(error).__name__}: {_text(error)}")
        try:
            return Given(_document(found))
        except ValueRefused as error:
            return self._problem(definition, error.message)

    def _problem(self, definition: HandlerDefinition, what: str) -> Given:
        told = f"the scope factory {self._path} gives no scope for handler {definition.name}: {what}"
        return Given(b"", told[:MESSAGE_MAX].encode("utf-8", "backslashreplace").decode())


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception of the site's own, whose text cannot be made
        return "(no text)"


def _load(path: str) -> ScopeFactory:
    module, _, name = path.rpartition(".")
    try:
        factory: ScopeFactory = getattr(importlib.import_module(module), name)()
    except Exception as error:  # the site's own code: anything may go wrong in it
        raise ConfigError(
            [f"{VARIABLE}: expected a class that can be made, got: {path} ({type(error).__name__}: {error})"]
        ) from error
    if not callable(getattr(factory, "get_handler_scope_factory", None)):
        raise ConfigError(
            [f"{VARIABLE}: expected a scope factory, with get_handler_scope_factory(workflow), got: {path}"]
        )
    return factory


def _document(scope: object) -> bytes:
    """The names as an executor gets them. Raises: ValueRefused, which tells names and types only."""
    if not isinstance(scope, dict):
        raise ValueRefused(f"it gave a {type(scope).__name__}, expected a dict of names")
    values: dict[str, msgspec.Raw] = {}
    imports: dict[str, str] = {}
    for name, value in scope.items():
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
            raise ValueRefused(f"a name of it is none: {str(name)[:100]!r}")
        if (reference := _reference(value)) is not None:
            imports[name] = reference
            continue
        try:
            values[name] = msgspec.Raw(codec.dumps(value))
        except (ValueRefused, UnicodeEncodeError) as error:
            kind = type(value).__name__
            raise ValueRefused(
                f"{name} is a {kind}; expected JSON, or a function, class or module that can be imported by its name"
            ) from error
    document = codec.encode({"values": values, "imports": imports})
    if len(document) > DOCUMENT_MAX:
        raise ValueRefused(f"it has {len(document)} bytes as JSON; the limit is {DOCUMENT_MAX}")
    return document


def _reference(value: object) -> str | None:
    """`module:name` of what can be imported by it."""
    if isinstance(value, ModuleType):
        return f"{value.__name__}:"
    if not isinstance(value, FunctionType | BuiltinFunctionType | type):
        return None
    module, name = value.__module__, value.__qualname__
    try:
        found = imported(f"{module}:{name}")
    except (ImportError, AttributeError):
        return None
    return f"{module}:{name}" if found is value else None


def imported(reference: str) -> Any:
    """What `module:name` stands for. Raises: ImportError, AttributeError; whatever the module raises."""
    module, _, name = reference.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split(".") if name else ():
        found = getattr(found, part)
    return found
