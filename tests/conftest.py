"""What every test gets: an environment without settings of mr. Servers are started by `servers.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

KEPT = ("MR_CACHE_DIR", "MR_VENV")  # they say where the machine's tools are, not how mr should behave


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--every-pair", action="store_true", help="run every acceptance test on etcd v2 and nsqd, too")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer reaches a test, and the default store lies in the test's own folder."""
    for name in list(os.environ):
        if (name.startswith("MR_") and name not in KEPT) or name == "DEBUG":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
