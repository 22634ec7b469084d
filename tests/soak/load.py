"""The load: clients that post drawn jobs, one after the other, and check what they are told.

One that is told to come back (202) asks for the result by the id of its request until it is there.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from tests.soak.jobs import JOB, WORKFLOW, Plan, draw

WAIT_S = 180.0
AGAIN_S = 0.2


class Load:
    """`clients` threads that post until `stop`. `answers` counts by status, 0 for a connection that broke."""

    def __init__(self, port: int, ledger: Path, seed: int, clients: int) -> None:
        self.answers: Counter[int] = Counter()
        self.latencies_s: list[float] = []
        self.refused: list[str] = []
        """Marks of postings of which the front end said that nothing was accepted."""
        self.problems: list[str] = []
        self._port, self._ledger = port, ledger
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._post_on, args=(Random(f"{seed} client {number}"),), daemon=True)
            for number in range(clients)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Post nothing more, and wait for the answers that are due."""
        self._stopped.set()
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if waiting := sum(thread.is_alive() for thread in self._threads):
            self.problems.append(f"{waiting} clients still wait for an answer")

    def _post_on(self, random: Random) -> None:
        while not self._stopped.is_set():
            plan = draw(random, self._ledger)
            started = time.monotonic()
            try:
                status, document = self._post(plan)
            except (OSError, http.client.HTTPException):
                status, document = 0, None  # whether it was accepted, the observer knows
            self.answers[status] += 1
            if status == 200:
                self.latencies_s.append(time.monotonic() - started)
            self.problems += _problems(plan, status, document)
            if status == 503:
                self.refused.append(plan.mark)
            if status in (0, 503, 504):
                self._stopped.wait(AGAIN_S)

    def _post(self, plan: Plan) -> tuple[int, Any]:
        body = json.dumps({"arguments": plan.arguments()})
        status, request_id, document = self._ask("POST", f"/job/{WORKFLOW}/{JOB}", body)
        if status != 202:
            return status, document
        self.answers[status] += 1
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            try:
                status, _, document = self._ask("GET", f"/request/{WORKFLOW}/{request_id}/result")
            except (OSError, http.client.HTTPException):
                status = 0  # the front end is on its way back
            if status not in (0, 202, 503):
                break
            self._stopped.wait(AGAIN_S)
        return status, document

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT_S)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.getheader("X-MR-REQUEST-ID") or "", json.loads(response.read())
        finally:
            connection.close()


def _problems(plan: Plan, status: int, document: Any) -> list[str]:
    if status in (0, 503, 504):
        return []
    if plan.error:
        if status == 500 and document["error"].get("class") == plan.error:
            return []
        return [f"a client with a {plan.shape} job was answered {status}: {str(document)[:300]}"]
    if status != 200:
        return [f"a client with a {plan.shape} job was answered {status}: {str(document)[:300]}"]
    pairs = document["result"]["pairs"]
    if dict(pairs) != plan.tokens() or len(pairs) != len(plan.tokens()):
        return [f"a client with a {plan.shape} job got the wrong result: {str(pairs)[:300]}"]
    return []
