"""mr as a contestant, on both pairs of store and broker. The only file here that knows mr's commands and settings.

Definitions go in before the processes start, by the commands that people would use. Everything is kept for a day, so
the whole tree of each request can be read after it is done, on both pairs alike.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.peers.install import cache_folder
from benchmarks.processes import HOST, BenchmarkError, Crew, free_ports

WORKFLOW = "bench"
HANDLERS = Path(__file__).with_name("handlers")
COMMAND_TIMEOUT_S = 60.0

STEPS = [
    # name, mapper, combiner, reducer
    ("item", "square", "", "total"),
    ("pair", "square", "", "total"),
    ("each", "each", "", "total"),
    ("spread", "spread", "", "total"),
    ("bad", "misbehave", "", "total"),
]
JOBS = [
    ("two", "pair", "Square two numbers in one invocation and add them up"),
    ("each", "each", "Square each number in an invocation of its own and add them up"),
    ("many", "spread", "Square the first numbers, each in an invocation of its own, and add them up"),
    ("bad", "bad", "Do harm"),
]
NSQD_FLAGS = ["-mem-queue-size=0", "-sync-timeout=50ms", "-queue-scan-selection-count=1000", "-log-level=error"]
"""As advised for production: messages go to the disk."""
KEPT = {"MR_CLEANUP_MANDATORY_QUIET_PERIOD_S": "86400"}


class Service(msgspec.Struct, frozen=True):
    """mr while it runs: its front end's port, the environment for commands beside it.

    `messages` says how many messages its broker has been given so far.
    """

    port: int
    environment: dict[str, str]
    messages: Callable[[], int]

    def tree_size(self, request_id: str) -> int:
        """How many invocations of a request can be read now, all of them done.

        Raises: BenchmarkError.
        """
        tree = json.loads(command(self.environment, "tree", request_id, "--json"))
        if tree["done"] != tree["total"]:
            raise BenchmarkError(f"the tree of {request_id} shows {tree['done']} of {tree['total']} done")
        return int(tree["total"])


Start = Callable[[Crew], Service]


def program() -> list[str]:
    """The command `mr` of this Python."""
    script = Path(sys.executable).with_name("mr")
    return [str(script)] if script.exists() else [sys.executable, "-m", "mr.cli.main"]


def command(environment: Mapping[str, str], *words: str) -> str:
    """Run a command of mr; returns what it printed.

    Raises: BenchmarkError.
    """
    done = subprocess.run(
        [*program(), *words], env=dict(environment), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
    )
    if done.returncode != 0:
        raise BenchmarkError(f"mr {' '.join(words)} exited with {done.returncode}:\n{done.stderr.strip()[-1500:]}")
    return done.stdout


def embedded(crew: Crew, extra: Mapping[str, str]) -> Service:
    """`mr dev` on a SQLite file."""
    environment = _environment({"MR_STORE": f"sqlite:///{crew.folder / 'mr.db'}", **extra})
    _define(environment)
    [port] = free_ports(1)
    crew.start("mr dev", [*program(), "dev", "--bind", f"{HOST}:{port}"], environment)
    crew.wait_for_http(port)
    return Service(port, environment, partial(_messages_in_file, crew.folder / "mr.db"))


def cluster(crew: Crew, extra: Mapping[str, str]) -> Service:
    """`mr web` and `mr worker` on an etcd and an nsqd of their own."""
    etcd_port, peer_port, tcp_port, http_port, port = free_ports(5)
    client, peer = f"http://{HOST}:{etcd_port}", f"http://{HOST}:{peer_port}"
    etcd = [_server("etcd"), "--name=bench", f"--data-dir={crew.folder / 'etcd'}", "--logger=zap", "--log-level=error"]
    etcd += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}"]
    crew.start("etcd", [*etcd, f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=bench={peer}"])
    (crew.folder / "nsqd").mkdir()
    nsqd = [_server("nsqd"), f"-data-path={crew.folder / 'nsqd'}", f"-broadcast-address={HOST}", *NSQD_FLAGS]
    crew.start("nsqd", [*nsqd, f"-tcp-address={HOST}:{tcp_port}", f"-http-address={HOST}:{http_port}"])
    crew.wait_for_http(etcd_port, "/health")
    crew.wait_for_http(http_port, "/ping")
    environment = _environment(
        {
            "MR_STORE": f"etcd3://{HOST}:{etcd_port}",
            "MR_BROKER": f"nsq://{HOST}:{tcp_port}?http={HOST}:{http_port}",
            "MR_AUTH": "off",
            **extra,
        }
    )
    _define(environment)
    crew.start("mr worker", [*program(), "worker"], environment)
    crew.start("mr web", [*program(), "web", "--bind", f"{HOST}:{port}"], environment)
    crew.wait_for_http(port)
    return Service(port, environment, partial(_messages_in_nsqd, http_port))


def _messages_in_file(path: Path) -> int:
    """The counter in the SQLite file from which messages get their ids."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        [count] = database.execute("SELECT next_message FROM meta").fetchone()
    return int(count)


def _messages_in_nsqd(http_port: int) -> int:
    """What nsqd counts itself, over all topics."""
    with urllib.request.urlopen(f"http://{HOST}:{http_port}/stats?format=json") as answer:
        return sum(int(topic["message_count"]) for topic in json.load(answer)["topics"])


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment without the caller's own settings of mr, with these."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("MR_")}
    return {**kept, **KEPT, **settings}


def _define(environment: Mapping[str, str]) -> None:
    command(environment, "workflow", "create", WORKFLOW, "Workloads of the benchmarks")
    command(environment, "handler", "sync", WORKFLOW, str(HANDLERS))
    for name, mapper, combiner, reducer in STEPS:
        command(environment, "step", "create", WORKFLOW, name, f"Step {name}", mapper, combiner, reducer)
    for name, step, description in JOBS:
        command(environment, "job", "create", WORKFLOW, name, description, step)


def _server(name: str) -> str:
    """Path of a server's program, where `scripts/backends` put it.

    Raises: BenchmarkError.
    """
    places = [str(cache_folder() / "bin"), os.environ.get("PATH", os.defpath), "/usr/sbin"]
    if found := shutil.which(name, path=os.pathsep.join(places)):
        return found
    raise BenchmarkError(f"there is no {name} here; run scripts/backends")
