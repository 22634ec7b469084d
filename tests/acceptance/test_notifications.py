"""Notifications and webhooks out of a whole service: JX-92, JX-93, JX-95, JX-96."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
from urllib.parse import parse_qs

from tests.acceptance.conftest import Shared
from tests.acceptance.sources import mapper, reducer
from tests.receivers import Posted, listener, mail_server

ALL = "for key, values in results: yield key, values"


def form(posted: Posted) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(posted.body.decode()).items()}


def test_JX_92_a_failure_is_told_once_by_mail_and_by_http(pair: Shared, w: str) -> None:
    capability = f"told-{w}"
    first = "NOTIFY.info('begins'); EMAIL.warning('to %s', 'ana')\nyield MrConfigureToReturn()\nyield 'a', 1"
    failing = "yield 'a', 1\nraise KeyError('of the reducer')"
    pair.define(w, {"start": (mapper(first, capability=capability), reducer(failing, capability=capability))})
    with mail_server() as mails, listener() as posts:
        environ = {
            "MR_LOG_EMAIL_HOOK": "1", "MR_LOG_EMAIL_TO": "ana@example.org", "MR_LOG_EMAIL_HOSTNAME": "127.0.0.1",
            "MR_LOG_EMAIL_HOST_PORT": str(mails.port),
            "MR_LOG_HTTP_HOOK": "1", "MR_LOG_HTTP_HOSTNAME": "127.0.0.1", "MR_LOG_HTTP_PORT": str(posts.port),
        }  # fmt: skip
        with pair.worker(capability, only=w, **environ) as worker:
            reply = pair.post(w)
            assert reply.error["type"] == "KeyError"
            begins, failed = map(form, posts.wait(2))
            assert worker.stop() == 0  # and tells what waits
        r = reply.request_id
        assert (begins["msg"], begins["levelname"]) == ("begins", "INFO")
        assert [begins[name] for name in ("workflow", "request", "invocation", "handler")] == [
            w,
            r,
            f"{r}.0",
            "start_map",
        ]
        told = f"Reducer invocation [{reply.error['invocation']}] under request [{r}] failed. HANDLER=[start_reduce]"
        assert failed["msg"].startswith(f"{told}\nTraceback (most recent call last):\n")
        assert failed["msg"].endswith("KeyError: 'of the reducer'\n")
        assert len(posts.posted) == 2
        texts = [mail.message.get_body().get_content().splitlines()[0] for mail in mails.mails]  # type: ignore[union-attr]
        assert texts == ["begins", "to ana", told]


def test_JX_95_hooks_that_lead_nowhere_change_nothing(pair: Shared, w: str) -> None:
    capability = f"told-{w}"
    code = "NOTIFY.info('x'); EMAIL.info('x'); HTTP.info('x')\nyield MrConfigureToReturn()\nyield 'a', 1"
    pair.define(w, {"start": (mapper(code, capability=capability), reducer(ALL, capability=capability))})
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = str(closed.getsockname()[1])
        environ = {
            "MR_LOG_EMAIL_HOOK": "1", "MR_LOG_EMAIL_TO": "ana@example.org", "MR_LOG_EMAIL_HOSTNAME": "127.0.0.1",
            "MR_LOG_EMAIL_HOST_PORT": port,
            "MR_LOG_HTTP_HOOK": "1", "MR_LOG_HTTP_HOSTNAME": "127.0.0.1", "MR_LOG_HTTP_PORT": port,
        }  # fmt: skip
        with pair.worker(capability, only=w, **environ) as worker:
            assert pair.post(w).pairs == [["a", [1]]]
            assert worker.stop() == 0
            assert "notifications by http are lost" in worker.log
            assert "notifications by email are lost" in worker.log


def test_the_end_of_a_request_and_what_failed_on_the_way_are_sent_as_signed_events(pair: Shared, w: str) -> None:
    capability = f"told-{w}"
    first = "yield MrConfigureToReturn()\nif arguments[0][1]: raise ValueError('no')\nyield 'a', 1"
    pair.define(w, {"start": (mapper(first, capability=capability), reducer(ALL, capability=capability))})
    secret = b"0123456789abcdef" * 2
    with listener() as posts:
        posts.answers = [(500, b"")]
        environ = {
            "MR_WEBHOOK_URLS": f"http://127.0.0.1:{posts.port}/in", "MR_WEBHOOK_PRIVATE_HOSTS": "127.0.0.1",
            "MR_WEBHOOK_SECRETS": f"whsec_{base64.b64encode(secret).decode()}",
        }  # fmt: skip
        with pair.worker(capability, only=w, **environ) as worker:
            good = pair.post(w, {"fails": 0}).request_id
            refused, *_ = posts.wait(1)
            worker.stop()
        # What was refused stands in the store: another worker sends it when it is due.
        with pair.worker(capability, only=w, **environ):
            bad = pair.post(w, {"fails": 1}).request_id
            _, *taken = posts.wait(4)
    events = {event["id"]: event for event in (json.loads(posted.body) for posted in taken)}
    assert refused.headers["webhook-id"] == f"{good}.1.succeeded"
    assert {event["type"] for event in events.values()} == {
        "mr.request.succeeded", "mr.request.failed", "mr.invocation.failed",
    }  # fmt: skip
    assert events[f"{good}.1.succeeded"]["data"]["state"] == "succeeded"
    assert events[f"{bad}.1.failed"]["data"]["error"]["type"] == "ValueError"
    for posted in [refused, *taken]:
        assert posted.headers["content-type"].startswith("application/cloudevents+json")
        signed = f"{posted.headers['webhook-id']}.{posted.headers['webhook-timestamp']}.".encode() + posted.body
        made = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        assert posted.headers["webhook-signature"] == f"v1,{made}"
