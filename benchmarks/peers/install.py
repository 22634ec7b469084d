"""Gets the peers: Python packages into a virtual environment in the cache folder, Redis from the distribution.

Nothing is done when all is there. No service is started or changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import BenchmarkError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
POLICY = Path("/usr/sbin/policy-rc.d")


def cache_folder() -> Path:
    """Where mr keeps what it fetched; `scripts/backends` uses the same."""
    if given := os.environ.get("MR_CACHE_DIR"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mr"


def python() -> Path:
    """The Python of the peers' virtual environment, which is made if it is missing or has other versions.

    Raises: BenchmarkError.
    """
    folder = cache_folder() / "peers"
    program, stamp = folder / "bin" / "python", folder / "installed.txt"
    wanted = f"{sys.version.split()[0]}\n{REQUIREMENTS.read_text()}"
    if program.exists() and stamp.exists() and stamp.read_text() == wanted:
        return program
    print(f"benchmarks: installing the peers into {folder}", file=sys.stderr)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    _run([str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)])
    stamp.write_text(wanted)
    return program


def redis_server() -> Path:
    """The Redis server, installed with apt-get if there is none and this is root.

    Raises: BenchmarkError.
    """
    if found := shutil.which("redis-server"):
        return Path(found)
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise BenchmarkError("there is no redis-server on PATH; install it (Debian: apt-get install redis-server)")
    print("benchmarks: installing redis-server", file=sys.stderr)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _services_forbidden():
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "redis-server"], environment)
    if found := shutil.which("redis-server"):
        return Path(found)
    raise BenchmarkError("redis-server was installed and is still not on PATH")


@contextmanager
def _services_forbidden() -> Iterator[None]:
    """Debian starts what it installs unless a policy forbids it. One that somebody else put there is never replaced.

    Raises: BenchmarkError if there is one that lets services start.
    """
    if POLICY.exists():
        if subprocess.run([POLICY, "redis-server", "start"], capture_output=True).returncode != 101:
            raise BenchmarkError(f"{POLICY} lets services start; install redis-server by hand")
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    try:
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
