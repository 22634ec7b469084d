"""The shell scripts of the repository can be read by bash, and shellcheck finds nothing in them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_SHELL = re.compile(rb"#!.*\b(ba)?sh\n")


def scripts() -> list[Path]:
    """Every file that a shell runs, and the runner of handlers in shell."""
    places = [path for name in ("scripts", ".ci", "deploy") for path in (ROOT / name).rglob("*") if path.is_file()]
    found = [path for path in places if _SHELL.match(path.read_bytes()[:80])]
    return [*sorted(found), ROOT / "mr/adapters/processors/languages/shell.bash"]


@pytest.mark.parametrize("script", scripts(), ids=lambda path: path.name)
def test_a_script_is_sound(script: Path) -> None:
    checks = [["bash", "-n"]]
    if checker := shutil.which("shellcheck"):
        checks.append([checker, "--shell=bash"])
    for check in checks:
        done = subprocess.run([*check, str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_all_of_them_are_found() -> None:
    assert {"setup", "test", "demo", "backends", "format", "run"} <= {path.name for path in scripts()}
