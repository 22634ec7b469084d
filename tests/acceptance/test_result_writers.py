"""Results that leave by a writer: JX-80 to JX-85, and JX-79 beside them.

The workers of the pair are inline. So each test has handlers of a capability of its own, and workers that offer it
and write.
"""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from mr.errors import RequestEnded, RequestError
from mr.model.request import RequestState
from tests.acceptance.conftest import Shared
from tests.acceptance.service import eventually
from tests.acceptance.sources import mapper, note, reducer
from tests.receivers import listener, mail_server

FIRST = "yield MrConfigureToReturn()\n"
EACH = "for key, values in results:\n    for value in values: yield key, value"


def define(service: Shared, w: str, code: str, also: str = "") -> str:
    """A job of one step whose mapper is the code; the capability that it asks for."""
    capability = f"writes-{w}"
    service.define(
        w, {"start": (mapper(also + FIRST + code, capability=capability), reducer(EACH, capability=capability))}
    )
    return capability


def writes(folder: Path, **environ: str) -> dict[str, str]:
    return {"MR_RESULT_WRITER": "file", "MR_RESULT_FILE_WRITER_OUTPUT_PATH": str(folder), **environ}


def own(folder: Path) -> dict[str, str]:
    return {"MR_RESULT_WRITER": "tests.acceptance.own_writer.GatedWriter", "OWN_FOLDER": str(folder)}


def names(folder: Path) -> set[str]:
    """What lies in a folder of results; nothing may be left half written."""
    assert not [*(folder / ".partial").iterdir()]
    return {path.name for path in folder.iterdir()} - {".partial"}


def begun(folder: Path) -> list[str]:
    path = folder / "begun"
    return path.read_text().split() if path.exists() else []


def test_JX_82_JX_83_each_job_of_a_workflow_may_have_a_writer_of_its_own(pair: Shared, w: str, tmp_path: Path) -> None:
    capability = define(pair, w, "yield 'a', 1")
    for job in ("mailed", "posted", "kept", "hung"):
        pair.parts.registry.create_job(w, job, "", "start")
    with mail_server() as mails, listener() as posts:
        environ = {
            "MR_RESULT_WRITER_JOBS": f"{w}/mailed=email,{w}/posted=http,{w}/kept=inline,"
            f"{w}/hung=tests.acceptance.own_writer.GatedWriter",
            "OWN_FOLDER": str(tmp_path / "own"),
            "MR_RESULT_WRITER_TIMEOUT_S": "0.3",  # of each, but the others answer at once
            "MR_RESULT_EMAIL_WRITER_TO_LIST": "ana@example.org",
            "MR_EMAIL_SMTP_FROM_EMAIL": "mr@example.org",
            "MR_EMAIL_SMTP_HOSTNAME": "127.0.0.1",
            "MR_EMAIL_SMTP_PORT": str(mails.port),
            "MR_RESULT_HTTP_WRITER_SERVER_URL": f"http://127.0.0.1:{posts.port}/results",
        }
        (tmp_path / "own").mkdir()
        with pair.worker(capability, only=w, **writes(tmp_path / "out", **environ)):
            hung = pair.start(w, job="hung")
            filed = pair.post(w)
            assert names(tmp_path / "out") == {filed.request_id}
            assert pair.post(w, job="kept").pairs == [["a", 1]]
            posts.answers = [(503, b"later")]
            posted = pair.post(w, job="posted")
            assert posted.json == {"result": {}}
            first, second = posts.posted
            assert first == second
            assert first.headers["x-job-name"] == "posted"
            mailed = pair.post(w, job="mailed")
            assert mailed.json == {"result": {}}
            (mail,) = mails.mails
            assert mail.message["Subject"] == f"Request has completed under job [mailed] (workflow [{w}])"
            attempts = eventually(
                lambda: [fact for key, fact in pair.facts(w, hung).items() if "/-/write." in key],
                "the hung write is left",
            )
            assert attempts[0]["type"] == "TimeoutError"
            assert "(gated): it took longer than MR_RESULT_WRITER_TIMEOUT_S=0.3" in attempts[0]["message"]
            (tmp_path / "own" / "gate").touch()
            assert pair.result(w, hung).json == {"result": {}}
    told = {job: pair.request(w, reply.request_id).written for job, reply in [("posted", posted), ("mailed", mailed)]}
    assert told == {
        "posted": {
            "writer": "http", "host": socket.gethostname(), "status": 204,
            "url": f"http://127.0.0.1:{posts.port}/results",
        },
        "mailed": {
            "writer": "email", "host": socket.gethostname(), "to": ["ana@example.org"],
            "message_id": mail.message["Message-ID"],
        },
    }  # fmt: skip


@pytest.mark.parametrize("name", ["MR_RESULT_WRITER", "MR_RESULT_WRITER_FQ_CLASS"])
def test_JX_80_a_result_is_a_file_named_by_the_request_and_the_answer_is_empty(
    pair: Shared, w: str, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "not" / "there"
    word = {"MR_RESULT_WRITER": "file", "MR_RESULT_WRITER_FQ_CLASS": "mr.result_writers.file.FileResultWriter"}[name]
    capability = define(
        pair, w, "yield 'the', 5\nyield 'a b', 'x \"y\"'\nyield 'n', 'line\\nline'\nyield [1], {'k': 2}"
    )
    environ = {name: word, "MR_RESULT_FILE_WRITER_OUTPUT_PATH": str(out)}
    with pair.worker(capability, only=w, **environ):
        reply = pair.post(w)
        assert (reply.status, reply.json) == (200, {"result": {}})
        assert pair.result(w, reply.request_id).json == {"result": {}}
    assert names(out) == {reply.request_id}
    # In the order of the reducer, which is that of the keys' canonical spelling.
    lines = (out / reply.request_id).read_text().split("\n")
    assert lines == [r'"a\u0020b" "x \"y\""', r'n "line\nline"', "the 5", '[1] {"k":2}', ""]
    record = pair.request(w, reply.request_id)
    assert (record.state, record.is_done) == (RequestState.SUCCEEDED, True)
    assert record.written == {"writer": "file", "host": socket.gethostname(), "path": str(out / reply.request_id)}


def test_JX_80_a_big_result_goes_through_in_pieces(pair: Shared, w: str, tmp_path: Path) -> None:
    capability = define(pair, w, "for n in range(60): yield n, 'x' * 50_000")
    with pair.worker(capability, only=w, **writes(tmp_path)):
        reply = pair.post(w)
    lines = (tmp_path / reply.request_id).read_text().splitlines()
    assert {line.split(" ")[0] for line in lines} == {str(n) for n in range(60)}
    assert {line.split(" ")[1] for line in lines} == {"x" * 50_000}


def test_JX_81_a_result_is_a_folder_with_a_file_for_each_key(pair: Shared, w: str, tmp_path: Path) -> None:
    pairs = [("a", 1), ("../x", 2), ("a/b", "text"), ("a", 3), ("..", 4), ("", [5])]
    capability = define(pair, w, f"for pair in {pairs}: yield pair")
    with pair.worker(capability, only=w, **writes(tmp_path, MR_RESULT_FILE_WRITER_WRITE_AS_DIRECTORY="1")):
        reply = pair.post(w)
    assert (reply.status, reply.json) == (200, {"result": {}})
    assert names(tmp_path) == {reply.request_id}
    found = {path.name: path.read_text() for path in (tmp_path / reply.request_id).iterdir()}
    assert found == {"a": "1", "a~2": "3", "%2E.%2Fx": "2", "a%2Fb": "text", "%2E.": "4", "~": "[5]"}


def test_JX_84_the_result_of_a_request_that_nobody_waits_for_is_written_too(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    capability = define(pair, w, "yield 'a', 1")
    with pair.worker(capability, only=w, **writes(tmp_path)):
        r = pair.start(w)
        assert pair.result(w, r).json == {"result": {}}
    assert (tmp_path / r).read_text() == "a 1\n"


def test_JX_79_an_inline_worker_beside_it_leaves_results_where_they_are(pair: Shared, w: str, tmp_path: Path) -> None:
    """And it takes no writes: it does not listen for them."""
    capability = define(pair, w, "yield 'a', 1")
    with pair.worker(capability, only=w) as inline:
        assert pair.post(w).pairs == [["a", 1]]
        inline.stop()
    with pair.worker(capability, only=w, **own(tmp_path)) as writer:
        r = pair.start(w)
        eventually(lambda: begun(tmp_path), "the result is being written")
        writer.kill()
    with pair.worker(capability, only=w):
        assert pair.ask("GET", f"/request/{w}/{r}/result").status == 202
    with pair.worker(capability, only=w, **own(tmp_path)):
        (tmp_path / "gate").touch()
        assert pair.result(w, r).json == {"result": {}}


def test_JX_85_a_writer_that_fails_fails_the_request_and_a_resume_repeats_the_write_alone(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    out, ran = tmp_path / "out", tmp_path / "ran"
    capability = define(pair, w, "yield 'a', 1", also=note(ran))
    with pair.worker(capability, only=w, **writes(out)):
        shutil.rmtree(out)
        out.write_text("in the way")
        reply = pair.post(w)
        assert reply.error["class"] == "result_writer"
        assert reply.headers["x-mr-exception-type"] == reply.error["type"]
        assert "cannot be written (file)" in reply.error["message"]
        assert str(out) in reply.error["message"]
        failed = pair.request(w, reply.request_id)
        assert (failed.state, failed.is_done, failed.failed_invocation_id) == (RequestState.FAILED, True, None)
        attempts = [fact for key, fact in pair.facts(w, reply.request_id).items() if key.startswith("attempt/-/write.")]
        assert len(attempts) == 4
        out.unlink()
        if not pair.parts.store.abilities.transactions:
            with pytest.raises(RequestError, match="cannot be resumed"):
                pair.parts.submission.resume(w, reply.request_id)
            return
        pair.parts.submission.resume(w, reply.request_id)
        assert pair.result(w, reply.request_id).json == {"result": {}}
    assert (out / reply.request_id).read_text() == "a 1\n"
    assert ran.read_text() == ".\n"


@pytest.mark.kills
def test_JX_85_a_worker_is_killed_while_it_writes(pair: Shared, w: str, tmp_path: Path) -> None:
    """Given a result half written, when its worker dies, then nothing is seen of it, and another worker writes it."""
    ran = tmp_path / "ran"
    out = tmp_path / "out"
    capability = define(pair, w, "for n in range(20): yield n, n", also=note(ran))
    with pair.worker(capability, only=w, **own(tmp_path)) as first:
        r = pair.start(w)
        eventually(lambda: begun(tmp_path), "the result is being written")
        assert pair.request(w, r).state is RequestState.WRITING
        with pytest.raises(RequestEnded):
            pair.parts.submission.cancel(w, r)
        first.kill()
    assert [path.name for path in out.iterdir()] == [".partial"]
    assert pair.ask("GET", f"/request/{w}/{r}/result").status == 202
    with pair.worker(capability, only=w, **own(tmp_path)) as second:
        eventually(lambda: len(begun(tmp_path)) > 1, "the result is being written again")
        (tmp_path / "gate").touch()
        assert pair.result(w, r).json == {"result": {}}
        assert set(begun(tmp_path)) == {str(first.pid), str(second.pid)}
    assert names(out) == {r}
    assert (out / r).read_text().split("\n") == [*(f"{n} {n}" for n in sorted(range(20), key=str)), ""]
    assert ran.read_text() == ".\n"
    assert pair.request(w, r).written == {
        "writer": "gated", "host": socket.gethostname(), "path": str(out / r),
    }  # fmt: skip


@pytest.mark.kills
def test_JX_85_a_worker_that_is_told_to_end_hands_the_write_back(pair: Shared, w: str, tmp_path: Path) -> None:
    capability = define(pair, w, "yield 'a', 1")
    with pair.worker(capability, only=w, MR_WORKER_DRAIN_S="0.2", **own(tmp_path)) as first:
        r = pair.start(w)
        eventually(lambda: begun(tmp_path), "the result is being written")
        assert first.stop() == 0
    (tmp_path / "gate").touch()
    with pair.worker(capability, only=w, **own(tmp_path)):
        assert pair.result(w, r).json == {"result": {}}
    assert names(tmp_path / "out") == {r}


def test_a_write_that_waits_holds_up_no_handlers(pair: Shared, w: str, tmp_path: Path) -> None:
    capability = f"writes-{w}"
    each = reducer(EACH, capability=capability)
    upper = mapper("yield MrConfigureToMap('leaf')\nfor n in range(40): yield n, 1", capability=capability)
    pair.define(w, {"start": (upper, each), "leaf": (mapper(FIRST + "yield 1, 1", capability=capability), each)})
    with pair.worker(capability, only=w, **own(tmp_path)):
        # More requests than results are written at a time.
        requests = [pair.start(w) for _ in range(8)]
        eventually(
            lambda: all(pair.request(w, r).state is RequestState.WRITING for r in requests), "all of them are reduced"
        )
        (tmp_path / "gate").touch()
        assert [pair.result(w, r).json for r in requests] == [{"result": {}}] * 8


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"MR_RESULT_WRITER": "email"}, "MR_RESULT_EMAIL_WRITER_TO_LIST: expected an address"),
        (
            {"MR_RESULT_EMAIL_WRITER_SUBJECT_TEMPLATE": "%(request)s"},
            "MR_RESULT_EMAIL_WRITER_SUBJECT_TEMPLATE: expected text with %(request_id)s",
        ),
        ({"MR_RESULT_WRITER_JOBS": "w/j=own.Class"}, "MR_RESULT_WRITER_JOBS: expected a class that"),
        ({"MR_RESULT_WRITER": "tests.acceptance.own_writer.None_"}, "MR_RESULT_WRITER: expected a class that"),
        ({"MR_RESULT_WRITER": "tests.acceptance.own_writer.Path"}, "MR_RESULT_WRITER: expected a class that extends"),
        (
            {"MR_RESULT_WRITER": "file", "MR_RESULT_FILE_WRITER_OUTPUT_PATH": "/proc/nowhere"},
            "MR_RESULT_FILE_WRITER_OUTPUT_PATH: expected a folder",
        ),
    ],
)
def test_a_worker_does_not_start_with_a_writer_that_is_none(
    pair: Shared, environ: dict[str, str], problem: str
) -> None:
    with pair.process("worker", **environ) as process:
        eventually(lambda: process.has_ended, "the worker ends")
        assert problem in process.log
        assert "Traceback" not in process.log
