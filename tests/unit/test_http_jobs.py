"""POST of a job: what is accepted, what is refused, who waits for what, and how long."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mr.errors import StoreFull, StoreUnavailable
from mr.http import jobs
from mr.model import names
from mr.model.request import RequestState
from mr.rules import keys
from mr.services.acceptance import Posting
from tests.unit import front_ends
from tests.unit.front_ends import DEADLINE_S, Site, ends_silently, fails, succeeds, succeeds_in_chunks, worker


@pytest.fixture(params=["directly", "by Flask"])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Whatever is posted must be answered alike by both ways in."""
    site = Site(front_ends.parts(tmp_path), look_every_s=0.2, probe_every_s=0.1)
    if request.param == "by Flask":
        site.app.wsgi_app = site.app.wsgi_app._otherwise  # type: ignore[attr-defined,method-assign]
    yield site
    site.close()


def test_a_blocking_post_answers_with_the_pairs_in_order(site: Site) -> None:
    with worker(site.parts, succeeds(("b", 1), ("a", [2, None]))):
        answer = site.post()
    assert answer.status_code == 200
    assert answer.get_json() == {"result": {"pairs": [["b", 1], ["a", [2, None]]]}}
    assert answer.content_type == "application/json"
    assert names.is_request_id(answer.headers["X-MR-REQUEST-ID"])
    assert answer.headers["X-FULFILLED-BY"] == socket.gethostname()


def test_a_result_without_pairs_is_an_empty_list(site: Site) -> None:
    with worker(site.parts, succeeds()):
        assert site.post().get_json() == {"result": {"pairs": []}}


def test_a_result_too_big_for_the_reply_is_read_from_its_chunks(site: Site) -> None:
    with worker(site.parts, succeeds_in_chunks([["a", 1], ["b", 2]], [["c", 3]])):
        assert site.post().get_json() == {"result": {"pairs": [["a", 1], ["b", 2], ["c", 3]]}}


def test_a_very_big_result_is_streamed_whole(site: Site) -> None:
    chunks = [[[number, "x" * 100_000]] for number in range(8)]
    with worker(site.parts, succeeds_in_chunks(*chunks)):
        answer = site.post()
    assert answer.content_length is None
    assert answer.get_json() == {"result": {"pairs": [pair for chunk in chunks for pair in chunk]}}


@pytest.mark.parametrize("word", ["false", "0", "no", "False", "NO"])
def test_a_post_that_does_not_block_answers_at_once_with_the_id(site: Site, word: str) -> None:
    answer = site.post({"x": [1], "y": None}, f"?blocking={word}")
    assert answer.status_code == 200
    assert answer.get_json() == {"result": None}
    r = answer.headers["X-MR-REQUEST-ID"]
    record = site.requests()[r]
    assert record.state is RequestState.RUNNING
    assert not record.is_blocking
    assert record.reply_to is None
    assert record.invocation_id == f"{r}.0"


@pytest.mark.parametrize("word", ["true", "1", "yes", "TRUE"])
def test_words_that_block(site: Site, word: str) -> None:
    with worker(site.parts, succeeds(("a", 1))):
        assert site.post(query=f"?blocking={word}").get_json() == {"result": {"pairs": [["a", 1]]}}


@pytest.mark.parametrize("query", ["?blocking=maybe", "?blocking=", "?blocking=true&blocking=false"])
def test_other_words_are_refused(site: Site, query: str) -> None:
    answer = site.post(query=query)
    assert answer.status_code == 400
    assert "blocking" in answer.get_json()["error"]["message"]
    assert not site.requests()


def test_a_failed_handler_answers_with_its_exception(site: Site) -> None:
    with worker(site.parts, fails()):
        answer = site.post()
    assert answer.status_code == 500
    assert answer.headers["X-MR-EXCEPTION-TYPE"] == "ValueError"
    assert answer.headers["X-MR-EXCEPTION-MESSAGE"] == r"no such word: \u0436\u0443\u043a"
    assert answer.get_json() == {
        "error": {
            "class": "exception",
            "type": "ValueError",
            "message": "no\nsuch word: жук",
            "handler": "count",
            "version": "",
            "invocation": "i.0",
            "attempt": 1,
            "traceback": "T",
        }
    }
    assert answer.headers["X-MR-REQUEST-ID"] in site.requests()


def test_a_cancelled_request_answers_as_a_failed_one(site: Site) -> None:
    waiting = site.in_background(site.post)
    r = next(iter(site.until(site.requests)))
    site.parts.submission.cancel("w", r, reason="enough")
    for answer in (waiting.get(timeout=DEADLINE_S), site.client.get(f"/request/w/{r}/result")):
        assert answer.status_code == 500
        assert answer.headers["X-MR-EXCEPTION-TYPE"] == "Cancelled"
        assert answer.headers["X-MR-EXCEPTION-MESSAGE"] == "enough"
        assert answer.get_json()["error"]["class"] == "cancelled"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"\xff{}", "invalid_json"),
        (b'\xef\xbb\xbf{"arguments": {}}', "invalid_json"),
        (b'{"arguments": {"a": NaN}}', "invalid_json"),
        (b'{"arguments": {"a": 1, "a": 2}}', "invalid_json"),
        (b'{"arguments": {"a": ' + b"1" * 5000 + b"}}", "invalid_json"),
        (b'{"arguments": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "invalid_json"),
        (b'{"arguments": {"a": "\\ud800"}}', "invalid_json"),
        (b"[]", "invalid_arguments"),
        (b"{}", "invalid_arguments"),
        (b'{"arguments": []}', "invalid_arguments"),
        (b'{"arguments": null}', "invalid_arguments"),
        (b'{"arguments": {}, "priority": 1}', "invalid_arguments"),
    ],
)
def test_a_wrong_body_is_refused_with_a_reason(site: Site, body: bytes, code: str) -> None:
    answer = site.client.post("/job/w/j", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.get_json()["error"]["code"] == code
    assert "X-MR-REQUEST-ID" not in answer.headers
    assert not site.requests()


def test_JX_7_an_unknown_field_is_named(site: Site) -> None:
    answer = site.client.post("/job/w/j", data=b'{"arguments": {}, "prio": 1}', content_type="application/json")
    assert "prio" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=latin-1"]
)
def test_another_content_type_is_refused(site: Site, kind: str) -> None:
    answer = site.client.post("/job/w/j", data=b'{"arguments": {}}', content_type=kind)
    assert answer.status_code == 400
    assert "content type" in (message := answer.get_json()["error"]["message"]) or "charset" in message


@pytest.mark.parametrize("kind", ["application/json; charset=UTF-8", "application/vnd.mr+json"])
def test_relatives_of_json_are_accepted(site: Site, kind: str) -> None:
    answer = site.client.post("/job/w/j?blocking=0", data=b'{"arguments": {}}', content_type=kind)
    assert answer.status_code == 200


def test_a_compressed_body_is_refused(site: Site) -> None:
    answer = site.post(headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/job/nobody/j", "unknown_workflow"),
        ("/job/w/nothing", "unknown_job"),
        ("/job/a%20b/j", "invalid_name"),
        ("/job/w/.hidden", "invalid_name"),
        ("/job/w/%F0%9F%90%9E", "invalid_name"),
        ("/job/w/%FF", "invalid_name"),
        ("/job/w", "not_found"),
        ("/job/w/j/k", "not_found"),
    ],
)
def test_what_does_not_exist_is_404(site: Site, path: str, code: str) -> None:
    answer = site.post(path=path)
    assert answer.status_code == 404
    assert answer.get_json()["error"]["code"] == code
    assert answer.get_json()["error"]["hint"]
    assert "X-MR-REQUEST-ID" not in answer.headers


def test_jobs_are_only_posted_to(site: Site) -> None:
    answer = site.client.get("/job/w/j")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert answer.get_json()["error"] == {"code": "method_not_allowed", "message": "this route takes OPTIONS, POST"}


def test_a_body_over_the_limit_is_413_and_names_the_way_out(tmp_path: Path) -> None:
    site = Site(front_ends.parts(tmp_path, MR_BODY_MAX_MB="0.001"))
    try:
        fits = site.post({"a": "x" * 900}, "?blocking=0")
        over = site.post({"a": "x" * 1100}, "?blocking=0")
    finally:
        site.close()
    assert fits.status_code == 200
    assert over.status_code == 413
    assert "shared file system" in over.get_json()["error"]["hint"]
    assert "URL" in over.get_json()["error"]["hint"]


def test_arguments_too_big_for_a_record_are_refused(site: Site) -> None:
    answer = site.post({"a": "x" * 900_000}, "?blocking=0")
    assert answer.status_code == 400
    assert "shared file system" in answer.get_json()["error"]["hint"]


def test_the_address_of_the_client_is_the_whole_header(site: Site) -> None:
    site.post(query="?blocking=0", headers={"X-Forwarded-For": "10.0.0.1, 10.0.0.2"})
    (record,) = site.requests().values()
    assert record.context == {"requester_ip": "10.0.0.1, 10.0.0.2"}


def test_without_that_header_it_is_the_peer(site: Site) -> None:
    site.post(query="?blocking=0", environ_base={"REMOTE_ADDR": "192.0.2.7"})
    (record,) = site.requests().values()
    assert record.context == {"requester_ip": "192.0.2.7"}


def test_the_longest_wait_ends_with_the_id_and_the_result_can_be_fetched(tmp_path: Path) -> None:
    site = Site(front_ends.parts(tmp_path, MR_WAIT_MAX_S="0.2"), probe_every_s=0.05)
    try:
        front_ends.enlist(site.parts.store)
        answer = site.post()
        assert answer.status_code == 202
        assert answer.get_json() == {"result": None}
        assert answer.headers["Retry-After"] == "1"
        r = answer.headers["X-MR-REQUEST-ID"]
        front_ends.end(site.parts.store, site.parts.retention, "w", r, RequestState.SUCCEEDED, inline=[["a", 1]])
        assert site.client.get(f"/request/w/{r}/result").get_json() == {"result": {"pairs": [["a", 1]]}}
    finally:
        site.close()


def test_where_no_worker_runs_a_client_is_told_so_and_to_come_later(site: Site) -> None:
    posted = site.post()
    place = f"/request/w/{posted.headers['X-MR-REQUEST-ID']}/result"
    for answer in (posted, site.client.get(place)):
        assert answer.status_code == 202
        assert answer.headers["X-MR-WARNING"] == "nobody offers general; no worker runs"
        assert answer.headers["Retry-After"] == "10"
    front_ends.enlist(site.parts.store)
    site.until(lambda: "X-MR-WARNING" not in site.client.get(place).headers)
    assert site.client.get(place).headers["Retry-After"] == "1"


def test_a_request_that_ended_without_a_reply_is_found_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LOOK_FIRST_S", 0.1)
    front_ends.enlist(site.parts.store)
    with worker(site.parts, ends_silently(("a", 1))):
        assert site.post().get_json() == {"result": {"pairs": [["a", 1]]}}


def test_a_client_that_has_gone_is_not_waited_for_and_its_request_goes_on(site: Site) -> None:
    ours, theirs = socket.socketpair()
    waiting = site.in_background(lambda: site.post(environ_overrides={"gunicorn.socket": ours}))
    r = next(iter(site.until(site.requests)))
    theirs.close()
    answer = waiting.get(timeout=DEADLINE_S)
    assert answer.status_code == 202
    assert not len(site.front_end.room)
    assert site.requests()[r].state is RequestState.RUNNING
    ours.close()


def test_a_client_that_sends_more_is_still_there() -> None:
    ours, theirs = socket.socketpair()
    theirs.send(b"GET / HTTP/1.1")
    assert not jobs.has_gone(ours)
    theirs.close()
    assert jobs.has_gone(ours)
    ours.close()
    assert jobs.has_gone(ours)


def test_a_draining_front_end_sends_everybody_home_with_their_ids(site: Site) -> None:
    waiting = [site.in_background(site.post) for _ in range(3)]
    site.until(lambda: len(site.requests()) == 3 and len(site.front_end.room) == 3)
    site.front_end.drain()
    found = [greenlet.get(timeout=DEADLINE_S) for greenlet in waiting]
    assert {answer.status_code for answer in found} == {202}
    assert {answer.headers["X-MR-REQUEST-ID"] for answer in found} == set(site.requests())
    late = site.post()
    assert late.status_code == 202
    assert late.headers["X-MR-REQUEST-ID"] in site.requests()


def test_many_clients_wait_at_the_same_time_and_each_gets_its_own(site: Site) -> None:
    def echo(store: Any, retention: Any, w: str, r: str, request: Any) -> None:
        front_ends.end(store, retention, w, r, RequestState.SUCCEEDED, inline=[["id", r]])

    with worker(site.parts, echo):
        waiting = [site.in_background(site.post) for _ in range(50)]
        found = [greenlet.get(timeout=DEADLINE_S) for greenlet in waiting]
    for answer in found:
        assert answer.get_json() == {"result": {"pairs": [["id", answer.headers["X-MR-REQUEST-ID"]]]}}


def test_a_delivered_result_lets_its_request_go_soon_and_its_reply_at_once(site: Site) -> None:
    with worker(site.parts, succeeds(("a", 1))):
        r = site.post().headers["X-MR-REQUEST-ID"]
    site.until(lambda: not site.keys_below("replies/"))
    late = site.requests()[r].due_at
    assert late is not None
    due = sorted(key.split("/")[1] for key in site.keys_below(keys.DUE))
    assert len(due) == 2
    assert due[0] < due[1] == late


def test_a_failure_stays_for_its_day(site: Site) -> None:
    with worker(site.parts, fails()):
        site.post()
    site.until(lambda: not site.keys_below("replies/"))
    assert len(site.keys_below(keys.DUE)) == 1


def test_a_result_that_was_not_sent_to_its_end_stays_for_its_day(site: Site) -> None:
    with worker(site.parts, succeeds(("a", 1))):
        answer = site.client.post("/job/w/j", json={"arguments": {}}, buffered=False)
        answer.close()
        # One that is sent: when its reply is gone, the other's would be gone, too.
        site.post()
    site.until(lambda: len(site.keys_below("replies/")) == 1)
    assert len(site.keys_below(keys.DUE)) == 3


def test_a_store_that_refuses_is_503_and_nothing_was_accepted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.parts.submission, "accept", lambda postings: [StoreUnavailable("no answer")])
    answer = site.post()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert answer.get_json() == {"error": {"code": "store_unavailable", "message": "no answer"}}
    assert "X-MR-REQUEST-ID" not in answer.headers


@pytest.mark.parametrize(("error", "status"), [(StoreUnavailable("lost", unknown=True), 504), (StoreFull("full"), 503)])
def test_an_unknown_outcome_names_the_request_that_may_exist(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    given: list[str] = []

    def lose(postings: Sequence[Posting]) -> list[Exception]:
        given.extend(posting.request_id for posting in postings)
        return [error]

    monkeypatch.setattr(site.parts.submission, "accept", lose)
    answer = site.post()
    assert answer.status_code == status
    assert answer.headers["X-MR-REQUEST-ID"] == given[0] == answer.get_json()["error"]["request_id"]


def test_a_bug_is_500_without_its_text(site: Site, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def break_down(*args: Any, **options: Any) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(site.parts.submission, "accept", break_down)
    answer = site.post()
    assert answer.status_code == 500
    assert answer.get_json()["error"]["code"] == "internal"
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


def test_every_method_on_every_route_is_answered_below_500(site: Site) -> None:
    for rule in list(site.app.url_map.iter_rules()):
        path = rule.rule.replace("<workflow>", "w").replace("<job>", "j").replace("<request_id>", "0" * 40)
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
            for kind in ("application/json", "text/plain"):
                answer = site.client.open(
                    path + "?blocking=0", method=method, data=json.dumps({"arguments": {}}), content_type=kind
                )
                assert answer.status_code < 500, (method, path, kind, answer.text)
