"""The gates of scripts/check find what they are for."""

from __future__ import annotations

import ast
from types import ModuleType

import pytest

from tests.unit.scripts import script


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return script("check")


def found(check: ModuleType, source: str, path: str = "mr/services/x.py") -> list[str]:
    return [problem for node in ast.walk(ast.parse(source)) for problem in check.refused(node, path)]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import json, marshal as m",
        "from cloudpickle import dumps",
        "def f():\n    import pickle",
        "eval(text)",
        "x = exec(code)",
        "yaml.load(text)",
        "yaml.unsafe_load(text)",
        "msgspec.json.decode(data, type=kind)",
    ],
)
def test_a_refused_construct_is_found(check: ModuleType, source: str) -> None:
    assert len(found(check, source)) == 1


@pytest.mark.parametrize(
    "source", ["yaml.safe_load(text)", "json.load(f)", "b.decode(kind)", "x.exec(y)", "'eval(x)'", "# pickle"]
)
def test_what_only_looks_like_it_is_let_through(check: ModuleType, source: str) -> None:
    assert found(check, source) == []


def test_only_the_worker_and_the_processors_run_code(check: ModuleType) -> None:
    assert found(check, "exec(code)", "mr/worker/executor.py") == []
    assert found(check, "exec(code)", "mr/adapters/processors/python.py") == []
    assert len(found(check, "import pickle", "mr/worker/executor.py")) == 1


@pytest.mark.parametrize("source", ["click.echo(x)", "click.style(x)", "print(x)", "sys.stderr.write(x)"])
def test_a_command_that_writes_past_the_one_place_is_found(check: ModuleType, source: str) -> None:
    assert len(found(check, source, "mr/cli/tree.py")) == 1
    assert found(check, source, "mr/cli/output.py") == []
    assert found(check, "click.option(x)", "mr/cli/tree.py") == []


def test_a_long_module_is_found(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "sources", lambda: iter([("mr/a.py", "\n" * 600), ("mr/b.py", "\n" * 601)]))
    (problem,) = check.long_files()
    assert problem.startswith("mr/b.py: 601 lines")
