"""Processes that handlers start: all of them are found, and end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mr.worker import family
from mr.worker.family import below, kill_marked

pytestmark = pytest.mark.kills

# Starts children of several kinds, lets them go, and says whether it found them, ended them, and what is left.
PARENT = """
import ctypes, os, subprocess, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
from mr.worker.family import below, end_children
assert end_children()
subprocess.Popen(["sleep", "1000"])
subprocess.Popen(["sleep", "1000"], start_new_session=True, env={})
subprocess.run(["sh", "-c", "(trap '' TERM HUP; sleep 1000) & sleep 1000 &"])
subprocess.Popen(["true"])
until = time.monotonic() + 20
while len(below(os.getpid())) < 4 and time.monotonic() < until:
    time.sleep(0.01)
found = below(os.getpid())
print(len(found) >= 4, end_children(), below(os.getpid()))
"""


def test_orphans_and_those_in_sessions_of_their_own_are_ended_and_reaped() -> None:
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, timeout=60)
    assert done.stdout == "True True []\n", done.stderr


def test_those_below_are_counted_up_to_a_bound() -> None:
    script = "for n in 1 2 3 4 5 6; do (sleep 1000 & wait) & done; wait"
    with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as process:
        try:
            until = time.monotonic() + 20
            while len(below(process.pid)) < 12:
                assert time.monotonic() < until
            assert 4 <= len(below(process.pid, 4)) < 12
        finally:
            os.killpg(process.pid, 9)


def test_one_that_ends_while_it_is_looked_at_hides_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"1": b"2 3", "3": b"4"}

    def glob(folder: Path, _pattern: str) -> Iterator[Path]:
        if folder.parent.name == "2":
            raise FileNotFoundError(folder)
        yield folder

    monkeypatch.setattr(family, "_glob", glob)
    monkeypatch.setattr(family, "_read_bytes", lambda folder: pages.get(folder.parent.name, b""))
    assert sorted(below(1)) == [2, 3, 4]


def test_what_has_the_mark_in_its_environment_is_ended_and_nothing_else(tmp_path: Path) -> None:
    def sleeper(folder: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "1000"], env={"A": "1", "TMPDIR": folder}, start_new_session=True)

    marked, like = sleeper(str(tmp_path)), sleeper(f"{tmp_path}x")
    try:
        until = time.monotonic() + 20
        while b"sleep" not in Path(f"/proc/{marked.pid}/cmdline").read_bytes():
            assert time.monotonic() < until
        assert kill_marked(str(tmp_path)) == 1
        assert marked.wait(20) == -9
        assert like.poll() is None
    finally:
        for process in (marked, like):
            process.kill()
            process.wait()
