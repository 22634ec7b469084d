"""Memory over time: small requests, one after the other, and no process may go on growing.

What a process needs in the end it has after the first tenth: caches are filled, threads started, heaps as big as the
load makes them. From then on its size has to stay. Executors are replaced after some thousand invocations, so of
them the biggest one counts each time.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from typing import Any

import msgspec

from tests.chaos.deployment import Deployment
from tests.soak import jobs
from tests.soak.sizes import Size, sizes

CLIENTS = 12
GROWTH_MAX = 0.2
ANSWER_S = 60.0


class Outcome(msgspec.Struct, kw_only=True):
    """What came of it. `looks` are the sizes of all processes after so many requests."""

    pair: str
    requests: int
    seconds: float
    looks: dict[int, dict[str, Size]]
    problems: list[str]

    def __str__(self) -> str:
        first, *_, last = self.looks
        lines = [f"{self.pair}: {self.requests} requests, {self.requests / self.seconds:.0f} a second"]
        for name, size in self.looks[last].items():
            before = self.looks[first][name]
            steps = " ".join(f"{look[name].rss_mb:.0f}" for look in self.looks.values())
            lines.append(
                f"  {name}: {before.rss_mb:.1f} MB after {first}, {size.rss_mb:.1f} MB after {last} "
                f"({size.rss_mb / before.rss_mb - 1:+.1%}); descriptors {before.descriptors}, {size.descriptors}; "
                f"on the way {steps}"
            )
        return "\n".join([*lines, *(f"  PROBLEM: {problem}" for problem in self.problems[:20])])


def run(pair: str, requests: int) -> Outcome:
    """Post so many small requests, and compare the sizes after all of them with those after a tenth."""
    step = max(1, requests // 10)
    looks: dict[int, dict[str, Size]] = {}
    with Deployment(pair, jobs.WORKFLOW, jobs.define) as deployment:
        posts = _Posts(deployment.port, requests)
        started = time.monotonic()
        posts.start()
        while posts.is_running:
            time.sleep(0.1)
            if posts.done >= step * (len(looks) + 1):
                looks[posts.done] = sizes(deployment)
                _say(pair, posts.done, requests, looks[posts.done], time.monotonic() - started)
        seconds = time.monotonic() - started
        looks.setdefault(posts.done, sizes(deployment))
        problems = posts.problems + deployment.end()
    first, *_, last = looks
    for name, size in looks[last].items():
        before = looks[first][name]
        if size.rss_mb > before.rss_mb * (1 + GROWTH_MAX):
            problems.append(f"{name} has grown from {before.rss_mb:.1f} MB to {size.rss_mb:.1f} MB")
        if size.descriptors > before.descriptors * (1 + GROWTH_MAX) + 2:
            problems.append(f"{name} had {before.descriptors} descriptors, and has {size.descriptors}")
    return Outcome(pair=pair, requests=requests, seconds=seconds, looks=looks, problems=problems)


def _say(pair: str, done: int, requests: int, look: dict[str, Size], seconds: float) -> None:
    now = ", ".join(f"{name} {size.rss_mb:.0f} MB" for name, size in look.items())
    print(f"{pair}: {done} of {requests} requests after {seconds:.0f} s; {now}", file=sys.stderr, flush=True)


class _Posts:
    """Threads that post the same small job on kept connections until there were so many answers."""

    def __init__(self, port: int, count: int) -> None:
        self._port, self._left = port, count
        self._lock = threading.Lock()
        self.done = 0
        self.problems: list[str] = []
        shape = jobs.SHAPES["tiny"]
        plan = jobs.Plan("memory", "tiny", list(shape.widths), shape.seconds, os.devnull, "", "")
        self._body = json.dumps({"arguments": plan.arguments()})
        self._tokens = plan.tokens()
        self._threads = [threading.Thread(target=self._post_on, daemon=True) for _ in range(CLIENTS)]

    @property
    def is_running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _post_on(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        while self._takes_one() and not self.problems:
            try:
                document = self._post(connection)
            except (OSError, http.client.HTTPException) as error:
                self.problems.append(f"a client was not answered: {error!r}")
                break
            if dict(document.get("result", {}).get("pairs", [])) != self._tokens:
                self.problems.append(f"a client was answered {str(document)[:300]}")
            with self._lock:
                self.done += 1
        connection.close()

    def _takes_one(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def _post(self, connection: http.client.HTTPConnection) -> dict[str, Any]:
        path = f"/job/{jobs.WORKFLOW}/{jobs.JOB}"
        connection.request("POST", path, self._body, {"Content-Type": "application/json"})
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found
