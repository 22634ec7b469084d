"""JobX's commands: the quick start of its document, with its arguments, output and exit codes."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mr.cli import jobx
from mr.cli.jobx.processes import PRODUCTION
from mr.cli.parent import Parent
from mr.settings import Settings
from mr.wiring import Parts
from tests.unit.small_worker import SmallWorker
from tests.unit.test_dump import kept_by_root
from tests.unit.test_tracing import SOURCES, maps_to

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call a console script as a shell would: exit code, stdout, stderr."""
    monkeypatch.setenv("MR_STORE", f"sqlite:///{tmp_path}/mr.db")

    def call(name: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(SystemExit) as ended:
            getattr(jobx, name)()
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, out, err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "map" / "wc"
    made.mkdir(parents=True)
    for name, source in SOURCES.items():
        (made / f"{name}.py").write_text(source)
    return tmp_path / "map"


@pytest.fixture
def parts(run: Run, tmp_path: Path) -> Iterator[Parts]:
    built = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db"}))
    yield built
    built.close()


@pytest.fixture
def workflow(run: Run, folder: Path) -> str:
    """The quick start, as far as the job."""
    for words in (
        ["mr_kv_workflow_create", "test_workflow", "Jobs that assist build and deployment."],
        ["mr_kv_handler_store", "test_workflow", str(folder)],
        ["mr_kv_step_create", "test_workflow", "split", "Split it", "wc_split", "", "wc_total"],
        ["mr_kv_step_create", "test_workflow", "count", "Count it", "wc_count", "", "wc_total"],
        ["mr_kv_job_create", "test_workflow", "wordcount", "Count the words", "split"],
    ):
        code, _, err = run(*words)
        assert code == 0, err
    return "test_workflow"


def entity(result: tuple[int, str, str]) -> dict[str, Any]:
    code, out, err = result
    assert code == 0, err
    built: dict[str, Any] = json.loads(out)
    assert list(built) == ["entity_name", "primary_key", "data"]
    assert out.splitlines()[1].startswith('    "entity_name"')
    return built


def test_JX_108_the_quick_start_creates_and_prints_entities(run: Run, workflow: str) -> None:
    made = entity(run("mr_kv_workflow_create", "another", "x"))
    assert made == entity(run("mr_kv_workflow_get", "another"))
    assert made["entity_name"] == "workflow"
    assert made["data"]["description"] == "x"
    step = entity(run("mr_kv_step_get", workflow, "count"))
    assert step["primary_key"] == {"workflow_name": workflow, "step_name": "count"}
    assert step["data"]["combine_handler_name"] is None
    assert entity(run("mr_kv_job_get", workflow, "wordcount"))["data"]["initial_step_name"] == "split"
    assert "def handle" in entity(run("mr_kv_handler_get", workflow, "wc_split"))["data"]["source_code"]


def test_a_list_is_names_each_with_a_dict(run: Run, workflow: str) -> None:
    code, out, _ = run("mr_kv_handler_list", workflow)
    assert code == 0
    blocks = [block.partition(":\n") for block in out.strip().split("\n\n")]
    assert [name for name, _, _ in blocks] == ["wc_count", "wc_split", "wc_total"]
    for _, _, text in blocks:
        found = ast.literal_eval(text)
        assert "source_code" not in found
        assert found["workflow_name"] == workflow
    assert run("mr_kv_job_list", workflow)[1].startswith("wordcount:\n{")


def test_the_steps_are_listed_in_four_tables(run: Run, workflow: str) -> None:
    _, out, _ = run("mr_kv_step_list", workflow)
    titles = [line for line in out.splitlines() if line.startswith("By ")]
    assert titles == ["By step:", "By mapper:", "By combiner:", "By reducer:"]
    assert out.count("wc_total") == 8


@pytest.mark.parametrize(
    ("handlers", "code", "text"),
    [
        (("nope", "", "wc_total"), 1, "Map handler is invalid: [nope]"),
        (("wc_total", "", "wc_total"), 1, "Map handler is invalid: [wc_total]"),
        (("wc_split", "nope", "wc_total"), 2, "Combine handler is invalid: [nope]"),
        (("wc_split", "", "nope"), 3, "Reduce handler is invalid: [nope]"),
    ],
)
def test_JX_38_a_bad_handler_of_a_step_has_its_own_exit_code(
    run: Run, workflow: str, handlers: tuple[str, ...], code: int, text: str
) -> None:
    ended, out, err = run("mr_kv_step_create", workflow, "s", "x", *handlers)
    assert (ended, out) == (code, "")
    assert text in err


def test_a_simulated_store_checks_everything_and_writes_nothing(run: Run, folder: Path) -> None:
    run("mr_kv_workflow_create", "w", "x")
    code, out, _ = run("mr_kv_handler_store", "w", str(folder), "-s")
    assert (code, out.count("+")) == (0, 3)
    assert run("mr_kv_handler_list", "w")[1] == ""
    assert run("mr_kv_handler_store", "w", str(folder), "-f")[0] == 0
    (folder / "wc" / "bad.py").write_text("yield (\n")
    assert run("mr_kv_handler_store", "w", str(folder), "-s")[0] == 1


def test_a_request_and_its_invocations_are_printed(run: Run, workflow: str, parts: Parts) -> None:
    r = parts.submission.submit(workflow, "wordcount", {"a": 1}, context={"requester_ip": "127.0.0.1"}).request_id
    SmallWorker(parts, maps_to(2)).work(workflow, r)
    request = entity(run("mr_kv_request_get", workflow, r))
    assert request["primary_key"] == {"workflow_name": workflow, "request_id": r}
    assert request["data"]["is_done"] is True
    assert request["data"]["context"] == {"requester_ip": "127.0.0.1"}
    invocation = entity(run("mr_kv_invocation_get", workflow, f"{r}.0.1"))
    assert invocation["primary_key"]["invocation_id"] == f"{r}.0.1"
    assert invocation["data"]["step_name"] == "count"
    assert (invocation["data"]["direction"], invocation["data"]["parent_invocation_id"]) == ("map", f"{r}.0")
    _, out, _ = run("mr_get_invocation_flat_list", workflow, r)
    assert out.splitlines()[:4] == ["0 M [X-X] split", "  0.0 M [XXX] count", "    0.0.r R [---] count", "      0.0*"]


def test_JX_103_and_106_a_request_is_dumped_with_its_data_and_sessions(run: Run, workflow: str, parts: Parts) -> None:
    r = parts.submission.submit(workflow, "wordcount", {"a": 1}).request_id
    SmallWorker(parts, kept_by_root(maps_to(2))).work(workflow, r)
    code, out, _ = run("mr_get_invocation_graph", workflow, r)
    assert code == 0
    assert "ROOT [0] [split]" in out
    assert "PARENT [0] [split]  has MAPPED to  CHILD [0.1] [count]" in out
    code, out, _ = run("mr_get_request_sessions", workflow, r)
    assert (code, out) == (0, 'Invocation: 0\n[seed]: [{"n":7}]\n\n')


def test_JX_105_the_graph_is_written_into_the_current_directory(
    run: Run, workflow: str, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = parts.submission.submit(workflow, "wordcount", {"a": 1}).request_id
    SmallWorker(parts, maps_to(20)).work(workflow, r)
    monkeypatch.chdir(tmp_path)
    code, out, _ = run("mr_draw_invocation_graph", workflow, r)
    assert (code, out) == (0, f"request-{r}.dot\n")
    text = (tmp_path / f"request-{r}.dot").read_text()
    assert text.startswith(f"// Request {r}\n")
    assert text.count('label="mapped to"') == 20


def test_deleting_is_silent_and_takes_what_nothing_needs(run: Run, workflow: str) -> None:
    for words in (
        ["mr_kv_job_delete", workflow, "wordcount"],
        ["mr_kv_step_delete", workflow, "split"],
        ["mr_kv_step_delete", workflow, "count"],
        *(["mr_kv_handler_delete", workflow, name] for name in ("wc_split", "wc_count", "wc_total")),
        ["mr_kv_workflow_delete", workflow],
    ):
        assert run(*words) == (0, "", "")
        assert run(*words)[0] == 1
    assert run("mr_kv_workflow_get", workflow)[0] == 1


def test_JX_40_deleting_what_is_in_use_is_refused_and_names_the_users(run: Run, workflow: str) -> None:
    for words, user in (
        (["mr_kv_step_delete", workflow, "split"], "job wordcount"),
        (["mr_kv_handler_delete", workflow, "wc_total"], "step count"),
        (["mr_kv_workflow_delete", workflow], "job wordcount"),
    ):
        code, out, err = run(*words)
        assert (code, out) == (4, "")
        assert user in err
    assert run("mr_kv_step_get", workflow, "split")[0] == 0


def test_a_step_gets_other_handlers(run: Run, workflow: str) -> None:
    step = entity(run("mr_kv_step_set_handler", workflow, "split", "-m", "wc_count"))
    assert step["data"]["map_handler_name"] == "wc_count"
    assert step["data"]["reduce_handler_name"] == "wc_total"
    assert step == entity(run("mr_kv_step_get", workflow, "split"))
    assert run("mr_kv_step_set_handler", workflow, "split") == (0, "No handler updates requested.\n", "")
    for option, code, text in (("-m", 1, "Map"), ("-c", 2, "Combine"), ("-r", 3, "Reduce")):
        ended, out, err = run("mr_kv_step_set_handler", workflow, "split", option, "nope")
        assert (ended, out) == (code, "")
        assert f"{text} handler is invalid: [nope]" in err
    assert step == entity(run("mr_kv_step_get", workflow, "split"))


def test_a_handler_is_replaced_in_all_steps_that_name_it(run: Run, workflow: str) -> None:
    update = ["mr_kv_step_update_handlers", workflow, "mapper", "wc_split", "wc_count"]
    assert run(*update, "-s") == (0, "SIMULATION ONLY\n\nStep match: [split] [Split it]\n", "")
    assert entity(run("mr_kv_step_get", workflow, "split"))["data"]["map_handler_name"] == "wc_split"
    assert run(*update) == (0, "Step match: [split] [Split it]\n", "")
    assert entity(run("mr_kv_step_get", workflow, "split"))["data"]["map_handler_name"] == "wc_count"
    assert run(*update) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["joiner", "wc_split", "wc_count"], 1, "Handler type [joiner] is not valid"),
        (["mapper", "wc_split", "nope"], 2, "'to' handler is not valid: [nope]"),
        (["mapper", "wc_split", "wc_total"], 1, "is the wrong type: [reducer]"),
    ],
)
def test_a_wrong_replacement_changes_nothing(run: Run, workflow: str, words: list[str], code: int, text: str) -> None:
    ended, out, err = run("mr_kv_step_update_handlers", workflow, *words)
    assert (ended, out) == (code, "")
    assert text in err
    assert entity(run("mr_kv_step_get", workflow, "split"))["data"]["map_handler_name"] == "wc_split"


def test_a_handler_is_created_of_code_on_stdin(run: Run, workflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create = [
        "mr_kv_handler_create",
        workflow,
        "twice",
        "Each pair twice",
        "python",
        "mapper",
        "-a",
        "arguments",
        "list",
    ]

    def given(code: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(code.encode()), encoding="utf-8"))

    given("yield MrConfigureToReturn()\nfor pair in arguments:\n    yield pair\n    yield pair\n")
    made = entity(run(*create, "-r", "gpu"))
    assert made["primary_key"] == {"workflow_name": workflow, "handler_name": "twice"}
    assert made["data"]["argument_spec"] == [["arguments", "list"]]
    assert made["data"]["required_capability"] == "gpu"
    assert made == entity(run("mr_kv_handler_get", workflow, "twice"))
    given("")
    assert run(*create) == (1, "", "Please provide code via STDIN.\n")
    given("yield (")
    code, out, err = run(*create)
    assert (code, out) == (1, "")
    assert "twice:1:" in err


def test_JX_90_a_request_is_removed_by_hand_or_only_said_to_be(run: Run, workflow: str, parts: Parts) -> None:
    r = parts.submission.submit(workflow, "wordcount", {"a": 1}).request_id
    cleanup = ["mr_kv_request_cleanup", workflow, r]
    code, _, err = run(*cleanup)
    assert code == 4
    assert "still runs" in err
    SmallWorker(parts, maps_to(2)).work(workflow, r)

    def kept() -> set[str]:
        return {entry.key for entry in parts.store.range("", limit=1000).entries if r in entry.key}

    before = kept()
    code, out, _ = run(*cleanup, "-s")
    assert code == 0
    title, _, *told = out.splitlines()
    assert title == "SIMULATION ONLY"
    assert set(told) == before == kept()
    assert run(*cleanup) == (0, "", "")
    assert kept() == set()


def test_JX_111_the_production_script_has_the_socket_and_the_log_of_jobx(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[list[str], str]] = []

    def pretend(self: Parent, on_ready: Callable[[], None], endpoint: object) -> int:
        words = [" ".join(child.command[3:]) for child in self._children]
        begun.append((words, " ".join(os.environ[name] for name in PRODUCTION)))
        return 0

    monkeypatch.setattr(Parent, "run", pretend)
    for name in PRODUCTION:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MR_WORKFLOW_NAMES", "later")
    code, _, err = run("mr_start_gunicorn_prod")
    assert code == 0
    assert begun.pop() == (["web", "worker"], "0 /var/log/jobx.log unix:/tmp/mr.gunicorn.sock")
    assert "later: does not exist; create it: mr workflow create later DESCRIPTION" in err
    monkeypatch.setenv("MR_WEB_BIND", "127.0.0.1:0")
    monkeypatch.setenv("MR_CONSUME", "0")
    run("mr_start_gunicorn_prod")
    assert begun == [(["web"], "0 /var/log/jobx.log 127.0.0.1:0")]


def test_JX_4_keys_have_no_leading_slash_and_a_request_prints_as_pure_json(
    run: Run, workflow: str, parts: Parts
) -> None:
    r = parts.submission.submit(workflow, "wordcount", {"a": 1}).request_id
    stored = parts.store.get(f"entities/request/{workflow}/{r}")
    assert stored is not None
    assert entity(run("mr_kv_request_get", workflow, r))["data"]["job_name"] == json.loads(stored.value)["job_name"]
    SmallWorker(parts, maps_to(2)).work(workflow, r)
    assert [entry.key for entry in parts.store.range("/").entries] == []


@pytest.mark.parametrize(
    "words",
    [
        ["mr_kv_workflow_get", "nope"],
        ["mr_get_invocation_graph", "nope", "0" * 40],
        ["mr_get_request_sessions", "nope", "0" * 40],
        ["mr_draw_invocation_graph", "nope", "0" * 40],
        ["mr_kv_request_get", "nope", "0" * 40],
        ["mr_kv_invocation_get", "nope", "0" * 40 + ".0"],
        ["mr_get_invocation_flat_list", "nope", "0" * 40],
    ],
)
def test_what_does_not_exist_is_an_error_in_a_line(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert err.startswith("mr: ")


@pytest.mark.parametrize("name", jobx.COMMANDS)
def test_each_alias_explains_itself(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert re.search(rf"^  {name}( |$)", out.partition("Examples:")[2], re.MULTILINE)
    if any(isinstance(parameter, click.Argument) for parameter in jobx.COMMANDS[name].params):
        assert run(name)[0] == 2
