"""JobX's commands: the quick start of its document, with its arguments, output and exit codes."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mr.cli import jobx
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


def test_creating_and_getting_print_the_entity(run: Run, workflow: str) -> None:
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
def test_a_bad_handler_of_a_step_has_its_own_exit_code(
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
    assert f"  {name} " in out.partition("Examples:")[2]
    if any(isinstance(parameter, click.Argument) for parameter in jobx.COMMANDS[name].params):
        assert run(name)[0] == 2
