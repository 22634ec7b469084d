"""The state `writing`: what a writer is asked, what becomes of its failures, and who may end the request."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mr import codec
from mr.codec import Items
from mr.errors import ConfigError, RequestEnded, StoreUnavailable
from mr.model import ids
from mr.model.invocation import ErrorReport
from mr.model.message import Message
from mr.model.request import Request, RequestState
from mr.ports.result_writer import Origin, ResultWriter
from mr.rules import keys, retry
from mr.services.acceptance import Posting
from mr.services.unit import End, Unit, Verdict
from mr.services.writing import Writers, Writing
from mr.settings import Settings
from mr.wiring import Parts
from tests.unit.small_worker import SmallWorker
from tests.unit.test_tracing import SOURCES, maps_to

PAIRS = [["key0", 0], ["key1", 1], ["key2", 2]]


class Noting(ResultWriter):
    """Keeps what it is given; fails as often as it is told to."""

    name = "noting"

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.written = list(errors), list[tuple[Origin, list[Any]]]()

    def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any] | None:
        if self.errors:
            raise self.errors.pop(0)
        self.written.append((origin, [codec.loads(pair) for items in pairs for pair in items]))
        return None


class Unmade(Noting):
    """Cannot be made."""

    def __init__(self) -> None:
        raise OSError("no printer")


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """A workflow `w` with job `j`, whose results are written to files."""
    folder = tmp_path / "handlers"
    folder.mkdir()
    for name, source in SOURCES.items():
        (folder / f"{name}.py").write_text(source)
    environ = {
        "MR_STORE": f"sqlite:///{tmp_path}/mr.db",
        "MR_RESULT_WRITER": "file",
        "MR_RESULT_FILE_WRITER_OUTPUT_PATH": str(tmp_path / "out"),
    }
    built = Parts(Settings.from_env(environ))
    built.registry.create_workflow("w", "")
    built.sync.apply(built.sync.plan("w", folder))
    built.registry.create_step("w", "split", "", "split", "", "total")
    built.registry.create_step("w", "count", "", "count", "", "total")
    built.registry.create_job("w", "j", "", "split")
    yield built
    built.close()


@pytest.fixture
def worker(parts: Parts) -> SmallWorker:
    return SmallWorker(parts, maps_to(3))


@pytest.fixture
def r(parts: Parts, worker: SmallWorker) -> str:
    """A request that is to be written."""
    posting = Posting(
        request_id=ids.new_request_id(), workflow="w", job="j", arguments={"a": 1}, is_blocking=True, reply_to="front"
    )
    parts.submission.accept([posting])
    worker.work("w", posting.request_id)
    return posting.request_id


def request(parts: Parts, r: str) -> Request:
    return parts.results.request("w", r)


def attempts(parts: Parts, r: str) -> list[ErrorReport]:
    prefix = keys.attempts("w", r, ids.ROOT, "write")
    return [codec.decode(entry.value, ErrorReport) for entry in parts.store.range(prefix).entries]


def test_JX_87_the_root_is_recorded_and_the_request_is_not_done_before_it_is_written(parts: Parts, r: str) -> None:
    found = request(parts, r)
    assert (found.state, found.is_done, found.due_at, found.written) == (RequestState.WRITING, False, None, None)
    assert parts.store.get(keys.done("w", r, ids.ROOT, 0)) is not None
    assert parts.store.get(keys.active("w", r)) is not None
    assert parts.store.get(keys.replies("front", r)) is None
    assert parts.publisher.backlog(["mr-write.w"])["mr-write.w"].waiting == 1


def test_the_end_is_one_with_the_reply_and_says_where_the_result_is(parts: Parts, worker: SmallWorker, r: str) -> None:
    assert worker.write("w", r) is None
    found = request(parts, r)
    assert found.state is RequestState.SUCCEEDED
    path = Path(parts.settings.results.folder) / r
    assert found.written == {"writer": "file", "host": socket.gethostname(), "path": str(path)}
    assert path.read_text() == "key0 0\nkey1 1\nkey2 2\n"
    reply = parts.store.get(keys.replies("front", r))
    assert reply is not None
    assert codec.loads(reply.value) == {"workflow_name": "w", "state": "succeeded", "is_written": True}
    assert parts.store.get(keys.active("w", r)) is None


def test_what_was_written_elsewhere_need_not_be_kept_for_a_day(parts: Parts, worker: SmallWorker, r: str) -> None:
    worker.write("w", r)
    found = request(parts, r)
    assert found.finished_at is not None
    assert found.due_at is not None
    kept = datetime.fromisoformat(found.due_at) - datetime.fromisoformat(found.finished_at)
    assert kept.total_seconds() == parts.retention.answered_s == 5


def test_a_writer_gets_the_pairs_in_order_and_whose_they_are(worker: SmallWorker, r: str) -> None:
    writer = Noting()
    worker.write("w", r, writer)
    ((origin, pairs),) = writer.written
    assert (origin.workflow, origin.job, origin.request_id) == ("w", "j", r)
    assert pairs == PAIRS


def test_a_repeat_after_the_end_writes_nothing(worker: SmallWorker, r: str) -> None:
    writer = Noting()
    assert [worker.write("w", r, writer) for _ in range(2)] == [None, None]
    assert len(writer.written) == 1


def test_nothing_is_written_for_a_request_that_is_not_to_be(parts: Parts, worker: SmallWorker) -> None:
    """Whoever can publish may ask for a write; only the record says whether there is one."""
    writer = Noting()
    running = parts.submission.submit("w", "j", {}).request_id
    assert worker.write("w", running, writer) is None
    assert request(parts, running).state is RequestState.RUNNING
    parts.submission.cancel("w", running)
    assert worker.write("w", running, writer) is None
    failing = SmallWorker(parts, maps_to(3, fails="0.1"))
    failed = parts.submission.submit("w", "j", {}).request_id
    failing.work("w", failed)
    assert failing.write("w", failed, writer) is None
    assert request(parts, failed).state is RequestState.FAILED
    assert writer.written == []


def test_a_message_of_an_earlier_life_writes_nothing(parts: Parts, worker: SmallWorker, r: str) -> None:
    writer = Noting()
    for _ in range(retry.ATTEMPTS_WRITE):
        worker.write("w", r, Noting(OSError("no")))
    parts.submission.resume("w", r)
    worker.work("w", r)
    assert request(parts, r).state is RequestState.WRITING
    message = Message(w="w", r=r, epoch=1, set="", kind="write", p=ids.ROOT)
    stale = Writing(parts.store, parts.datasets, worker.committer, Writers(writer), worker="w2", stamp=lambda: "")
    assert stale.write(message) is None
    assert writer.written == []
    assert worker.write("w", r, writer) is None
    assert [pairs for _, pairs in writer.written] == [PAIRS]


def test_a_write_that_fails_is_tried_again_later_and_later(parts: Parts, worker: SmallWorker, r: str) -> None:
    writer = Noting(OSError(28, "No space left on device"), RuntimeError("odd\ud800"))
    assert [worker.write("w", r, writer) for _ in range(3)] == [1.0, 2.0, None]
    assert request(parts, r).state is RequestState.SUCCEEDED
    assert {report.type for report in attempts(parts, r)} == {"OSError", "RuntimeError"}


def test_JX_85_a_write_that_goes_on_failing_fails_the_request_by_name(
    parts: Parts, worker: SmallWorker, r: str
) -> None:
    writer = Noting(*[PermissionError(13, "Permission denied")] * retry.ATTEMPTS_WRITE)
    assert [worker.write("w", r, writer) for _ in range(retry.ATTEMPTS_WRITE)] == [1.0, 2.0, 4.0, None]
    found = request(parts, r)
    assert (found.state, found.failed_invocation_id, found.written) == (RequestState.FAILED, None, None)
    assert found.error is not None
    assert (found.error["class"], found.error["type"]) == ("result_writer", "PermissionError")
    assert "noting" in found.error["message"]
    assert "Permission denied" in found.error["message"]
    assert found.error["attempt"] == retry.ATTEMPTS_WRITE


def test_a_resume_repeats_the_write_alone(parts: Parts, worker: SmallWorker, r: str) -> None:
    for _ in range(retry.ATTEMPTS_WRITE):
        worker.write("w", r, Noting(OSError("no")))
    assert parts.submission.resume("w", r).epoch == 2
    idle = SmallWorker(parts, lambda path, pairs: pytest.fail(f"{path} ran again"))
    idle.work("w", r)
    assert request(parts, r).state is RequestState.WRITING
    assert idle.write("w", r) is None
    assert request(parts, r).state is RequestState.SUCCEEDED
    assert (Path(parts.settings.results.folder) / r).read_text() == "key0 0\nkey1 1\nkey2 2\n"


def test_a_store_that_does_not_answer_is_no_attempt(parts: Parts, worker: SmallWorker, r: str) -> None:
    with pytest.raises(StoreUnavailable):
        worker.write("w", r, Noting(StoreUnavailable("away")))
    assert attempts(parts, r) == []


def test_what_a_writer_tells_must_be_json(parts: Parts, worker: SmallWorker, r: str) -> None:
    class Telling(Noting):
        def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any] | None:
            return {"when": object()}

    assert worker.write("w", r, Telling()) == 1.0
    assert request(parts, r).state is RequestState.WRITING


def test_nobody_cancels_what_is_being_written(parts: Parts, r: str) -> None:
    with pytest.raises(RequestEnded, match="writing"):
        parts.submission.cancel("w", r)


def test_a_failure_that_comes_after_the_root_is_done_does_not_overtake_the_write(
    parts: Parts, worker: SmallWorker, r: str
) -> None:
    """Another execution of the same message, whose executor died too often, and which knows the record as it was."""
    running = codec.encode(codec.decode(codec.encode(request(parts, r)), Request))
    running = running.replace(b'"writing"', b'"running"')
    report = ErrorReport(class_="exit", type="ExecutorDied", message="")
    end = End(state=RequestState.FAILED, failed="0.1", report=report)
    late = Unit(workflow="w", request_id=r, epoch=1, end=end, request=running)
    (receipt,) = worker.committer.commit([late])
    assert receipt.verdict is Verdict.ENDED
    assert request(parts, r).state is RequestState.WRITING


def test_a_message_that_comes_again_asks_for_the_write_once_more(parts: Parts, worker: SmallWorker, r: str) -> None:
    """Whoever recorded the root may have died before it published."""
    worker.work("w", r)
    assert parts.publisher.backlog(["mr-write.w"])["mr-write.w"].waiting == 2
    assert request(parts, r).state is RequestState.WRITING


def test_a_job_whose_result_stays_is_ended_without_a_write(parts: Parts, worker: SmallWorker, r: str) -> None:
    file = Noting()
    assert worker.write("w", r, Writers(file, {"w/j": None, "w/other": file})) is None
    found = request(parts, r)
    assert (found.state, found.written, file.written) == (RequestState.SUCCEEDED, None, [])
    assert [codec.loads(pair) for items in parts.datasets.pairs("w", r) for pair in items] == PAIRS
    reply = parts.store.get(keys.replies("front", r))
    assert reply is not None
    assert codec.loads(reply.value) == {"workflow_name": "w", "state": "succeeded"}


def test_the_writer_of_a_job_comes_before_that_of_all(worker: SmallWorker, r: str) -> None:
    own, default = Noting(), Noting()
    worker.write("w", r, Writers(default, {"w/j": own}))
    assert ([pairs for _, pairs in own.written], default.written) == ([PAIRS], [])


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("no.such.module.Writer", "No module named 'no'"),
        ("tests.unit.test_writing.Missing", "has no attribute 'Missing'"),
        ("tests.unit.test_writing.SmallWorker", "extends mr.ports.result_writer.ResultWriter"),
        ("tests.unit.test_writing.PAIRS", "extends mr.ports.result_writer.ResultWriter"),
        ("tests.unit.test_writing.Unmade", "no printer"),
    ],
)
def test_a_class_that_is_no_writer_is_refused_by_name(tmp_path: Path, path: str, problem: str) -> None:
    built = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db", "MR_RESULT_WRITER": path}))
    with pytest.raises(ConfigError) as caught:
        _ = built.writers
    (line,) = caught.value.problems
    assert line.startswith("MR_RESULT_WRITER: expected a class that ")
    assert path in line
    assert problem in line


def test_a_class_of_the_operators_own_is_made_when_the_worker_starts(tmp_path: Path) -> None:
    path = "tests.unit.test_writing.Noting"
    built = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db", "MR_RESULT_WRITER": path}))
    assert built.writers is not None
    writer = built.writers.of("w", "j")
    assert writer is not None
    assert writer.name == "noting"
    assert built.writers is built.writers
