"""An event: something that happened to a request, kept until every destination has taken it."""

from __future__ import annotations

from typing import Any

import msgspec

KINDS = ("request.succeeded", "request.failed", "request.cancelled", "invocation.failed")


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `webhooks/<destination>/<due>/<id>` holds. `kind` is one of KINDS; the id is the same for all destinations.

    `subject` is the request, or the invocation, that it is about. `attempts` is how often sending it has failed.
    """

    id: str
    kind: str
    at: str
    workflow: str
    subject: str
    data: dict[str, Any]
    attempts: int = 0
