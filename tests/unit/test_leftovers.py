"""Folders of executors: the owner's stay, those of the dead go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mr.services.isolation import Cgroup
from mr.worker.leftovers import PREFIX, Folder, remove_leftovers

NO_CGROUP = Cgroup(None)
OWNER = """
import subprocess, sys
from mr.services.isolation import Cgroup
from mr.worker.leftovers import Folder
folder = Folder()
(folder.path / "spool").write_text("big")
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, close_fds=False)
print(child.pid, folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files that no other worker uses."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@contextmanager
def owner() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process, which has started a program that outlives it, and its folder."""
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child, path = process.stdout.readline().split()
        try:
            yield process, Path(path)
        finally:
            process.kill()
            os.kill(int(child), signal.SIGKILL)


@pytest.mark.kills
def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays() -> None:
    with owner() as (_, kept), owner() as (killed, left):
        assert remove_leftovers(NO_CGROUP) == 0
        killed.kill()
        killed.wait()
        assert (left / "spool").exists()
        assert remove_leftovers(NO_CGROUP) == 1
        assert not left.exists()
        assert (kept / "spool").exists()


def test_ones_own_folder_stays_until_it_is_removed(temporary: Path) -> None:
    folder = Folder()
    assert folder.path.name.startswith(PREFIX)
    assert remove_leftovers(NO_CGROUP) == 0
    assert list(temporary.iterdir()) == [folder.path]
    (folder.path / "file").write_text("x")
    folder.remove()
    folder.remove()
    assert list(temporary.iterdir()) == []


def test_what_only_looks_like_a_folder_of_an_executor_is_left_alone(temporary: Path) -> None:
    precious = temporary / "precious"
    precious.mkdir()
    (temporary / f"{PREFIX}link").symlink_to(precious)
    (temporary / f"{PREFIX}file").write_text("x")
    (temporary / "other").mkdir()
    assert remove_leftovers(NO_CGROUP) == 0
    assert len(list(temporary.iterdir())) == 4
