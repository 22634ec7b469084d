"""How an event is sent: as a CloudEvent, signed by the scheme of Standard Webhooks, again and again for three days.

    signature = base64(HMAC-SHA256(secret, id + "." + timestamp + "." + body))

The id is that of the event, so that a receiver knows a repeat; the timestamp is that of the attempt, so that one who
replays an old one is known, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Literal

from mr import codec
from mr.model.event import Event

PAUSES_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
"""After each failed attempt; after the last nobody tries again. As Standard Webhooks advises."""


def pause_s(attempts: int) -> float | None:
    """How long to wait after so many failed attempts; None: no longer."""
    return PAUSES_S[attempts - 1] if attempts <= len(PAUSES_S) else None


def message(event: Event, mode: Literal["structured", "binary"]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a CloudEvent."""
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": f"/mr/{event.workflow}",
        "type": f"mr.{event.kind}",
        "subject": event.subject,
        "time": event.at,
    }
    if mode == "binary":
        headers = {f"ce-{name}": value for name, value in attributes.items()}
        return headers | {"Content-Type": "application/json"}, codec.encode(event.data)
    document = attributes | {"datacontenttype": "application/json", "data": event.data}
    return {"Content-Type": "application/cloudevents+json; charset=utf-8"}, codec.encode(document)


def signature(secrets: Sequence[bytes], event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers by which a receiver knows that it is ours; with several secrets, while they are changed, by each."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    made = [base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode() for secret in secrets]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{one}" for one in made),
    }
