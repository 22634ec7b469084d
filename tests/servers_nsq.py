"""Real NSQ servers for tests, on free ports of 127.0.0.1 with temporary data of their own.

They are found where `scripts/backends` put them, then on PATH. A missing one skips the test, and fails it where
`CI=true`.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.servers import START_TIMEOUT_S, STOP_TIMEOUT_S, free_ports

HOST = "127.0.0.1"
_BACKENDS = Path(__file__).resolve().parent.parent / "scripts" / "backends"


def program(name: str) -> str:
    """Path of a server's program."""
    built = subprocess.run([_BACKENDS, "--where"], capture_output=True, text=True, check=True).stdout.strip()
    path = shutil.which(name, path=os.pathsep.join((built, os.environ.get("PATH", os.defpath))))
    if path is None:
        reason = f"there is no {name} here; scripts/backends builds it"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


class _Server:
    """A process that listens on a TCP and an HTTP port, and keeps both when it is started again."""

    name: str

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self._program = program(self.name)
        self._arguments = list(arguments)
        self.folder = Path(tempfile.mkdtemp(prefix=f"mr-{self.name}-"))
        self.tcp_port, self.http_port = free_ports(2)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return when it answers."""
        assert self.process is None, "it runs already"
        command = [self._program, f"--tcp-address={HOST}:{self.tcp_port}", f"--http-address={HOST}:{self.http_port}"]
        command += [f"--broadcast-address={HOST}", *self._own_arguments(), *self._arguments]
        # A file, not a pipe: nobody would read the pipe, and a full one stops the server.
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = self.log()
                self.stop()
                pytest.fail(f"{self.name} did not start:\n{text[-2000:]}")
            time.sleep(0.01)

    def kill(self, *, wipe: bool = False) -> None:
        """Crash it (SIGKILL), and lose the disk as well if `wipe`."""
        self._end(signal.SIGKILL)
        if wipe:
            self._wipe()

    def terminate(self) -> None:
        """End it in order (SIGTERM); its data stay for `start`."""
        self._end(signal.SIGTERM)

    def restart(self, *, wipe: bool = False) -> None:
        """Crash it and start it again on the same ports."""
        self.kill(wipe=wipe)
        self.start()

    def freeze(self) -> None:
        """Let it hang: connections stand, nothing answers, until `thaw`. It has stopped when this returns."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its data. Twice is harmless."""
        if self.process is not None and self.process.poll() is None:
            self.thaw()
        self._end(signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        """What it wrote since it was made."""
        return (self.folder / "log").read_text(errors="replace")

    def get(self, path: str, **query: str) -> Any:
        """A JSON document of its HTTP door."""
        return json.loads(self._ask("GET", path, query))

    def post(self, path: str, body: bytes = b"", **query: str) -> bytes:
        """A command at its HTTP door."""
        return self._ask("POST", path, query, body)

    def _own_arguments(self) -> list[str]:
        return []

    def _wipe(self) -> None:
        pass

    def _is_up(self) -> bool:
        try:
            return self._ask("GET", "/ping", {}) == b"OK"
        except (OSError, http.client.HTTPException):
            return False

    def _ask(self, method: str, path: str, query: dict[str, str], body: bytes = b"") -> bytes:
        connection = http.client.HTTPConnection(HOST, self.http_port, timeout=5.0)
        try:
            connection.request(method, f"{path}?{urllib.parse.urlencode(query)}", body)
            return connection.getresponse().read()
        finally:
            connection.close()

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class NsqdServer(_Server):
    """One nsqd with its default settings, unless `arguments` say otherwise."""

    name = "nsqd"

    @property
    def address(self) -> tuple[str, int, int]:
        """Host, TCP port and HTTP port, as the adapter takes it."""
        return HOST, self.tcp_port, self.http_port

    @property
    def instance(self) -> str:
        """Its name in `Publisher.instances`."""
        return f"{HOST}:{self.tcp_port}"

    def clients(self, topic: str) -> list[dict[str, Any]]:
        """The connections that consume a topic, as nsqd sees them."""
        topics = self.get("/stats", format="json", topic=topic)["topics"] or []  # Go writes an empty list as null
        return [client for one in topics for channel in one["channels"] or [] for client in channel["clients"] or []]

    def _own_arguments(self) -> list[str]:
        (self.folder / "data").mkdir(exist_ok=True)
        return [f"--data-path={self.folder / 'data'}"]

    def _wipe(self) -> None:
        shutil.rmtree(self.folder / "data", ignore_errors=True)


class NsqlookupdServer(_Server):
    """One nsqlookupd, which keeps nothing on disk."""

    name = "nsqlookupd"

    @property
    def address(self) -> tuple[str, int]:
        """Host and HTTP port, as the adapter takes it."""
        return HOST, self.http_port
