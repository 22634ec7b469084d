"""`python -m benchmarks`: run workloads, print tables on stderr and, with --json, everything on stdout."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

import msgspec

from benchmarks import report
from benchmarks.machine import data_folder, describe
from benchmarks.measure import Contestant, judge, take_turns
from benchmarks.peers import install
from benchmarks.peers.contestants import Tuning
from benchmarks.processes import BenchmarkError
from benchmarks.workloads import ONCE, WORKLOADS, Options

DEFAULT = ["w1", "w2", "w3"]
SHOWN = ("celery", "dramatiq", "redis", "flask", "gunicorn", "gevent")
NAMES = f"workloads: {', '.join(WORKLOADS)} (default: {' '.join(DEFAULT)})"


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, epilog=NAMES)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="what to run")
    parser.add_argument("--json", action="store_true", help="print everything measured on stdout")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant (default: 5)")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="contestants whose name has TEXT")
    parser.add_argument("--folder", type=Path, help="where data goes; must lie on a disk")
    parser.add_argument("--requests", type=int, default=300, help="w1: requests in a row (default: 300)")
    parser.add_argument("--items", type=int, default=10_000, help="w2: items of the job (default: 10000)")
    parser.add_argument("--scale", type=int, metavar="N", help="w2: also a job of N items on mr, such as 100000")
    parser.add_argument("--seconds", type=float, default=20.0, help="w3: how long (default: 20)")
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="idle: how long (default: 60)")
    tuned = Tuning()
    parser.add_argument(
        "--appendfsync", choices=["always", "everysec"], default=tuned.appendfsync,
        help=f"how durable the peers' Redis is (default: {tuned.appendfsync})",
    )  # fmt: skip
    parser.add_argument("--celery-prefetch", type=int, default=tuned.celery_prefetch)
    parser.add_argument("--dramatiq-threads", type=int, default=tuned.dramatiq_threads)
    parser.add_argument("--dramatiq-prefetch", type=int, default=tuned.dramatiq_prefetch)
    return parser


def run(given: argparse.Namespace) -> int:
    """Run what was asked for; the exit code."""
    tuning = Tuning(
        appendfsync=given.appendfsync,
        celery_prefetch=given.celery_prefetch,
        dramatiq_threads=given.dramatiq_threads,
        dramatiq_prefetch=given.dramatiq_prefetch,
    )
    options = Options(
        disk=data_folder(given.folder),
        requests=given.requests,
        items=given.items,
        scale=given.scale,
        seconds=given.seconds,
        idle_s=given.idle_seconds,
        tuning=tuning,
    )
    versions = peer_versions()
    machine = describe(options.disk)
    report.show_machine(machine, versions, tuning)
    findings: dict[str, report.Finding] = {}
    for name in given.workloads or DEFAULT:
        workload = WORKLOADS[name](options)
        report.say(f"\n{workload.title}")
        rounds = 1 if name in ONCE else given.rounds
        taking_part = [one for one in workload.contestants if is_wanted(one, given.only)]
        standings = take_turns(taking_part, rounds, report.show_turn)
        findings[name] = report.Finding(workload.title, standings, judge(workload.goals, standings))
        report.show(findings[name])
    if given.json:
        whole = report.Report(machine, versions, tuning, given.rounds, findings)
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(whole)) + b"\n")
    return int(any(one.errors for finding in findings.values() for one in finding.standings.values()))


def is_wanted(contestant: Contestant, only: list[str]) -> bool:
    return not only or any(text in contestant.name for text in only)


def peer_versions() -> dict[str, str]:
    """Versions of the peers that matter, as pinned."""
    pins = dict(
        line.lower().split("==") for line in install.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")
    )
    return {name: pins[name] for name in SHOWN}


def stop(_signal: int, _frame: FrameType | None) -> None:
    """SIGTERM ends like Ctrl-C: what was started is ended first. A shell may have had SIGINT ignored."""
    raise KeyboardInterrupt


def main() -> int:
    parser = arguments()
    given = parser.parse_args()
    if unknown := [name for name in given.workloads if name not in WORKLOADS]:
        parser.error(f"unknown workload {unknown[0]!r}; {NAMES}")
    for kind in (signal.SIGINT, signal.SIGTERM):
        signal.signal(kind, stop)
    try:
        return run(given)
    except BenchmarkError as error:
        report.say(f"benchmarks: {error}")
        return 1
    except KeyboardInterrupt:
        report.say("benchmarks: interrupted; everything that was started is ended")
        return 130


if __name__ == "__main__":
    sys.exit(main())
