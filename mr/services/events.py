"""Events: what is written for other systems when something happens to a request.

They are written by the transaction that makes it true, so that there is an event exactly if it happened, whoever dies
then; one for each destination, which is sent and repeated by itself (`postman`). Nothing is written where nobody is to
hear of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from mr import codec
from mr.addresses import HttpUrl
from mr.clock import stamp
from mr.model.event import Event
from mr.model.invocation import ErrorReport
from mr.model.request import Request, RequestState
from mr.ports.store import Delete, Put
from mr.rules import keys

MESSAGE_MAX = 1000
"""Characters of an error's message; who wants all of it asks for the request."""
_ERROR = ("class", "type", "message", "handler", "version", "invocation", "attempt", "worker")


def destination(url: HttpUrl) -> str:
    """The name of a destination in keys."""
    return hashlib.sha256(url.address.encode()).hexdigest()[:8]


class Events:
    """Makes the operations that belong into the transaction. `kinds` are those that are asked for."""

    def __init__(self, destinations: Sequence[str] = (), kinds: Sequence[str] = ()) -> None:
        self._destinations, self._kinds = destinations, frozenset(kinds)

    def of_end(self, w: str, r: str, request: Request, now: datetime) -> list[Put | Delete]:
        """For a request that ends as this record says."""
        data: dict[str, Any] = {
            "workflow": w,
            "job": request.job_name,
            "request": r,
            "state": request.state.value,
            "epoch": request.epoch,
            "created_at": request.created_at,
            "finished_at": request.finished_at,
        }
        if request.error is not None:
            data["error"] = _brief(request.error)
        if request.written is not None and request.state is RequestState.SUCCEEDED:
            data["written"] = request.written
        return self._puts(
            f"{r}.{request.epoch}.{request.state.value}", f"request.{request.state.value}", w, r, data, now
        )

    def of_attempt(self, w: str, r: str, key: str, report: ErrorReport, now: datetime) -> list[Put | Delete]:
        """For a failed attempt that is recorded under this key."""
        if not report.invocation:
            return []  # one to write the result; what comes of it is an end
        data = {"workflow": w, "request": r, **_brief(codec.loads(codec.encode(report)))}
        name = f"{report.invocation}.{key.rpartition('/')[2]}"
        return self._puts(name, "invocation.failed", w, report.invocation, data, now)

    def _puts(
        self, name: str, kind: str, w: str, subject: str, data: dict[str, Any], now: datetime
    ) -> list[Put | Delete]:
        if kind not in self._kinds or not self._destinations:
            return []
        event = codec.encode(Event(id=name, kind=kind, at=stamp(now), workflow=w, subject=subject, data=data))
        return [Put(keys.webhook(to, stamp(now), name), event) for to in self._destinations]


def _brief(error: dict[str, Any]) -> dict[str, Any]:
    found = {name: error[name] for name in _ERROR if name in error}
    return found | {"message": str(found.get("message", ""))[:MESSAGE_MAX]}
