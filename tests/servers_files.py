"""Servers of files for tests, on free ports of 127.0.0.1 with temporary data: a grid of Tahoe-LAFS, and an S3."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.servers import STOP_TIMEOUT_S, free_ports, program

START_TIMEOUT_S = 60.0
"""Three nodes of Tahoe take eight seconds on an idle machine."""


class Processes:
    """Processes with one folder and one log, ended together."""

    def __init__(self, prefix: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=prefix))
        self._running: list[subprocess.Popen[bytes]] = []

    def launch(self, command: list[str]) -> None:
        """Start one."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        self._running.append(process)

    def wait(self, what: str, deadline: float) -> None:
        """Between two looks: a moment, or the end of the test when one has died or time is over."""
        if time.monotonic() > deadline or any(process.poll() is not None for process in self._running):
            text = (self.folder / "log").read_text(errors="replace")
            self.stop()
            pytest.fail(f"{what} did not start:\n{text[-2000:]}")
        time.sleep(0.05)

    def stop(self) -> None:
        """End all and remove their data. Twice is harmless."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


class TahoeGrid:
    """An introducer, a storage node and a client, whose web API is at `port`. One share of everything is enough."""

    def __init__(self) -> None:
        self._program = program("tahoe")
        self._processes = Processes("mr-tahoe-")
        self._introducer, self._storage, self.port = free_ports(3)

    def start(self) -> TahoeGrid:
        """Start it, and return when files can be stored."""
        deadline = time.monotonic() + START_TIMEOUT_S
        self._node("introducer", "introducer", f"[node]\n{_listens(self._introducer)}web.port =\n")
        furl = self._processes.folder / "introducer" / "private" / "introducer.furl"
        while not furl.exists() or not furl.read_text().strip():
            self._processes.wait("the introducer of Tahoe", deadline)
        introducers = f"introducers:\n  ours:\n    furl: '{furl.read_text().strip()}'\n"
        deaf = "tub.port = disabled\ntub.location = disabled\n"
        shares = "[client]\nshares.needed = 1\nshares.happy = 1\nshares.total = 1\n[storage]\nreserved_space = 0\n"
        storage = f"[node]\n{_listens(self._storage)}web.port =\n{shares}enabled = true\n"
        client = f"[node]\n{deaf}web.port = tcp:{self.port}:interface=127.0.0.1\n{shares}enabled = false\n"
        self._node("storage", "client", storage, introducers)
        self._node("client", "client", client, introducers)
        # A directory can be made as soon as the client has heard of the storage node, over web API and introducer.
        while (self._made(1.0 if time.monotonic() < deadline - 1 else 0.1)) is None:
            self._processes.wait("a grid of Tahoe", deadline)
        return self

    def directory(self) -> str:
        """The URI of a new directory."""
        uri = self._made(30.0)
        assert uri is not None
        return uri

    def url(self) -> str:
        """A new directory, as `MR_FS_URL` names it."""
        return f"tahoe+http://127.0.0.1:{self.port}/{self.directory()}"

    def stop(self) -> None:
        """End it and remove its data. Twice is harmless."""
        self._processes.stop()

    def _node(self, name: str, kind: str, settings: str, introducers: str = "") -> None:
        folder = self._processes.folder / name
        (folder / "private").mkdir(parents=True)
        (folder / f"tahoe-{kind}.tac").touch()
        (folder / "tahoe.cfg").write_text(settings)
        if introducers:
            (folder / "private" / "introducers.yaml").write_text(introducers)
        self._processes.launch([self._program, "run", "--allow-stdin-close", str(folder)])

    def _made(self, timeout_s: float) -> str | None:
        status, body = _asked(self.port, "POST", "/uri?t=mkdir", timeout_s)
        return body.decode() if status == 200 else None


class S3Server:
    """An S3 in memory, by moto."""

    def __init__(self) -> None:
        path = Path(sys.executable).with_name("moto_server")
        self._program = str(path) if path.exists() else program("moto_server")
        self._processes = Processes("mr-s3-")
        (self.port,) = free_ports(1)
        self._buckets = 0

    def start(self) -> S3Server:
        """Start it, and return when it answers."""
        self._processes.launch([self._program, "-H", "127.0.0.1", "-p", str(self.port)])
        deadline = time.monotonic() + START_TIMEOUT_S
        while _asked(self.port, "GET", "/", 1.0)[0] != 200:
            self._processes.wait("moto", deadline)
        return self

    def url(self) -> str:
        """A new bucket, as `MR_FS_URL` names it."""
        self._buckets += 1
        status, body = _asked(self.port, "PUT", f"/bucket{self._buckets}", 30.0)
        assert status == 200, body
        options = f"key=any&secret=any&endpoint_url=http://127.0.0.1:{self.port}"
        return f"s3://bucket{self._buckets}/below?{options}"

    def stop(self) -> None:
        """End it. Twice is harmless."""
        self._processes.stop()


def _listens(port: int) -> str:
    return f"tub.port = tcp:{port}:interface=127.0.0.1\ntub.location = tcp:127.0.0.1:{port}\n"


def _asked(port: int, method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
    """Status and body of an answer; 0 for none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
