"""Webhooks: events written with what they tell, sent signed, repeated from the store, and only where they may go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mr import codec
from mr.adapters.event_senders.http import HttpEventSender
from mr.addresses import HttpUrl, may_reach, parse_http
from mr.clock import stamp
from mr.errors import NotDelivered
from mr.model.event import Event
from mr.ports.event_sender import EventSender
from mr.ports.store import Entry
from mr.rules import keys, retry, webhook
from mr.services.events import destination
from mr.services.postman import Postman
from mr.settings import Settings
from mr.wiring import Parts
from tests.receivers import Listener, listener
from tests.unit.small_worker import Decide, SmallWorker
from tests.unit.test_tracing import SOURCES, maps_to
from tests.unit.test_writing import Noting

SECRET, NEXT = b"s" * 32, b"n" * 24
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
EVENT = Event(
    id="abc.1.succeeded", kind="request.succeeded", at=stamp(NOW), workflow="w", subject="abc", data={"state": "é"}
)


def whsec(secret: bytes) -> str:
    return "whsec_" + base64.b64encode(secret).decode()


# How an event looks


def test_an_event_is_a_structured_cloud_event() -> None:
    headers, body = webhook.message(EVENT, "structured")
    assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert json.loads(body) == {
        "specversion": "1.0", "id": "abc.1.succeeded", "source": "/mr/w", "type": "mr.request.succeeded",
        "subject": "abc", "time": "2026-11-21T12:00:00.000000Z", "datacontenttype": "application/json",
        "data": {"state": "é"},
    }  # fmt: skip


def test_an_event_is_a_binary_cloud_event_where_that_is_asked_for() -> None:
    headers, body = webhook.message(EVENT, "binary")
    assert json.loads(body) == {"state": "é"}
    assert headers == {
        "ce-specversion": "1.0", "ce-id": "abc.1.succeeded", "ce-source": "/mr/w", "ce-type": "mr.request.succeeded",
        "ce-subject": "abc", "ce-time": "2026-11-21T12:00:00.000000Z", "Content-Type": "application/json",
    }  # fmt: skip


def test_a_signature_is_that_of_standard_webhooks() -> None:
    """The example of its specification."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    made = webhook.signature([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def verified(posted: Any, secret: bytes) -> bool:
    """As a receiver does it."""
    signed = f"{posted.headers['webhook-id']}.{posted.headers['webhook-timestamp']}.".encode() + posted.body
    expected = "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return expected in posted.headers["webhook-signature"].split(" ")


# Where events may go


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1"],
)  # fmt: skip
def test_an_address_that_is_not_public_is_out_of_reach(address: str) -> None:
    assert not may_reach("hook.example.org", address, ())
    assert not may_reach("hook.example.org", address, ("other.example.org", "192.0.2.0/24"))
    assert may_reach("hook.example.org", address, ("hook.example.org",))


def test_a_public_address_and_an_allowed_network_are_within_reach() -> None:
    assert may_reach("h", "93.184.216.34", ())
    assert may_reach("h", "2606:4700::1111", ())
    assert may_reach("h", "10.1.2.3", ("10.1.0.0/16",))
    assert may_reach("h", "::ffff:10.1.2.3", ("10.1.0.0/16",))
    assert not may_reach("h", "10.2.0.1", ("10.1.0.0/16",))


@pytest.fixture(scope="module")
def posts() -> Iterator[Listener]:
    with listener() as found:
        yield found


def test_a_name_is_looked_at_where_the_connection_is_made(posts: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    posts.posted.clear()
    asked: list[str] = []

    def resolve(host: str, port: int, *_more: Any, **_named: Any) -> list[Any]:
        # Public when it is asked first, then this machine: a name server of the wrong people.
        asked.append(host)
        address = "127.0.0.1" if len(asked) > 1 or host != "rebind.example" else "93.184.216.34"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = parse_http(f"http://private.example:{posts.port}/")
    with pytest.raises(NotDelivered, match=r"private\.example is 127\.0\.0\.1, which is not public"):
        HttpEventSender().send(url, {}, b"{}")
    assert posts.posted == []
    asked.clear()
    HttpEventSender(["127.0.0.0/8"]).send(url, {}, b"{}")
    assert len(posts.posted) == 1
    # One look: what was checked is what is connected to. `create_connection` gets an address, and asks for that alone.
    assert asked[0] == "private.example"
    assert set(asked[1:]) <= {"127.0.0.1"}


@pytest.mark.parametrize("status", [301, 307, 400, 410, 500])
def test_an_answer_that_is_not_2xx_is_no_delivery_and_nobody_is_followed(posts: Listener, status: int) -> None:
    posts.posted.clear()
    posts.headers["Location"] = f"http://127.0.0.1:{posts.port}/elsewhere"
    posts.answers = [(status, b"x" * 100)]
    with pytest.raises(NotDelivered, match=f"answers {status}"):
        HttpEventSender(["127.0.0.1"]).send(parse_http(f"http://127.0.0.1:{posts.port}/in"), {}, b"{}")
    posts.headers.clear()
    assert [posted.path for posted in posts.posted] == ["/in"]


# What is written, and with what


def made(folder: Path, url: str = "https://hook.example.org/in", **environ: str) -> Parts:
    handlers = folder / "handlers"
    handlers.mkdir()
    for name, source in SOURCES.items():
        (handlers / f"{name}.py").write_text(source)
    given = {"MR_STORE": f"sqlite:///{folder}/mr.db", "MR_WEBHOOK_URLS": url, "MR_WEBHOOK_SECRETS": whsec(SECRET)}
    parts = Parts(Settings.from_env({**given, **environ}))
    parts.registry.create_workflow("w", "")
    parts.sync.apply(parts.sync.plan("w", handlers))
    parts.registry.create_step("w", "split", "", "split", "", "total")
    parts.registry.create_step("w", "count", "", "count", "", "total")
    parts.registry.create_job("w", "j", "", "split")
    return parts


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    built = made(tmp_path, "https://hook.example.org/in,https://other.example.org")
    yield built
    built.close()


def entries(parts: Parts) -> dict[str, list[Entry]]:
    """By destination."""
    return {
        str(url): list(parts.store.range(keys.webhooks(destination(url))).entries)
        for url in parts.settings.webhooks.urls
    }


def events(parts: Parts, number: int = 0) -> list[Event]:
    """What waits for one destination, in the order of its keys."""
    return [codec.decode(entry.value, Event) for entry in [*entries(parts).values()][number]]


def ended(parts: Parts, decide: Decide) -> str:
    r = parts.submission.submit("w", "j", {"a": 1}).request_id
    SmallWorker(parts, decide).work("w", r)
    return r


def test_the_end_of_a_request_is_an_event_for_each_destination(parts: Parts) -> None:
    r = ended(parts, maps_to(2))
    first, second = events(parts, 0), events(parts, 1)
    assert first == second
    (event,) = first
    assert (event.id, event.kind, event.subject, event.workflow) == (f"{r}.1.succeeded", "request.succeeded", r, "w")
    record = parts.results.request("w", r)
    assert event.data == {
        "workflow": "w", "job": "j", "request": r, "state": "succeeded", "epoch": 1, "created_at": record.created_at,
        "finished_at": record.finished_at,
    }  # fmt: skip


def test_a_failed_invocation_and_its_request_are_events_without_traceback_or_output(parts: Parts) -> None:
    r = ended(parts, maps_to(2, fails="0.1"))
    found = {event.kind: event for event in events(parts)}
    assert set(found) == {"invocation.failed", "request.failed"}
    invocation, request = found["invocation.failed"], found["request.failed"]
    assert invocation.subject == invocation.data["invocation"] == f"{r}.0.1"
    assert invocation.data["handler"] == request.data["error"]["handler"] == "count"
    assert invocation.id.startswith(f"{r}.0.1.exception.")
    assert not {"traceback", "output"} & {*invocation.data, *request.data["error"]}


def test_a_cancelled_request_is_an_event(parts: Parts) -> None:
    r = parts.submission.submit("w", "j", {}).request_id
    parts.submission.cancel("w", r)
    (event,) = events(parts)
    assert (event.id, event.kind) == (f"{r}.1.cancelled", "request.cancelled")


def test_a_second_life_has_events_of_its_own(parts: Parts) -> None:
    r = ended(parts, maps_to(2, fails="0.1"))
    parts.submission.resume("w", r)
    SmallWorker(parts, maps_to(2)).work("w", r)
    assert {event.id for event in events(parts) if event.kind != "invocation.failed"} == {
        f"{r}.1.failed", f"{r}.2.succeeded",
    }  # fmt: skip


def test_a_result_that_is_still_to_be_written_is_no_end(tmp_path: Path) -> None:
    parts = made(tmp_path, MR_RESULT_WRITER="file", MR_RESULT_FILE_WRITER_OUTPUT_PATH=str(tmp_path / "out"))
    worker = SmallWorker(parts, maps_to(1))
    r = parts.submission.submit("w", "j", {}).request_id
    worker.work("w", r)
    assert events(parts) == []
    for _ in range(retry.ATTEMPTS_WRITE - 1):
        worker.write("w", r, Noting(OSError("no")))
    assert events(parts) == []
    worker.write("w", r)
    (event,) = events(parts)
    assert event.data["written"]["path"] == str(tmp_path / "out" / r)
    parts.close()


def test_only_what_is_asked_for_is_written(tmp_path: Path) -> None:
    parts = made(tmp_path, MR_WEBHOOK_EVENTS="request.failed")
    ended(parts, maps_to(1))
    ended(parts, maps_to(2, fails="0.0"))
    assert [event.kind for event in events(parts)] == ["request.failed"]
    parts.close()


# Sending


class Sender(EventSender):
    """Keeps what it is given; refuses what comes to the hosts in `refused`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, str], bytes]] = []
        self.refused: set[str] = set()
        self.asked = 0

    def send(self, url: HttpUrl, headers: Mapping[str, str], body: bytes) -> None:
        self.asked += 1
        if url.endpoint.host in self.refused:
            raise NotDelivered("not now")
        self.sent.append((url.endpoint.host, dict(headers), body))


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC) + timedelta(seconds=1)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0


def postman(parts: Parts, sender: Sender, clock: Time) -> Postman:
    """A new one, as after a restart."""
    webhooks = parts.settings.webhooks
    destinations = {destination(url): url for url in webhooks.urls}
    return Postman(parts.store, clock, sender, destinations, webhooks.keys, webhooks.mode)


def test_what_is_taken_is_gone(parts: Parts) -> None:
    for _ in range(120):
        r = parts.submission.submit("w", "j", {}).request_id
        parts.submission.cancel("w", r)
    sender, clock = Sender(), Time()
    assert postman(parts, sender, clock).rounds() == 240
    assert postman(parts, sender, clock).rounds() == 0
    assert len({(host, headers["webhook-id"]) for host, headers, _ in sender.sent}) == 240
    assert [*entries(parts).values()] == [[], []]


def test_a_destination_that_refuses_holds_up_no_other_and_gets_it_later_after_any_restart(parts: Parts) -> None:
    r = ended(parts, maps_to(1))
    sender, clock = Sender(), Time()
    sender.refused = {"hook.example.org"}
    assert postman(parts, sender, clock).rounds() == 1
    assert [host for host, _, _ in sender.sent] == ["other.example.org"]
    for attempt, pause_s in enumerate(webhook.PAUSES_S[:3], 1):
        (event,) = events(parts)
        assert event.attempts == attempt
        clock.at += timedelta(seconds=pause_s - 1)
        asked = sender.asked
        postman(parts, sender, clock).rounds()
        assert sender.asked == asked
        clock.at += timedelta(seconds=1)
        postman(parts, sender, clock).rounds()
        assert sender.asked == asked + 1
    sender.refused = set()
    clock.at += timedelta(seconds=webhook.PAUSES_S[3])
    assert postman(parts, sender, clock).rounds() == 1
    names = {headers["webhook-id"] for _, headers, _ in sender.sent}
    assert names == {f"{r}.1.succeeded"}
    assert events(parts) == []


def test_an_event_that_nobody_takes_is_given_up_in_the_end(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    ended(parts, maps_to(1))
    sender, clock = Sender(), Time()
    sender.refused = {"hook.example.org", "other.example.org"}
    for pause_s in (*webhook.PAUSES_S, 0.0):
        assert postman(parts, sender, clock).rounds() == 0
        clock.at += timedelta(seconds=pause_s)
    assert sender.asked == 2 * (len(webhook.PAUSES_S) + 1)
    assert [*entries(parts).values()] == [[], []]
    assert "is given up after 10 attempts: not now" in caplog.text


def test_one_event_that_is_refused_does_not_stand_in_the_way_of_the_next_round(parts: Parts) -> None:
    first, second = (ended(parts, maps_to(1)) for _ in range(2))
    sender, clock = Sender(), Time()
    sender.refused = {"hook.example.org"}
    postman(parts, sender, clock).rounds()
    sender.refused = set()
    postman(parts, sender, clock).rounds()
    assert [event.subject for event in events(parts)] == [first]
    assert {json.loads(body)["subject"] for host, _, body in sender.sent if host == "hook.example.org"} == {second}


def test_a_destination_that_hangs_is_left_alone_while_the_others_go_on(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mr.services.postman.PATIENCE_S", 0.2)
    gate = threading.Event()

    class Hanging(Sender):
        def send(self, url: HttpUrl, headers: Mapping[str, str], body: bytes) -> None:
            if url.endpoint.host == "hook.example.org":
                self.asked += 1
                assert gate.wait(60)
            super().send(url, headers, body)

    class Running(Time):
        def monotonic(self) -> float:
            return time.monotonic()

    sender = Hanging()
    one = postman(parts, sender, Running())
    for number in range(1, 4):
        parts.submission.cancel("w", parts.submission.submit("w", "j", {}).request_id)
        one.rounds()
        assert [host for host, _, _ in sender.sent] == ["other.example.org"] * number
    assert sender.asked == 1 + 3
    gate.set()
    deadline = time.monotonic() + 60
    while events(parts):
        assert time.monotonic() < deadline
        one.rounds()
    assert len(sender.sent) == 6


def test_what_is_no_event_is_dropped(parts: Parts) -> None:
    (to, *_) = (destination(url) for url in parts.settings.webhooks.urls)
    from mr.ports.store import Put, Transaction

    parts.store.commit(Transaction(operations=[Put(keys.webhook(to, stamp(NOW - timedelta(days=1)), "x"), b"no")]))
    assert postman(parts, Sender(), Time()).rounds() == 1
    assert events(parts) == []


def test_a_receiver_can_verify_what_comes_while_the_secret_is_changed(tmp_path: Path, posts: Listener) -> None:
    posts.posted.clear()
    parts = made(
        tmp_path, f"http://localhost:{posts.port}/in", MR_WEBHOOK_SECRETS=f"{whsec(NEXT)},{whsec(SECRET)}",
        MR_WEBHOOK_PRIVATE_HOSTS="localhost", MR_WEBHOOK_MODE="binary",
    )  # fmt: skip
    r = ended(parts, maps_to(1))
    assert parts.postman is not None
    posts.answers = [(500, b"")]
    assert parts.postman.rounds() == 0
    (event,) = events(parts)
    (key,) = [entry.key for entry in entries(parts)[f"http://localhost:{posts.port}/in"]]
    assert event.attempts == 1
    parts.store.delete_prefix(key)
    from mr.ports.store import Put, Transaction

    to = destination(parts.settings.webhooks.urls[0])
    now = Put(keys.webhook(to, stamp(datetime.now(UTC)), event.id), codec.encode(event))
    parts.store.commit(Transaction(operations=[now]))
    assert parts.postman.rounds() == 1
    first, second = posts.posted
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"{r}.1.succeeded"
    assert second.headers["ce-type"] == "mr.request.succeeded"
    assert json.loads(second.body)["request"] == r
    assert verified(second, SECRET)
    assert verified(second, NEXT)
    assert not verified(second, b"x" * 32)
    assert not verified(second._replace(body=second.body + b" "), SECRET)
    parts.close()
