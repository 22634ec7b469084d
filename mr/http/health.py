"""`/`, `/livez` and `/readyz`: who we are, that the process lives, and whether it can do its work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response

from mr import codec
from mr.errors import BrokerUnavailable, MrError
from mr.http.errors import JSON, RETRY_AFTER_S
from mr.http.front_end import FrontEnd
from mr.ports.broker import Publisher

TEXT = "text/plain; charset=utf-8"


def routes(front_end: FrontEnd) -> Blueprint:
    """The routes of health."""
    blueprint = Blueprint("health", __name__)

    @blueprint.get("/")
    def root() -> Response:
        return Response("Map me. Reduce me.", content_type=TEXT)

    @blueprint.get("/livez")
    def livez() -> Response:
        return Response("ok", content_type=TEXT)

    @blueprint.get("/readyz")
    def readyz() -> Response:
        checks = readiness(front_end)
        ready = all(check["ok"] for check in checks.values())
        answer = Response(codec.encode({"ready": ready, "checks": checks}), 200 if ready else 503, content_type=JSON)
        if not ready:
            answer.headers["Retry-After"] = RETRY_AFTER_S
        return answer

    return blueprint


def readiness(front_end: FrontEnd) -> dict[str, dict[str, Any]]:
    """Each check by its name: `ok`, and a `message` that says what is missing."""
    parts = front_end.parts
    checks = {"store": check(front_end, parts.store.revision)}
    if not parts.publisher.joins_commit:
        checks["broker"] = check(front_end, partial(has_instances, parts.publisher))
    if not checks["store"]["ok"]:
        return checks
    for w in parts.settings.worker.workflows or ():
        found = check(front_end, partial(parts.registry.current, w))
        if found.get("code") == "unknown_workflow":
            found["message"] += f"; create it: mr workflow create {w} DESCRIPTION"
        checks[f"workflow {w}"] = found
    return checks


def has_instances(publisher: Publisher) -> None:
    """Raises: BrokerUnavailable if no instance of the broker answers."""
    if not publisher.instances():
        raise BrokerUnavailable("no instance of the broker answers")


def check(front_end: FrontEnd, question: Callable[[], object]) -> dict[str, Any]:
    """Whether the question can be answered."""
    try:
        front_end.health.call(question)
    except MrError as error:
        return {"ok": False, "code": error.code, "message": str(error)}
    return {"ok": True}
