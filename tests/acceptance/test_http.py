"""The front end: JX-41 to JX-48, JX-51, JX-84, JX-86, and what clients do wrong."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Shared
from tests.acceptance.service import eventually
from tests.acceptance.sources import ALL, RETURN, mapper, wait_for_file
from tests.servers import free_ports

FIRST = "yield MrConfigureToReturn()\n"


def test_JX_41_the_root_says_that_it_is_up(pair: Shared) -> None:
    reply = pair.ask("GET", "/")
    assert (reply.status, reply.body.strip()) == (200, b"Map me. Reduce me.")


def test_JX_42_each_item_of_the_arguments_is_a_pair_in_the_order_of_the_object(pair: Shared, w: str) -> None:
    look = mapper(FIRST + "yield 'arguments', [type(arguments).__name__, [list(pair) for pair in arguments]]")
    pair.define(w, {"start": (look, ALL)})
    body = '{"arguments": {"z": 1, "a": [1, {"b": null}], "é ü": "ß", "": 2.5}}'.encode()
    reply = pair.ask("POST", f"/job/{w}/job", body, {"Content-Type": "application/json"})
    [[_, [[kind, pairs]]]] = reply.pairs
    assert kind == "list"
    assert pairs == [["z", 1], ["a", [1, {"b": None}]], ["é ü", "ß"], ["", 2.5]]


@pytest.mark.parametrize("word", [None, "true", "1", "yes"])
def test_JX_43_a_post_blocks_by_default_and_when_asked(pair: Shared, w: str, word: str | None) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    assert pair.post(w, {"a": 1}, blocking=word).pairs == [["a", [1]]]


@pytest.mark.parametrize("word", ["false", "0", "no"])
def test_JX_43_a_post_does_not_block_when_asked(pair: Shared, w: str, tmp_path: Path, word: str) -> None:
    gate = tmp_path / "gate"
    pair.define(w, {"start": (mapper(wait_for_file(gate) + FIRST), ALL)})
    reply = pair.post(w, blocking=word)
    gate.touch()
    assert (reply.status, reply.json) == (200, {"result": None})
    assert pair.result(w, reply.request_id).pairs == []


@pytest.mark.parametrize("word", ["maybe", "2", "", "true&blocking=false"])
def test_JX_43_junk_is_refused(pair: Shared, w: str, word: str) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    reply = pair.post(w, blocking=word)
    assert reply.status == 400
    assert "blocking" in reply.json["error"]["message"]
    assert not pair.parts.results.requests(w)


def test_JX_44_a_good_answer_holds_the_result_and_nothing_else(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    reply = pair.post(w, {"a": 1})
    assert (reply.status, reply.json) == (200, {"result": {"pairs": [["a", [1]]]}})
    assert reply.headers["content-type"].startswith("application/json")


def test_JX_45_every_answer_about_a_request_names_it_and_the_host(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (RETURN, ALL), "bad": (mapper(FIRST + "raise ValueError('no')"), ALL)})
    pair.parts.registry.create_job(w, "bad", "", "bad")
    replies = [pair.post(w), pair.post(w, blocking="false"), pair.post(w, job="bad")]
    replies.append(pair.result(w, replies[1].request_id))
    assert [reply.status for reply in replies] == [200, 200, 500, 200]
    for reply in replies:
        assert len(reply.request_id) == 40
        int(reply.request_id, 16)
        assert reply.headers["x-fulfilled-by"] == socket.gethostname()
    assert len({reply.request_id for reply in replies}) == 3


def test_JX_46_a_failure_is_a_500_with_the_exception_of_the_handler(pair: Shared, w: str) -> None:
    text = "first line\\r\\nX-Injected: yes\\n\\x1b[31mé — " + "x" * 20_000
    pair.define(w, {"start": (mapper(FIRST + f"raise LookupError({text!r}.encode().decode('unicode_escape'))"), ALL)})
    reply = pair.post(w)
    assert reply.status == 500
    assert reply.headers["x-mr-exception-type"] == "LookupError"
    message = reply.headers["x-mr-exception-message"]
    assert message.startswith("first line")
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 8000
    assert "x-injected" not in reply.headers
    error = reply.json["error"]
    assert {"class", "type", "message", "handler", "version", "invocation", "attempt", "traceback"} <= set(error)
    assert error["traceback"].startswith("Traceback")
    assert error["message"].startswith("first line\r\nX-Injected: yes\n")


@pytest.mark.parametrize(("job", "code"), [("nothing", "unknown_job"), ("job", "unknown_workflow")])
def test_JX_47_an_unknown_workflow_or_job_is_a_404_that_names_it(pair: Shared, w: str, job: str, code: str) -> None:
    if code == "unknown_job":
        pair.define(w, {"start": (RETURN, ALL)})
    reply = pair.post(w, job=job)
    assert reply.status == 404
    error = reply.json["error"]
    assert error["code"] == code
    assert (job if code == "unknown_job" else w) in error["message"]


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{'arguments': {}}",
    "broken off": b'{"arguments": {',
    "a list": b"[]",
    "no arguments": b"{}",
    "arguments that are a list": b'{"arguments": [1]}',
    "arguments that are null": b'{"arguments": null}',
    "a key twice": b'{"arguments": {"a": 1, "a": 2}}',
    "NaN": b'{"arguments": {"a": NaN}}',
    "infinity by size": b'{"arguments": {"a": 1e999}}',
    "a lone surrogate": b'{"arguments": {"a": "\\ud800"}}',
    "no UTF-8": b'{"arguments": {"a": "\xff"}}',
    "too deep": b'{"arguments": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
    "something after it": b'{"arguments": {}} {}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_JX_47_a_body_that_is_wrong_is_a_400_with_a_reason(pair: Shared, w: str, body: bytes) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    reply = pair.ask("POST", f"/job/{w}/job", body, {"Content-Type": "application/json"})
    assert reply.status == 400, reply.body
    assert reply.json["error"]["code"]
    assert reply.json["error"]["message"]
    assert not pair.parts.results.requests(w)


def test_JX_47_another_content_type_is_a_400(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    reply = pair.ask("POST", f"/job/{w}/job", b'{"arguments": {}}', {"Content-Type": "text/plain"})
    assert reply.status == 400
    assert "application/json" in reply.json["error"]["message"]


def test_a_body_over_the_limit_is_a_413_that_names_the_way_for_big_input(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    reply = pair.post(w, {"a": "x" * (1024 * 1024)})
    assert reply.status == 413
    assert "file system" in json.dumps(reply.json)


def test_a_body_just_below_the_limit_is_not_refused_for_its_size(pair: Shared, w: str) -> None:
    """Several values, each below the limit of one value, together below those of a body and of arguments."""
    pair.define(w, {"start": (mapper(FIRST + "yield 'size', sum(len(value) for _, value in arguments)"), ALL)})
    assert pair.post(w, {str(n): "x" * 50_000 for n in range(5)}).pairs == [["size", [250_000]]]


def test_a_get_of_a_job_is_a_405_and_an_unknown_path_a_404(pair: Shared) -> None:
    assert pair.ask("GET", "/job/a/b").status == 405
    assert pair.ask("GET", "/nothing/here").status == 404


@pytest.mark.parametrize(
    ("headers", "ip"),
    [({"X-Forwarded-For": "10.1.2.3, 192.168.0.1"}, "10.1.2.3, 192.168.0.1"), ({}, "127.0.0.1")],
    ids=["behind a proxy", "without one"],
)
def test_JX_48_the_address_of_the_client_is_kept_with_the_request(
    pair: Shared, w: str, headers: dict[str, str], ip: str
) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    reply = pair.post(w, headers=headers)
    assert pair.request(w, reply.request_id).context["requester_ip"] == ip


def test_JX_51_a_request_that_is_over_at_once_answers_at_once(pair: Shared, w: str) -> None:
    """Thirty in a row: one that missed its reply would wait for seconds until it looks by itself."""
    pair.define(w, {"start": (RETURN, ALL)})
    for n in range(30):
        assert pair.post(w, {"n": n}, timeout_s=4.0).pairs == [["n", [n]]]


def test_JX_51_a_client_that_goes_away_does_not_cancel_its_request(pair: Shared, w: str, tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "begun"
    code = f"open({str(begun)!r}, 'w').close()\n" + wait_for_file(gate) + FIRST + "yield 'a', 1"
    pair.define(w, {"start": (mapper(code), ALL)})
    connection = http.client.HTTPConnection("127.0.0.1", pair.port)
    connection.request("POST", f"/job/{w}/job", b'{"arguments": {}}', {"Content-Type": "application/json"})
    eventually(begun.exists, "the request runs")
    connection.close()
    gate.touch()
    [(r, _)] = pair.parts.results.requests(w)
    assert pair.result(w, r).pairs == [["a", [1]]]


def test_JX_51_a_wait_that_is_too_long_ends_with_the_id_and_the_request_goes_on(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    pair.define(w, {"start": (mapper(wait_for_file(gate) + FIRST + "yield 'a', 1"), ALL)})
    port = free_ports(1)[0]
    with pair.web(port, MR_WAIT_MAX_S="0.3"):
        reply = pair.post(w, port=port)
        assert reply.status == 202
        assert reply.json == {"result": None}
        gate.touch()
        assert pair.result(w, reply.request_id).pairs == [["a", [1]]]


def test_JX_84_the_result_of_a_request_that_nobody_waited_for_can_be_read(pair: Shared, w: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    pair.define(w, {"start": (mapper(wait_for_file(gate) + FIRST + "yield 'a', 1"), ALL)})
    r = pair.start(w)
    early = pair.ask("GET", f"/request/{w}/{r}/result")
    assert (early.status, early.json) == (202, {"result": None})
    assert int(early.headers["retry-after"]) >= 1
    gate.touch()
    for _ in range(2):
        assert pair.result(w, r).pairs == [["a", [1]]]
    shown = pair.ask("GET", f"/request/{w}/{r}", headers={"Accept": "application/json"}).json
    assert (shown["is_done"], shown["is_blocking"], shown["state"]) == (True, False, "succeeded")


def test_JX_84_an_unknown_request_is_a_404(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    for r in ("0" * 40, "nonsense"):
        assert pair.ask("GET", f"/request/{w}/{r}/result").status == 404


def test_JX_84_the_failure_of_a_request_that_nobody_waited_for_can_be_read(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (mapper(FIRST + "raise ValueError('no')"), ALL)})
    r = pair.start(w)
    reply = pair.result(w, r)
    assert reply.error["message"] == "no"
    assert (reply.request_id, reply.headers["x-mr-exception-type"]) == (r, "ValueError")


@pytest.mark.parametrize("blocking", ["true", "false"])
def test_JX_86_the_record_says_that_a_request_is_done_and_what_failed(pair: Shared, w: str, blocking: str) -> None:
    pair.define(w, {"start": (RETURN, ALL), "bad": (mapper(FIRST + "raise ValueError('no')"), ALL)})
    pair.parts.registry.create_job(w, "bad", "", "bad")
    records: list[Any] = []
    for job in ("job", "bad"):
        r = pair.post(w, job=job, blocking=blocking).request_id
        pair.result(w, r)
        records.append((r, pair.request(w, r)))
    [(_, good), (r, bad)] = records
    assert (good.is_done, good.failed_invocation_id, good.error) == (True, None, None)
    assert (bad.is_done, bad.failed_invocation_id) == (True, f"{r}.0")
    assert "Traceback" in bad.error["traceback"]
    invocation = pair.parts.tracing.invocation(w, r, "0")
    assert invocation.error is not None
