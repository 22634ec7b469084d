"""What a request waits for: who has it, who could take it, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mr.cli.main import program
from mr.cli.why import SHOWN_MAX, advice
from mr.codec import encode
from mr.errors import BrokerUnavailable, RequestNotFound
from mr.model.invocation import WorkerRecord
from mr.ports.broker import Backlog
from mr.ports.store import Put, Transaction
from mr.rules import keys
from mr.services.waits import Answer, Wait
from mr.wiring import Parts
from tests.unit.small_worker import SmallWorker
from tests.unit.test_tracing import defined, maps_to, submitted


class Died(Exception):
    """What an executor that dies by itself leaves; it is tried twice."""

    class_ = "exit"


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    monkeypatch.setenv("MR_STORE", f"sqlite:///{tmp_path}/mr.db")
    built = defined(tmp_path)
    yield built
    built.close()


@pytest.fixture
def writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """The same, where results are written to files."""
    variables = {"MR_RESULT_WRITER": "file", "MR_RESULT_FILE_WRITER_OUTPUT_PATH": str(tmp_path / "out")}
    for name, value in {"MR_STORE": f"sqlite:///{tmp_path}/mr.db", **variables}.items():
        monkeypatch.setenv(name, value)
    built = defined(tmp_path, **variables)
    yield built
    built.close()


def offer(
    parts: Parts,
    capability: str = "general",
    holds: list[str] | None = None,
    writer: str = "",
    printed: dict[str, str] | None = None,
) -> None:
    """A worker `w9` is on record."""
    record = WorkerRecord(
        host="h9", pid=1, capabilities=[capability], workflows=[], slots=1, version="0", started_at="",
        holds=holds or [], writer=writer, printed=printed or {},
    )  # fmt: skip
    parts.store.commit(Transaction(operations=[Put(keys.worker("w9"), encode(record))]))


def asked(parts: Parts, r: str) -> tuple[Answer, Wait]:
    answer = parts.waits.of("w", r)
    (wait,) = answer.waits
    return answer, wait


def told(r: str) -> str:
    result = CliRunner().invoke(program, ["why", r])
    assert result.exit_code == 0, result.output
    return result.output


def begun(parts: Parts) -> str:
    """Sixteen of twenty children are done, the others wait in the queue."""
    r = submitted(parts)
    SmallWorker(parts, maps_to(20), batch_size=4).work("w", r, pieces=2, drain=True)
    return r


def test_a_capability_that_nobody_offers_is_named_with_what_to_start(parts: Parts) -> None:
    r = begun(parts)
    offer(parts, "gpu")
    answer, wait = asked(parts, r)
    assert (wait.how, wait.path, wait.count, wait.capability) == ("unserved", "0.16", 4, "general")
    assert advice(answer) == "mr worker"
    assert (
        "0.16 and 3 more (map of step count, handler count) wait in vain: nobody offers general; nearest: h9" in told(r)
    )


def test_without_any_worker_that_is_what_is_said(parts: Parts) -> None:
    assert "no worker runs" in told(submitted(parts))


def test_a_message_that_waits_is_queued(parts: Parts) -> None:
    r = begun(parts)
    offer(parts)
    answer, wait = asked(parts, r)
    assert (wait.how, wait.serving) == ("queued", 1)
    assert wait.ahead
    assert wait.seconds is not None
    assert wait.since >= answer.request.created_at
    assert "1 worker offers general" in told(r)


def test_what_a_worker_holds_is_running_there(parts: Parts) -> None:
    r = begun(parts)
    offer(parts, holds=[f"w/{r}/0"])
    answer, wait = asked(parts, r)
    assert (wait.how, wait.workers) == ("running", ["w9 on h9"])
    assert f"mr logs {r[:12]} -f" in advice(answer)
    assert "are being run by worker w9 on h9" in told(r)


def test_what_runs_stands_with_what_it_printed_last(parts: Parts) -> None:
    r = begun(parts)
    lines = {f"w/{r}/0.{child}": f"line {child} \x1b[2J" for child in (17, 3, 16, 100)}
    offer(parts, holds=[f"w/{r}/0"], printed={**lines, f"w/{'0' * 40}/0.1": "of another"})
    answer, _ = asked(parts, r)
    assert [one.path for one in answer.speakers] == ["0.3", "0.16", "0.17", "0.100"]
    text = told(r)
    assert "  0.16 printed last: line 16 \\x1b[2J" in text
    assert "of another" not in text


def test_of_very_many_that_print_the_first_are_told(parts: Parts) -> None:
    r = begun(parts)
    offer(parts, holds=[f"w/{r}/0"], printed={f"w/{r}/0.{child}": str(child) for child in range(30)})
    assert told(r).count("printed last") == SHOWN_MAX
    assert "and 22 more print (--json)" in told(r)


@pytest.mark.parametrize(
    ("lies", "how", "text"),
    [
        (Backlog(), "lost", "a worker will publish it again"),
        (Backlog(in_flight=1), "taken", "have just begun: a worker has the message"),
        (Backlog(delayed=1), "delayed", "wait for the next attempt"),
    ],
)
def test_what_the_broker_has_tells_where_the_message_is(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, lies: Backlog, how: str, text: str
) -> None:
    def backlog(_: object, topics: list[str]) -> dict[str, Backlog]:
        return dict.fromkeys(topics, lies)

    r = begun(parts)
    offer(parts)
    monkeypatch.setattr("mr.adapters.brokers.sqlite.SqlitePublisher.backlog", backlog)
    _, wait = asked(parts, r)
    assert wait.how == how
    assert text in told(r)


def test_an_attempt_that_failed_stands_with_what_it_printed(parts: Parts) -> None:
    r = submitted(parts)

    def decide(path: str, pairs: list[Any]) -> Any:
        if path == "0.7":
            raise Died("exited with code 3")
        return maps_to(20)(path, pairs)

    SmallWorker(parts, decide).work("w", r, pieces=2, drain=True)
    offer(parts)
    answer = parts.waits.of("w", r)
    (wait,) = [one for one in answer.waits if one.path == "0.7"]
    assert wait.count == 1
    assert [report.class_ for report in wait.attempts] == ["exit"]
    assert wait.printed == "0.7 was here"
    shown = told(r)
    assert "attempt 1 failed on worker w1: Died: exited with code 3" in shown
    assert "it printed last: 0.7 was here" in shown


def test_a_reduce_that_is_due_is_named(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(8), batch_size=4).work("w", r, pieces=2, drain=True)
    offer(parts, holds=[f"w/{r}/0"])
    _, wait = asked(parts, r)
    assert (wait.kind, wait.path, wait.handler, wait.how) == ("reduce", "0.r", "total", "running")
    assert wait.since


def test_a_result_that_nobody_writes_is_told_by_why_status_and_doctor(writing: Parts) -> None:
    r = submitted(writing)
    SmallWorker(writing, maps_to(3)).work("w", r)
    offer(writing)
    answer, wait = asked(writing, r)
    assert (wait.kind, wait.how) == ("write", "unserved")
    assert "MR_RESULT_WRITER" in advice(answer)
    assert "none of 1 workers writes" in told(r)
    shown = CliRunner().invoke(program, ["status"])
    assert "mr-write.w" in shown.stdout
    assert "results of workflow w wait to be written, and no worker writes" in shown.stderr
    found = json.loads(CliRunner().invoke(program, ["status", "--json"]).stdout)
    assert (found["writing"]["w"]["requests"], found["writing"]["w"]["waiting"]) == (1, 1)
    assert "results of w" in CliRunner().invoke(program, ["doctor"]).output


def test_a_result_that_a_worker_may_write_waits_for_it(writing: Parts) -> None:
    r = submitted(writing)
    SmallWorker(writing, maps_to(3)).work("w", r)
    offer(writing, writer="file")
    _, wait = asked(writing, r)
    assert (wait.kind, wait.how, wait.serving) == ("write", "queued", 1)
    assert "its result is reduced, and waits in a queue" in told(r)
    assert "no worker writes" not in CliRunner().invoke(program, ["status"]).stderr


def test_a_request_that_failed_says_where_and_why(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20, fails="0.7")).work("w", r)
    answer = parts.waits.of("w", r)
    assert (answer.waits, answer.failed_path) == ([], "0.7")
    assert advice(answer) == f"mr invocation show {r[:12]}.0.7, then mr request resume {r[:12]}"
    assert "invocation 0.7 failed" in told(r)
    assert "ValueError: boom" in told(r)


def test_requests_that_are_over_wait_for_nothing(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(2)).work("w", r)
    assert advice(parts.waits.of("w", r)) == f"mr request result {r[:12]}"
    assert "it is done" in told(r)
    r = submitted(parts)
    parts.submission.cancel("w", r)
    assert "cancelled" in told(r)
    assert advice(parts.waits.of("w", r)) == f"mr request resume {r[:12]}"


def test_a_half_cleaned_request_can_be_asked(parts: Parts) -> None:
    r = begun(parts)
    for entry in list(parts.store.range(keys.facts("w", r), limit=100).entries):
        parts.store.delete_prefix(entry.key, limit=1)
        told(r)


def test_ten_thousand_children_are_one_wait(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(10_000)).work("w", r, pieces=1, drain=True)
    _, wait = asked(parts, r)
    assert wait.count == 10_000


def test_a_broker_that_does_not_answer_hides_nothing_else(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise BrokerUnavailable("the broker is away")

    r = begun(parts)
    offer(parts)
    monkeypatch.setattr("mr.adapters.brokers.sqlite.SqlitePublisher.backlog", away)
    shown = told(r)
    assert "wait in a queue; 1 worker offers general" in shown
    assert "not known: the broker is away" in shown


def test_the_answer_is_a_document_with_the_next_step(parts: Parts) -> None:
    r = begun(parts)
    found = json.loads(CliRunner().invoke(program, ["why", r, "--json"]).stdout)
    assert found["request_id"] == r
    assert found["waits"][0]["path"] == "0.16"
    assert found["next"] == "mr worker"


def test_nothing_is_known_of_what_does_not_exist(parts: Parts) -> None:
    with pytest.raises(RequestNotFound):
        parts.waits.of("w", "0" * 40)
