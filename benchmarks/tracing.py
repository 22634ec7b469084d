"""`python -m benchmarks.tracing`: what the commands cost that trace a request of ten thousand invocations.

Requests of three shapes are made through the services, without a worker; then each command runs as a process. The
time on the wall is the user's; the time of a core is what can be compared on a machine that does other things, too.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mr.wiring import Parts
from tests.unit.small_worker import SmallWorker
from tests.unit.test_tracing import defined

INVOCATIONS = 10_000
LIST = "from mr.cli.jobx import mr_get_invocation_flat_list as main; main()"
COMMANDS: list[list[str]] = [
    ["why"], ["tree"], ["tree", "--all"], ["graph"], ["graph", "--format", "svg", "--output", "-"],
    ["request", "dump"], ["timeline"], ["timeline", "--svg", "/dev/null"],
]  # fmt: skip


def wide(path: str, pairs: list[Any]) -> Any:
    """One mapper of very many leaves."""
    return ("count", [[[f"key{number}", number]] for number in range(INVOCATIONS)]) if path == "0" else pairs


def deep(path: str, pairs: list[Any]) -> Any:
    """Half as many mappers, of one leaf each."""
    if path == "0":
        return "count", [[[f"key{number}", number]] for number in range(INVOCATIONS // 2)]
    return ("count", [[["a", 1]]]) if path.count(".") == 1 else pairs


def failing(path: str, pairs: list[Any]) -> Any:
    """Very many leaves, of which one fails in the middle."""
    if path == f"0.{INVOCATIONS // 2}":
        raise ValueError("boom")
    return wide(path, pairs)


def made(parts: Parts, decide: Callable[[str, list[Any]], Any]) -> str:
    """The id of a request that has run."""
    r = parts.submission.submit("w", "j", {"a": 1}).request_id
    SmallWorker(parts, decide).work("w", r)
    return r


def cost(command: list[str], environ: dict[str, str]) -> tuple[float, float, int]:
    """Seconds on the wall, seconds of a core, and lines written."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, *command], env=environ, stdout=subprocess.PIPE, check=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, core, done.stdout.count(b"\n")


def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory(prefix="mr-tracing-") as folder:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MR_")}
        environ["MR_STORE"] = f"sqlite:///{folder}/mr.db"
        parts = defined(Path(folder))
        print(f"{'request':<10} {'command':<34} {'wall':>8} {'core':>8} {'lines':>8}")
        for decide in (wide, failing, deep):
            r = made(parts, decide)
            commands = [(" ".join(words), ["-m", "mr.cli.main", *words, r]) for words in COMMANDS]
            for name, command in [*commands, ("mr_get_invocation_flat_list", ["-c", LIST, "w", r])]:
                wall, core, lines = cost(command, environ)
                print(f"{decide.__name__:<10} {name:<34} {wall:6.2f} s {core:6.2f} s {lines:8,}", flush=True)
        parts.close()


if __name__ == "__main__":
    main()
