"""A client of the front end, as simple as clients are: one connection for one question, no retries."""

from __future__ import annotations

import http.client
import json
from threading import Thread
from typing import Any, NamedTuple

from tests.chaos import jobs

ANSWER_S = 10.0
WAIT_S = 120.0
"""Longer than any trial: the front end has to answer, or be killed, before."""


class Answer(NamedTuple):
    """What the front end said; `document` is its JSON, None where there was none."""

    status: int
    request_id: str
    document: Any


def is_up(port: int) -> bool:
    """Whether the front end answers."""
    try:
        return _ask(port, "GET", "/", timeout_s=1.0).status == 200
    except (OSError, http.client.HTTPException):
        return False


def result(port: int, request_id: str) -> Answer:
    """The result of a request by its id. Raises: OSError, http.client.HTTPException."""
    return _ask(port, "GET", f"/request/{jobs.WORKFLOW}/{request_id}/result", timeout_s=ANSWER_S)


def _ask(port: int, method: str, path: str, body: bytes | None = None, *, timeout_s: float) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
        is_json = "json" in (response.getheader("Content-Type") or "")
        request_id = response.getheader("X-MR-REQUEST-ID") or ""
        return Answer(response.status, request_id, json.loads(data) if is_json else None)
    finally:
        connection.close()


class WaitingClient(Thread):
    """Posts a job and waits in a thread. Afterwards `answer` is set, or `error` if the connection broke."""

    def __init__(self, port: int, job: str, arguments: dict[str, Any]) -> None:
        super().__init__(name="waiting client", daemon=True)
        self._port, self._job, self._arguments = port, job, arguments
        self.answer: Answer | None = None
        self.error: Exception | None = None

    def run(self) -> None:
        body = json.dumps({"arguments": self._arguments}).encode()
        try:
            self.answer = _ask(self._port, "POST", f"/job/{jobs.WORKFLOW}/{self._job}", body, timeout_s=WAIT_S)
        except (OSError, http.client.HTTPException) as error:
            self.error = error

    def __str__(self) -> str:
        if self.error is not None:
            return f"its connection broke: {self.error!r}"
        if self.answer is None:
            return "it still waits"
        return f"it was answered {self.answer.status}: {str(self.answer.document)[:300]}"
