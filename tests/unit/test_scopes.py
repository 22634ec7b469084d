"""Scope factories: what a site may give to its handlers, how it gets there, and what becomes of mistakes (JX-36)."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from mr.errors import ConfigError
from mr.model.handler import Handler
from mr.worker import scopes
from mr.worker.scopes import Given, HandlerDefinition, Scopes
from tests.unit.executors import Bench, bench

RETURN = "yield MrConfigureToReturn()\n"
HANDLER = Handler(
    description="", argument_spec=[("arguments", None)], source_type="python", source_code="", handler_type="mapper",
    required_capability="none",
)  # fmt: skip


def greet(name: str) -> str:
    """A function that a site gives to its handlers."""
    return f"hello {name}"


class Factory:
    """Gives what the test has put into `scope`, and notes who asked."""

    scope: Any = None
    asked: list[tuple[str, HandlerDefinition]] = []  # noqa: RUF012 - shared on purpose
    gate = threading.Event()

    def get_handler_scope_factory(self, workflow: str) -> Any:
        class Of:
            def get_scope(self, handler: HandlerDefinition) -> Any:
                Factory.asked.append((workflow, handler))
                return Factory.scope(handler) if callable(Factory.scope) else Factory.scope

        return Of()


class Broken(Factory):
    """Cannot be made."""

    def __init__(self) -> None:
        raise OSError("no vault")


@pytest.fixture
def made() -> Scopes:
    Factory.asked.clear()
    Factory.scope = {}
    Factory.gate.clear()
    return Scopes("tests.unit.test_scopes.Factory")


def given(made: Scopes, scope: Any, name: str = "h") -> Given:
    Factory.scope = scope
    made.ask("w", name, "v1", HANDLER)
    found = made.given("w", name, "v1")
    assert found is not None
    return found


def test_JX_36_it_is_asked_for_each_workflow_and_handler_and_sees_their_names(made: Scopes) -> None:
    made.ask("w", "h", "v1", HANDLER)
    made.ask("other", "h", "v1", HANDLER)
    made.ask("w", "k", "v2", HANDLER)
    assert [(workflow, one.workflow_name, one.name, one.version) for workflow, one in Factory.asked] == [
        ("w", "w", "h", "v1"), ("other", "other", "h", "v1"), ("w", "w", "k", "v2"),
    ]  # fmt: skip


def test_what_it_gave_is_used_for_a_while(made: Scopes, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("mr.worker.scopes.time.monotonic", lambda: now[0])
    for _ in range(3):
        assert given(made, {"A": len(Factory.asked)}).document == b'{"values":{"A":0},"imports":{}}'
    now[0] += scopes.KEEP_S
    assert not made.is_ready("w", "h", "v1")
    assert given(made, {"A": 7}).document == b'{"values":{"A":7},"imports":{}}'
    assert len(Factory.asked) == 2


def test_a_problem_is_soon_looked_at_again(made: Scopes, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("mr.worker.scopes.time.monotonic", lambda: now[0])

    def away(handler: HandlerDefinition) -> Any:
        raise KeyError(f"no secret for {handler.name}")

    told = given(made, away).problem
    assert told == (
        "the scope factory tests.unit.test_scopes.Factory gives no scope for handler h: KeyError: 'no secret for h'"
    )
    now[0] += scopes.KEEP_PROBLEM_S
    assert given(made, {}).problem == ""


@pytest.mark.parametrize(
    ("scope", "problem"),
    [
        (["A"], "it gave a list, expected a dict of names"),
        (None, "it gave a NoneType, expected a dict of names"),
        ({"not a name": 1}, "a name of it is none: 'not a name'"),
        ({"class": 1}, "a name of it is none: 'class'"),
        ({"__builtins__": {}}, "a name of it is none: '__builtins__'"),
        ({1: 1}, "a name of it is none: '1'"),
        ({"A": object()}, "A is a object; expected JSON, or a function, class or module"),
        ({"A": b"hush"}, "A is a bytes; expected JSON"),
        ({"A": {"hush"}}, "A is a set; expected JSON"),
        ({"A": float("nan")}, "A is a float; expected JSON"),
        ({"A": "hush \ud800"}, "A is a str; expected JSON"),
        ({"A": lambda: "hush"}, "A is a function; expected JSON"),
        ({"A": "x" * scopes.DOCUMENT_MAX}, "the limit is 1048576"),
    ],
)  # fmt: skip
def test_what_an_executor_cannot_be_given_is_named_without_its_value(made: Scopes, scope: Any, problem: str) -> None:
    found = given(made, lambda handler: scope)
    assert problem in found.problem
    assert "handler h" in found.problem
    assert "hush" not in found.problem
    assert found.document == b""


def test_a_value_does_not_appear_where_it_is_printed(made: Scopes) -> None:
    assert "hush" not in repr(given(made, {"PASSWORD": "hush"}))


def test_a_factory_that_hangs_is_a_problem_too(made: Scopes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes, "TIMEOUT_S", 0.05)
    assert "it did not answer in 0.05 s" in given(made, lambda handler: Factory.gate.wait(60)).problem
    Factory.gate.set()


def test_without_a_factory_nobody_is_asked() -> None:
    none = Scopes("")
    assert none.is_ready("w", "h", "v1")
    none.ask("w", "h", "v1", HANDLER)
    assert none.given("w", "h", "v1") is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nowhere.Factory", "ModuleNotFoundError"),
        ("tests.unit.test_scopes.Missing", "AttributeError"),
        ("tests.unit.test_scopes.Broken", "no vault"),
        ("tests.unit.test_scopes.Given", "expected a class that can be made"),
        ("collections.OrderedDict", "expected a scope factory, with get_handler_scope_factory(workflow)"),
    ],
)
def test_JX_36_a_class_that_is_none_is_refused_with_one_line(name: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Scopes(name)
    (line,) = caught.value.problems
    assert line.startswith("MR_WORKFLOW_SCOPE_FACTORY_FQ_CLASS: expected a ")
    assert name in line
    assert problem in line


# In an executor


def give(one: Bench, scope: dict[str, Any] | str, source: str, kind: Any = "mapper") -> None:
    """What a handler is given; text is a problem."""
    handler = one.handler(source, kind)
    if isinstance(scope, str):
        one.process.give("flow", handler.name, handler.version, Given(b"", scope))
        return
    document = scopes._document(scope)
    one.process.give("flow", handler.name, handler.version, Given(document))


async def test_JX_36_names_are_added_and_override_those_of_mr() -> None:
    source = RETURN + "yield SEP, [WHO, greet('ana'), json.loads('[1]'), PATH.__name__]\n"
    async with bench(environ={**os.environ, "PYTHONPATH": os.getcwd()}) as one:
        give(one, {"SEP": "|", "WHO": {"a": [1, None]}, "greet": greet, "json": json, "PATH": Path}, source)
        assert (await one.map(source)).result() == [["|", [[{"a": [1, None]}, "hello ana", [1], "Path"]]]]
        assert (await one.map(RETURN + "yield SEP, 1\n")).result() == [["/", [1]]]


async def test_each_call_has_values_of_its_own() -> None:
    source = "LIST.append(len(LIST)); MAP['x'] = 1\n" + RETURN + "yield LIST, MAP\n"
    async with bench() as one:
        give(one, {"LIST": [], "MAP": {}}, source)
        run = await one.map(source, [[["k", 1]]] * 3)
        assert [run.result(child) for child in range(3)] == [[[[0], [{"x": 1}]]]] * 3


async def test_a_module_has_them_too_and_what_changes_reaches_a_warm_executor() -> None:
    module = "KEPT = TOKEN\ndef handle(arguments, ctx):\n    yield KEPT, TOKEN\n"
    async with bench() as one:
        for token in ("a", "a", "b"):
            give(one, {"TOKEN": token}, module)
            assert (await one.map(module)).result() == [[token, [token]]]


async def test_a_problem_fails_the_invocation_that_needed_it_and_no_other() -> None:
    source = RETURN + "yield 1, 1\n"
    async with bench() as one:
        give(one, "the scope factory site.Factory gives no scope for handler the_mapper: no vault", source)
        failure = (await one.map(source)).failure()
        assert (failure.class_, failure.type, failure.kind) == ("scope_factory", "ScopeFactoryError", "map")
        assert failure.message.endswith("handler the_mapper: no vault")
        assert (await one.map(RETURN + "yield 2, 2\n")).result() == [[2, [2]]]
        give(one, {}, source)
        assert (await one.map(source)).result() == [[1, [1]]]
        # The mapper's work is kept when it is the reducer that has no scope.
        reducer = "for key, values in results: yield key, values\n#"
        give(one, "no vault", reducer, "reducer")
        failure = (await one.map(source, reducer=reducer)).failure()
        assert (failure.class_, failure.kind, failure.returned) == ("scope_factory", "reduce", True)


async def test_what_cannot_be_imported_there_is_named() -> None:
    source = RETURN + "yield 1, greet\n"
    async with bench() as one:
        handler = one.handler(source, "mapper")
        document = json.dumps({"values": {}, "imports": {"greet": "nowhere.at_all:greet"}}).encode()
        one.process.give("flow", handler.name, handler.version, Given(document))
        failure = (await one.map(source)).failure()
        assert failure.class_ == "scope_factory"
        assert "greet, which the site gives to handlers, cannot be imported: ModuleNotFoundError" in failure.message
