"""What the package promises as a whole: documented, importable without effects, each error with its own code."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mr
from mr import errors

CHECKOUT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted(module.name for module in pkgutil.walk_packages(mr.__path__, "mr."))
SCRIPTS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


def error_classes() -> list[type[errors.MrError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MrError)]


def undocumented(tree: ast.Module) -> list[str]:
    """Public classes at the top of a module without a docstring."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    return [node.name for node in classes if ast.get_docstring(node) is None]


def test_each_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in error_classes()]
    assert sorted(set(codes)) == sorted(codes)


def test_each_error_stands_in_the_tree_at_the_top_of_the_module() -> None:
    tree = errors.__doc__ or ""
    assert [kind.__name__ for kind in error_classes() if kind.__name__ not in tree] == []


def test_each_error_can_be_told_from_its_text() -> None:
    error = errors.UnknownJob("no job 'x'", hint="mr job list")
    assert str(error) == "no job 'x' (mr job list)"
    assert str(errors.ConfigError(["a", "b"])) == "a; b"


@pytest.mark.parametrize("name", ["mr", *MODULES])
def test_each_module_and_public_class_is_documented(name: str) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name} has no docstring"
    assert undocumented(tree) == []


@pytest.mark.parametrize("name", ["mr", *MODULES])
def test_what_a_module_exports_exists(name: str) -> None:
    module = importlib.import_module(name)
    assert [word for word in getattr(module, "__all__", ()) if not hasattr(module, word)] == []


def test_importing_everything_does_nothing() -> None:
    """No thread, no logging set-up, no monkey-patching, no file or connection left open, no word printed."""
    program = f"""
import importlib, logging, os, socket, sys, threading
before = socket.socket, threading.Thread, len(os.listdir("/proc/self/fd"))
for name in {MODULES!r}:
    importlib.import_module(name)
assert threading.active_count() == 1, threading.enumerate()
assert logging.getLogger().handlers == [], logging.getLogger().handlers
assert (socket.socket, threading.Thread, len(os.listdir("/proc/self/fd"))) == before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_console_script_has_its_function(script: str) -> None:
    module, _, function = SCRIPTS[script].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_the_package_says_that_it_is_typed() -> None:
    assert (CHECKOUT / "mr" / "py.typed").exists()
