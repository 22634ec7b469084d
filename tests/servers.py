"""Real servers for tests, each on free ports of 127.0.0.1 with its own temporary data.

A server can be killed and started again on the same ports with the same data; that is what most of the tests here
are about. Where the program is not installed the test is skipped, but fails where `CI=true` promises it.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


def program(name: str, *probe: str) -> str:
    """Path of an installed program; without it the test is skipped, or fails where `CI=true`.

    With arguments to try, it must also end well with those: an interpreter may lack a module.
    """
    # Debian puts servers where the PATH of plain users does not look.
    path = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))
    if path is None or (probe and subprocess.run([path, *probe], capture_output=True, check=False).returncode):
        reason = f"{' '.join((name, *probe))} does not work" if path else f"{name} is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def free_ports(count: int) -> list[int]:
    """Ports that nobody listened on a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class EtcdServer:
    """One etcd. `arguments` are added to its command line; with `tls` it is asked that way.

    `stop` ends it and removes its data; `kill` is a crash (SIGKILL) that leaves them for `start` or `restart`.
    """

    def __init__(self, arguments: Sequence[str] = (), name: str = "test", tls: ssl.SSLContext | None = None) -> None:
        self._program = program("etcd")
        self._arguments = list(arguments)
        self._folder = Path(tempfile.mkdtemp(prefix="mr-etcd-"))
        self.name = name
        self._tls = tls
        self.port, self._peer_port = free_ports(2)
        self.members = self.member
        """The members of its cluster, as etcd is told at its first start."""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def endpoints(self) -> list[str]:
        return [self.endpoint]

    @property
    def member(self) -> str:
        """Its name and where its peers find it."""
        return f"{self.name}=http://127.0.0.1:{self._peer_port}"

    def start(self) -> EtcdServer:
        """Start it, and return when it answers."""
        self.launch()
        self.wait_until_healthy()
        return self

    def launch(self) -> None:
        """Start it. It answers when most members of its cluster are there."""
        assert self.process is None, "it runs already"
        client = f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"
        peer = f"http://127.0.0.1:{self._peer_port}"
        command = [self._program, f"--name={self.name}", f"--data-dir={self._folder / 'data'}", "--logger=zap"]
        command += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
        command += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
        command += [f"--initial-cluster={self.members}", *self._arguments]
        # A file, not a pipe: nobody would read the pipe, and a full one stops the server.
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def wait_until_healthy(self) -> None:
        """Return when it answers."""
        assert self.process is not None, "it does not run"
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = self.log()
                self.stop()
                pytest.fail(f"etcd did not start:\n{text[-2000:]}")
            time.sleep(0.02)

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=1.0)
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=1.0, context=self._tls)

    def leads(self) -> bool:
        """Whether it is the leader of its cluster."""
        connection = self._connection()
        try:
            connection.request("POST", "/v3/maintenance/status", b"{}")
            answer = json.loads(connection.getresponse().read())
            return bool(answer["header"]["member_id"] == answer["leader"])
        except (OSError, http.client.HTTPException, KeyError):
            return False
        finally:
            connection.close()

    def _is_healthy(self) -> bool:
        connection = self._connection()
        try:
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """Crash it."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Crash it and start it again, with what it wrote."""
        self.kill()
        self.start()

    def wipe(self) -> None:
        """Forget everything, as after a lost disk. Not while it runs."""
        assert self.process is None, "it runs"
        shutil.rmtree(self._folder / "data")

    def pause(self) -> None:
        """Let it hang: connections stand, nothing answers, until `resume`. It has stopped when this returns."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        # The signal goes to one thread; until that runs, on a busy machine, the others still answer.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and remove its data. Twice is harmless."""
        if self.process is not None:
            self.resume()
        self._end(signal.SIGTERM)
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

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

    def __enter__(self) -> EtcdServer:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()


class EtcdCluster:
    """Three members of one etcd, each with these arguments. Each can be killed and started again by itself."""

    def __init__(self, arguments: Sequence[str] = ()) -> None:
        self.servers = [EtcdServer(arguments, name=f"member{number}") for number in range(3)]
        for server in self.servers:
            server.members = ",".join(one.member for one in self.servers)

    @property
    def endpoints(self) -> list[str]:
        return [server.endpoint for server in self.servers]

    def start(self) -> EtcdCluster:
        """Start all, and return when they answer."""
        for server in self.servers:
            server.launch()
        for server in self.servers:
            server.wait_until_healthy()
        return self

    def leader(self) -> EtcdServer:
        """The member that leads now."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for server in self.servers:
                if server.process is not None and server.leads():
                    return server
            time.sleep(0.02)
        pytest.fail("no member of etcd leads")

    def stop(self) -> None:
        """End all and remove their data. Twice is harmless."""
        for server in self.servers:
            server.stop()

    def log(self) -> str:
        return "\n".join(server.log() for server in self.servers)

    def __enter__(self) -> EtcdCluster:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()
