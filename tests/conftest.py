"""What every test gets: an empty environment of its own, and servers' programs, if they are there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
KEPT = ("MR_CACHE_DIR", "MR_VENV")  # they say where the machine's tools are, not how mr should behave


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer reaches a test, and the default store lies in the test's own folder."""
    for name in list(os.environ):
        if (name.startswith("MR_") and name not in KEPT) or name == "DEBUG":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def server_program() -> Callable[[str], Path]:
    """Finds the program of a server: where scripts/backends put it, then on PATH.

    A missing one skips the test on a laptop and fails it where CI=true.
    """
    script = CHECKOUT / "scripts" / "backends"
    built = subprocess.run([script, "--where"], capture_output=True, text=True, check=True).stdout.strip()
    path = os.pathsep.join((built, os.environ.get("PATH", os.defpath), "/usr/sbin"))

    def find(name: str) -> Path:
        if found := shutil.which(name, path=path):
            return Path(found)
        reason = f"there is no {name} here; scripts/backends gets it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return find
