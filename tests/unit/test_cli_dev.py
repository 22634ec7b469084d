"""`mr dev`: its children are kept alive, given up, and ended in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from mr.cli import exits, parent
from mr.cli.main import program
from mr.cli.parent import Child, Parent

LIVES = "import sys, signal; open(sys.argv[1], 'a').write('born\\n'); signal.pause()"
DIES = "import sys; open(sys.argv[1], 'a').write('born\\n'); sys.exit(7)"


def child(name: str, code: str, file: Path) -> Child:
    made = Child(name, [])
    made.command = [sys.executable, "-c", code, str(file)]
    return made


def births(file: Path) -> int:
    return file.read_text().count("born") if file.exists() else 0


def when(condition: Callable[[], bool], then: Callable[[], None]) -> threading.Thread:
    """In a thread: `then`, once the condition holds, and after 20 s in any case."""

    def wait() -> None:
        deadline = time.monotonic() + 20
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_children_and_leaves_none(tmp_path: Path) -> None:
    children = [child("front end", LIVES, tmp_path / "a"), child("worker", LIVES, tmp_path / "b")]
    ready: list[bool] = []
    waiting = when(lambda: births(tmp_path / "a") + births(tmp_path / "b") == 2, terminate)
    assert Parent(children, 5.0).run(lambda: ready.append(True), None) == exits.DONE
    waiting.join()
    assert ready == [True]
    assert [one.process for one in children] == [None, None]
    assert (births(tmp_path / "a"), births(tmp_path / "b")) == (1, 1)


def test_a_child_that_is_killed_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parent, "PAUSE_FIRST_S", 0.01)
    one = child("worker", LIVES, tmp_path / "a")

    def kill() -> None:
        assert one.process is not None
        os.kill(one.process.pid, signal.SIGKILL)
        when(lambda: births(tmp_path / "a") == 2, terminate).join()

    waiting = when(lambda: births(tmp_path / "a") == 1, kill)
    assert Parent([one], 5.0).run(lambda: None, None) == exits.DONE
    waiting.join()
    assert births(tmp_path / "a") == 2
    assert "the worker was killed by SIGKILL; starting it again" in capsys.readouterr().err


def test_a_child_that_cannot_live_is_given_up_and_its_sibling_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parent, "PAUSE_FIRST_S", 0.001)
    children = [child("front end", LIVES, tmp_path / "a"), child("worker", DIES, tmp_path / "b")]
    assert Parent(children, 5.0).run(lambda: None, None) == exits.FAILED
    assert births(tmp_path / "b") == parent.DEATHS_MAX
    assert children[0].process is None
    assert "died 5 times in a row" in capsys.readouterr().err


def test_a_child_with_wrong_settings_ends_all_at_once(tmp_path: Path) -> None:
    one = child("worker", DIES.replace("7", "2"), tmp_path / "a")
    assert Parent([one], 5.0).run(lambda: None, None) == exits.USAGE
    assert births(tmp_path / "a") == 1


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + LIVES.replace(
        "signal.pause()", "[signal.pause() for _ in iter(int, 1)]"
    )
    one = child("worker", stubborn, tmp_path / "a")
    waiting = when(lambda: births(tmp_path / "a") == 1, terminate)
    assert Parent([one], 0.1).run(lambda: None, None) == exits.DONE
    waiting.join()
    assert one.process is None


def test_the_children_do_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from mr.cli.parent import Child, Parent\n"
        "one = Child('worker', []); one.command = [sys.executable, '-c', sys.argv[1], sys.argv[2]]\n"
        "Parent([one], 5.0).run(lambda: print(one.process.pid, flush=True), None)"
    )
    started = subprocess.Popen([sys.executable, "-c", code, LIVES, str(tmp_path / "a")], stdout=subprocess.PIPE)
    assert started.stdout is not None
    pid = int(started.stdout.readline())
    started.kill()
    started.wait()
    started.stdout.close()
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is only not buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_only_the_loopback_is_served() -> None:
    result = CliRunner().invoke(program, ["dev", "--bind", "0.0.0.0:8080"])
    assert result.exit_code == exits.USAGE
    assert "MR_WEB_BIND" in result.stderr
