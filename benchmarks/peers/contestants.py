"""Starts the peers: Redis with an append-only file on the disk, the workers, and Flask under gunicorn.

Redis' usual durable setting is `appendfsync everysec`: it answers before the disk has the data and may lose a second
of work when the power goes. mr's stores never answer before. `always` makes the same promise and costs the peers
some of their speed; the report says which was used.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from benchmarks.peers import install
from benchmarks.processes import HOST, Crew, free_ports

ROOT = Path(__file__).resolve().parent.parent.parent
CORES = os.cpu_count() or 1


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """What can be tried to find the peers' best; the defaults are what won on two cores.

    Fronts: Celery's answers with the least CPU from threads, Dramatiq's from gevent; a second gunicorn worker gained
    nothing. Dramatiq with 1, 2, 4 threads was slower than with 8, 16 gained nothing; a prefetch of 100 saves a tenth
    of the CPU, of 1000 no more.
    """

    appendfsync: str = "everysec"
    celery_prefetch: int = 16
    dramatiq_threads: int = 8
    dramatiq_prefetch: int = 100


def start_celery(crew: Crew, tuning: Tuning) -> int:
    """Start Celery behind Flask; returns the port of the front end."""
    python = install.python()
    environment = {**_redis(crew, tuning), "BENCH_PREFETCH": str(tuning.celery_prefetch)}
    worker: list[str | Path] = [
        python,
        "-m",
        "celery",
        "-A",
        "benchmarks.peers.celery_tasks",
        "worker",
        f"--concurrency={CORES}",
    ]
    worker += ["--pool=prefork", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    crew.start("celery worker", worker, environment)
    return _front(crew, python, "celery", environment, ["--worker-class=gthread", "--threads=8"])


def start_dramatiq(crew: Crew, tuning: Tuning) -> int:
    """Start Dramatiq behind Flask; returns the port of the front end."""
    python = install.python()
    environment = {**_redis(crew, tuning), "dramatiq_queue_prefetch": str(tuning.dramatiq_prefetch)}
    worker: list[str | Path] = [python, "-m", "dramatiq", "benchmarks.peers.dramatiq_tasks", f"--processes={CORES}"]
    worker += [f"--threads={tuning.dramatiq_threads}"]
    crew.start("dramatiq worker", worker, environment)
    return _front(crew, python, "dramatiq", environment, ["--worker-class=gevent"])


def _redis(crew: Crew, tuning: Tuning) -> dict[str, str]:
    """Start a Redis; returns the environment of its users."""
    [port] = free_ports(1)
    command: list[str | Path] = [
        install.redis_server(),
        "--port",
        str(port),
        "--bind",
        HOST,
        "--dir",
        crew.folder,
        "--save",
        "",
    ]
    command += ["--appendonly", "yes", "--appendfsync", tuning.appendfsync]
    crew.start("redis", command)

    def answers() -> bool:
        try:
            with socket.create_connection((HOST, port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    crew.wait_until(answers, "Redis answered")
    return {**os.environ, "PYTHONPATH": str(ROOT), "BENCH_REDIS": f"redis://{HOST}:{port}/0"}


def _front(crew: Crew, python: Path, peer: str, environment: Mapping[str, str], kind: list[str]) -> int:
    [port] = free_ports(1)
    command: list[str | Path] = [
        python,
        "-m",
        "gunicorn",
        f"benchmarks.peers.{peer}_front:app",
        "--bind",
        f"{HOST}:{port}",
    ]
    command += [*kind, "--workers=1", "--keep-alive=75", "--log-level=warning"]
    crew.start(f"{peer} front", command, environment)
    crew.wait_for_http(port)
    return port
