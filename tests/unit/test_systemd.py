"""What systemd is told, and that nobody minds where there is none."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mr.systemd import Manager

DEADLINE_S = 30.0


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "notify"))
        one.settimeout(DEADLINE_S)
        yield one


def test_each_word_is_a_datagram_of_lines(listener: socket.socket) -> None:
    manager = Manager({"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "3000000"})
    assert manager.beat_s == 1.5
    manager.ready("serves")
    manager.alive()
    manager.ending()
    said = [listener.recv(1000) for _ in range(3)]
    assert said == [b"READY=1\nSTATUS=serves", b"WATCHDOG=1", b"STOPPING=1\nSTATUS=ending"]


def test_a_socket_without_a_file_is_found() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(f"\0mr-test-{os.getpid()}")
        one.settimeout(DEADLINE_S)
        Manager({"NOTIFY_SOCKET": f"@mr-test-{os.getpid()}"}).alive()
        assert one.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_nothing_is_told_and_nothing_fails(environ: dict[str, str]) -> None:
    manager = Manager(environ)
    manager.ready("serves")
    manager.ending()
    assert manager.beat_s is None


@pytest.mark.parametrize("more", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}])
def test_a_watchdog_that_is_not_for_us_gets_no_beats(more: dict[str, str]) -> None:
    assert Manager({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", **more}).beat_s is None


@pytest.mark.parametrize("words", [["worker"], ["web", "--bind", "127.0.0.1:0"]])
def test_a_process_says_that_it_is_ready_lives_and_ends(
    listener: socket.socket, tmp_path: Path, words: list[str]
) -> None:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("MR_")} | {
        "MR_STORE": f"sqlite:///{tmp_path}/mr.db", "MR_EXECUTORS": "1",
        "NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "200000",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "mr.cli.main", *words], env=environ, stderr=subprocess.DEVNULL, start_new_session=True
    )

    def until(word: bytes) -> None:
        while word not in listener.recv(1000).split(b"\n"):
            assert process.poll() is None

    try:
        until(b"READY=1")
        until(b"WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        until(b"STOPPING=1")
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
