"""Notifications out of a whole service: JX-92, JX-93, JX-95, JX-96."""

from __future__ import annotations

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
