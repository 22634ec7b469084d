"""The Flask front of a peer: the route and the shapes of mr, so that one client does for all."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, jsonify, request
from flask.wrappers import Response

WAIT_S = 60.0

Job = Callable[[Mapping[str, int]], int]
"""Takes the arguments of a request, waits for its end, returns the sum."""


def create_app(jobs: Mapping[str, Job]) -> Flask:
    """A front end for these jobs."""
    app = Flask(__name__)

    @app.get("/")
    def ready() -> str:
        return "ready"

    @app.post("/job/bench/<name>")
    def run(name: str) -> Response:
        body: dict[str, Any] = request.get_json()
        return jsonify({"result": {"pairs": [["sum", jobs[name](body["arguments"])]]}})

    return app
