"""The commands: what they print where, how they end, and that each is explained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from mr import errors
from mr.cli import exits, live
from mr.cli.command import Noun
from mr.cli.main import PLACES, program
from mr.cli.output import duration, wants_colour
from mr.cli.run import parse_arguments
from mr.codec import encode
from mr.model.invocation import WorkerRecord
from mr.model.request import RequestState
from mr.ports.broker import Publication
from mr.ports.store import Put, Transaction
from mr.rules import keys
from mr.settings import Settings
from mr.wiring import Parts
from tests.unit.command_line import done, mr
from tests.unit.small_worker import SmallWorker
from tests.unit.test_tracing import SOURCES, maps_to


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of the test's own, which the commands find in the environment."""
    url = f"sqlite:///{tmp_path}/mr.db"
    monkeypatch.setenv("MR_STORE", url)
    return url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good handlers."""
    made = tmp_path / "handlers"
    made.mkdir()
    for name, source in SOURCES.items():
        (made / f"{name}.py").write_text(source)
    return made


@pytest.fixture
def parts(store: str) -> Iterator[Parts]:
    """The same store, seen from behind."""
    built = Parts(Settings.from_env({"MR_STORE": store}))
    yield built
    built.close()


@pytest.fixture
def workflow(store: str, folder: Path) -> str:
    """A workflow `w` with a job `j`, made by commands."""
    done("workflow", "create", "w", "A workflow")
    done("handler", "sync", "w", str(folder))
    done("step", "create", "w", "split", "Split it", "split", "", "total")
    done("step", "create", "w", "count", "Count it", "count", "", "total")
    done("job", "create", "w", "j", "Do it", "split")
    return "w"


def document(*words: str) -> Any:
    return json.loads(done(*words, "--json").stdout)


def submitted(*words: str) -> str:
    return done("run", "w/j", "--detach", *words).stdout.strip()


def commands(command: click.Command, path: Sequence[str] = ()) -> Iterator[tuple[Sequence[str], click.Command]]:
    """Every command below, with its words."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, [*path, name])


ALL = {" ".join(["mr", *path]): command for path, command in commands(program)}
READING = [name for name in ALL if name.endswith((" list", " show", " tree", " status", " logs", " doctor"))]


# What holds of all


@pytest.mark.parametrize("name", ALL)
def test_each_command_has_help_and_an_example_of_itself(name: str) -> None:
    command = ALL[name]
    assert command.help
    examples: Sequence[str] = getattr(command, "examples", ())
    assert any(name.strip() in example for example in examples), f"{name} has no example"
    shown = done(*name.split()[1:], "--help").stdout
    assert shown.rstrip().endswith(examples[-1])


@pytest.mark.parametrize("name", READING)
def test_each_reading_command_speaks_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in ALL[name].params)


def test_each_place_of_a_command_is_true() -> None:
    context = click.Context(program)
    assert [name for name in PLACES if program.get_command(context, name) is None] == []


@pytest.mark.parametrize("name", ["help", "--help", ""])
def test_the_program_explains_itself(name: str) -> None:
    shown = done(*([name] if name else [])).stdout
    assert "Map me. Reduce me." in shown
    assert "handler" in shown


def test_help_is_the_help_of_the_command() -> None:
    assert done("help", "handler", "sync").stdout == done("handler", "sync", "--help").stdout


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["wrokflow"], "mr workflow"), (["handler", "snyc"], "mr handler sync"), (["help", "jbo"], "mr job")],
)
def test_a_command_that_does_not_exist_is_answered_with_the_nearest(words: list[str], meant: str) -> None:
    result = mr(*words)
    assert result.exit_code == exits.USAGE
    assert f"did you mean {meant}?" in result.stderr
    assert result.stdout == ""


def test_help_and_settings_come_within_their_time(store: str) -> None:
    for words in (["--help"], ["config", "show"]):
        took = []
        for _ in range(5):
            before = os.times()
            subprocess.run([sys.executable, "-m", "mr.cli.main", *words], check=True, capture_output=True)
            after = os.times()
            took.append(after.children_user + after.children_system - before.children_user - before.children_system)
        # Time on the processor, the least of five: what else the machine does must not count.
        assert min(took) < 0.15, (words, took)


def test_a_start_imports_no_more_than_it_needs() -> None:
    code = (
        "import sys, mr.cli.main as main\n"
        "try: main.program.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('rich', 'sqlite3', 'mr.wiring', 'mr.settings', 'urllib3') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.splitlines()[-1] == "[]"


# How commands end


def test_each_error_has_an_exit_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.MrError)]
    made = {
        kind: kind(["x"]) if kind is errors.ConfigError
        else kind("x", {}) if kind is errors.RequestFailed
        else kind("x", []) if kind is errors.DefinitionInUse
        else kind("x")
        for kind in kinds
    }  # fmt: skip
    codes = {kind.__name__: exits.code_of(error) for kind, error in made.items()}
    assert set(codes.values()) == {exits.FAILED, exits.USAGE, exits.UNREACHABLE, exits.REFUSED, exits.GAVE_UP}
    assert codes["StoreUnavailable"] == codes["BrokerUnavailable"] == exits.UNREACHABLE
    assert codes["VersionConflict"] == codes["DefinitionInUse"] == codes["AlreadyExists"] == exits.REFUSED
    assert codes["ResultTimeout"] == exits.GAVE_UP
    assert codes["RequestFailed"] == codes["UnknownJob"] == codes["NotFound"] == exits.FAILED


def test_wrong_settings_are_told_one_to_a_line(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MR_EXECUTORS", "many")
    monkeypatch.setenv("MR_WAIT_MAX_S", "soon")
    result = mr("workflow", "list")
    assert result.exit_code == exits.USAGE
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["MR_EXECUTORS", "MR_WAIT_MAX_S"]


def test_JX_109_a_log_that_cannot_be_written_is_told_with_its_variable(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MR_LOG_FILEPATH", f"{tmp_path}/missing/mr.log")
    result = mr("worker")
    assert result.exit_code == exits.USAGE
    assert result.stderr.startswith(f"mr: MR_LOG_FILEPATH: expected a file that can be written, got: {tmp_path}")


def test_an_unknown_setting_is_noticed_and_nothing_else_happens(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MR_EXECUTOR", "2")
    result = done("workflow", "list", "--json")
    assert result.stdout == "[]\n"
    assert "did you mean MR_EXECUTORS?" in result.stderr


def test_a_store_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MR_STORE", "etcd3://127.0.0.1:1")
    result = mr("workflow", "list")
    assert result.exit_code == exits.UNREACHABLE
    assert len(result.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (["run", "nowhere/j"], "mr workflow list"),
        (["run", "w/nothing"], "it has: "),
        (["handler", "show", "w", "nothing"], "mr handler list"),
        (["step", "show", "w", "nothing"], "mr step list"),
        (["workflow", "create", "w", "again"], "another name"),
        (["handler", "rm", "w", "split", "--yes"], "--force"),
        (["handler", "sync", "w", "/dev/null"], "the files of the handlers"),
        (["tree", "zz"], "mr request list"),
        (["run", "w/j", "a=\udcff"], "mr run --help"),
        (["run", "w/j", "--arguments", "/dev/null"], "an object such as"),
    ],
)
def test_a_mistake_is_told_with_the_next_step(workflow: str, words: list[str], step: str) -> None:
    result = mr(*words)
    assert result.exit_code != 0
    first, *more = result.stderr.splitlines()
    assert first.startswith("mr: ")
    assert step in "".join(more)


def test_nothing_is_removed_unasked_where_there_is_no_terminal(workflow: str) -> None:
    for words in (["job", "rm", "w", "j"], ["workflow", "rm", "w", "--force"]):
        result = mr(*words)
        assert result.exit_code == exits.USAGE
        assert "--yes" in result.stderr
    assert [job["name"] for job in document("job", "list", "w")] == ["j"]


@pytest.mark.parametrize("name", ["NO_COLOR", "MR_NO_COLOR"])
def test_colours_can_be_forbidden(name: str) -> None:
    assert wants_colour({})
    assert not wants_colour({name: "1"})
    assert wants_colour({name: ""})
    assert not wants_colour({"TERM": "dumb"})


def test_without_a_terminal_there_are_no_colours(workflow: str) -> None:
    assert "\x1b" not in mr("workflow", "list").output + mr("tree", submitted()).output + mr("job", "rm", "w").output


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0000123, "12 µs"), (0.0123, "12.3 ms"), (1.5, "1.50 s"), (125, "2 min 05 s")]
)
def test_durations_are_told_in_a_unit_that_suits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# Definitions


def test_what_is_created_can_be_listed_and_shown(workflow: str) -> None:
    assert document("workflow", "list")[0]["name"] == "w"
    assert document("workflow", "show", "w")["definitions"]["jobs"] == {"j": "split"}
    assert [step["map_handler_name"] for step in document("step", "list", "w")] == ["count", "split"]
    assert document("step", "show", "w", "count")["combine_handler_name"] is None
    assert document("job", "show", "w", "j")["initial_step_name"] == "split"
    assert "source_code" not in document("handler", "list", "w")[0]
    assert document("handler", "show", "w", "split")["handler_type"] == "mapper"
    for words in (["workflow", "show", "w"], ["step", "show", "w", "count"], ["job", "list", "w", "--plain"]):
        assert "count" in done(*words).stdout or "Do it" in done(*words).stdout
    assert "def handle" in done("handler", "show", "w", "split").stdout


def test_a_step_is_changed_in_what_is_given(workflow: str) -> None:
    made = done("step", "update", "w", "count", "--mapper", "split", "--description", "Split it again")
    assert "step w/count: split → total" in made.stderr
    found = document("step", "show", "w", "count")
    assert (found["map_handler_name"], found["reduce_handler_name"]) == ("split", "total")
    assert found["description"] == "Split it again"
    assert document("step", "update", "w", "count", "--mapper", "count")["map_handler_name"] == "count"
    refused = mr("step", "update", "w", "count")
    assert refused.exit_code == exits.USAGE
    assert "--mapper, --combiner, --reducer" in refused.stderr


def test_each_creation_names_the_next_step(store: str) -> None:
    assert "next: mr handler sync w FOLDER" in done("workflow", "create", "w", "x").stderr


@pytest.mark.parametrize(
    "line",
    [
        "workflow list", "workflow show w", "step list w", "step show w split", "job list w", "job show w j",
        "step update w split --mapper split",
        "handler list w", "handler show w split", "handler sync w FOLDER", "request list", "request show R",
        "request result R", "request pin R", "tree R", "logs R", "invocation show R.0.1", "status", "config show",
        "doctor", "job rm w j --yes", "request rm R --yes",
    ],
)  # fmt: skip
def test_at_a_terminal_each_command_ends_with_a_next_step_that_exists(
    line: str, succeeded: str, folder: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(parts, "w9", ["general"])
    words = line.replace("FOLDER", str(folder)).replace("R", succeeded).split()
    monkeypatch.setattr("mr.cli.output.is_watched", lambda: True)
    steps = [text for text in done(*words).stderr.splitlines() if "next: " in text]
    assert len(steps) == 1
    for text in steps:
        command = text.partition("next: ")[2].split()
        assert any(" ".join(command[:count]) in ALL for count in (2, 3)), text


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["workflow", "create", "w", "again"], exits.REFUSED),
        (["workflow", "create", "a b", "x"], exits.USAGE),
        (["workflow", "show", "nope"], exits.FAILED),
        (["workflow", "rm", "w", "--yes"], exits.REFUSED),
        (["step", "create", "w", "s", "x", "nope", "", "total"], exits.FAILED),
        (["step", "create", "w", "s", "x", "total", "", "total"], exits.FAILED),
        (["step", "rm", "w", "split", "--yes"], exits.REFUSED),
        (["step", "show", "w", "nope"], exits.FAILED),
        (["step", "update", "w", "nope", "--mapper", "split"], exits.FAILED),
        (["step", "update", "w", "count", "--mapper", "total"], exits.FAILED),
        (["job", "create", "w", "k", "x", "nope"], exits.FAILED),
        (["job", "show", "w", "nope"], exits.FAILED),
        (["handler", "rm", "w", "total", "--yes"], exits.REFUSED),
        (["handler", "show", "w", "nope"], exits.FAILED),
        (["handler", "sync", "nope", "."], exits.FAILED),
        (["handler", "sync", "w", "/nope"], exits.FAILED),
        (["job", "create", "w"], exits.USAGE),
        (["run", "w/j", "--timeout", "soon"], exits.USAGE),
        (["job", "list", "w", "--nope"], exits.USAGE),
    ],
)
def test_what_cannot_be_is_told_in_one_line(workflow: str, words: list[str], code: int) -> None:
    result = mr(*words)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("mr: ")
    assert len(result.stderr.splitlines()) <= 2
    assert result.stdout == ""


def test_everything_can_be_removed(workflow: str) -> None:
    done("job", "rm", "w", "j", "--yes")
    done("step", "rm", "w", "split", "--yes")
    done("handler", "rm", "w", "split", "--yes")
    assert "with step count" in done("workflow", "rm", "w", "--force", "--yes").stderr
    assert document("workflow", "list") == []


# Sync


def test_a_sync_shows_its_plan_and_a_dry_run_writes_nothing(store: str, folder: Path) -> None:
    done("workflow", "create", "w", "x")
    result = done("handler", "sync", "w", str(folder), "--dry-run")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["+", "count"], ["+", "split"], ["+", "total"]]
    assert "nothing was written" in result.stderr
    assert document("handler", "list", "w") == []
    assert document("handler", "sync", "w", str(folder))["applied"] is True
    assert len(document("handler", "list", "w")) == 3


def test_the_next_step_after_a_sync_is_the_first_that_is_still_missing(store: str, folder: Path) -> None:
    def next_step() -> str:
        return done("handler", "sync", "w", str(folder)).stderr.splitlines()[-1].strip()

    done("workflow", "create", "w", "x")
    assert next_step() == "next: mr step create w NAME DESCRIPTION MAP COMBINE REDUCE"
    done("step", "create", "w", "split", "Split it", "split", "", "total")
    done("step", "create", "w", "count", "Count it", "count", "", "total")
    assert next_step() == "next: mr job create w NAME DESCRIPTION count"
    done("job", "create", "w", "j", "Do it", "split")
    assert next_step() == "next: mr run w/j key=value"
    (folder / "other.py").write_text((folder / "count.py").read_text())
    assert next_step() == "next: mr step create w NAME DESCRIPTION MAP COMBINE REDUCE"


def test_a_handler_that_a_step_names_is_kept_and_the_step_is_named(workflow: str, folder: Path) -> None:
    (folder / "count.py").unlink()
    result = done("handler", "sync", "w", str(folder))
    assert " ! count  kept: step count names it" in result.stdout
    assert len(document("handler", "list", "w")) == 3


def test_all_mistakes_of_a_folder_are_told_and_nothing_is_changed(workflow: str, folder: Path) -> None:
    (folder / "bad.py").write_text("yield (\n")
    (folder / "worse.py").write_text("print(1)\n")
    result = mr("handler", "sync", "w", str(folder))
    assert result.exit_code == exits.FAILED
    assert "bad.py:" in result.stderr
    assert "worse.py:" in result.stderr
    assert "nothing was changed" in result.stderr
    assert len(document("handler", "list", "w")) == 3


# Running


def test_arguments_are_json_where_they_parse_and_text_elsewhere() -> None:
    given = parse_arguments(("a=1", "b=x y", 'c=["x", 2]', "d=", "e=NaN", "f==", "g=007", 'h="1"'))
    assert given == {"a": 1, "b": "x y", "c": ["x", 2], "d": "", "e": "NaN", "f": "=", "g": "007", "h": "1"}


def test_a_detached_run_prints_the_id_and_nothing_else(workflow: str) -> None:
    result = done("run", "w/j", "a=1", "--detach")
    assert len(result.stdout.strip()) == 40
    assert f"mr request wait {result.stdout[:12]}" in result.stderr
    assert "no worker is running" in result.stderr


def test_arguments_come_from_a_file_or_from_stdin(workflow: str, tmp_path: Path, parts: Parts) -> None:
    file = tmp_path / "arguments.json"
    file.write_text('{"a": [1, 2]}')
    from_file = submitted("--arguments", str(file))
    from_stdin = mr("run", "w/j", "--detach", "--arguments", "-", stdin='{"a": [1, 2]}').stdout.strip()
    for r in (from_file, from_stdin):
        manifest = parts.datasets.manifest("w", r, "-")
        assert manifest is not None
        assert bytes(manifest.args.inline) == b'[[["a",[1,2]]]]'


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["j", "a=1"], exits.USAGE),
        (["w/", "a=1"], exits.USAGE),
        (["w/j", "a"], exits.USAGE),
        (["w/j", "=a"], exits.USAGE),
        (["w/j", "a=1", "a=2"], exits.USAGE),
        (["w/j", "a=1", "--arguments", "x"], exits.USAGE),
        (["w/j", "--arguments", "/nope"], exits.USAGE),
        (["w/j", "--arguments", "/dev/null"], exits.USAGE),
        (["w/nope", "a=1"], exits.FAILED),
        (["nope/j", "a=1"], exits.FAILED),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_anything_is_accepted(
    workflow: str, words: list[str], code: int
) -> None:
    result = mr("run", *words)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert document("request", "list") == []


def test_a_run_gives_up_waiting_and_says_how_to_come_back(workflow: str) -> None:
    result = mr("run", "w/j", "a=1", "--timeout", "0.1")
    assert result.exit_code == exits.GAVE_UP
    assert result.stdout == ""
    (request,) = document("request", "list")
    assert f"mr request wait {request['id']}" in result.stderr
    assert request["state"] == "running"


def test_a_terminal_gets_a_picture_that_follows_the_request(
    workflow: str, parts: Parts, capsys: pytest.CaptureFixture[str]
) -> None:
    r = submitted("a=1")
    worker = threading.Thread(target=lambda: SmallWorker(parts, maps_to(3)).work("w", r))
    worker.start()
    assert live._drawn(parts, "w", r, 30.0).state is RequestState.SUCCEEDED
    worker.join()
    drawn = capsys.readouterr().err
    assert "4 of 4 done" in drawn
    assert "succeeded in" in drawn


def test_the_head_of_a_running_request_says_for_how_long(workflow: str) -> None:
    r = submitted("a=1")
    assert " running for " in done("tree", r).stdout.splitlines()[0]


def test_a_picture_ends_when_its_time_is_over(workflow: str, parts: Parts) -> None:
    with pytest.raises(errors.ResultTimeout):
        live._drawn(parts, "w", submitted("a=1"), 0.0)


def test_ctrl_c_detaches_and_says_how_to_come_back(workflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mr.services.results.Results.wait", interrupted)
    result = mr("run", "w/j", "a=1")
    assert result.exit_code == exits.INTERRUPTED
    (request,) = document("request", "list")
    assert f"mr request wait {request['id']}" in result.stderr
    assert request["state"] == "running"


# Requests


@pytest.fixture
def succeeded(workflow: str, parts: Parts) -> str:
    r = submitted("a=1")
    SmallWorker(parts, maps_to(3)).work("w", r)
    return r


@pytest.fixture
def failed(workflow: str, parts: Parts) -> str:
    r = submitted("a=1")
    SmallWorker(parts, maps_to(3, fails="0.1")).work("w", r)
    return r


@pytest.mark.parametrize("verb", ["wait", "result"])
def test_the_result_goes_to_stdout_as_pairs(succeeded: str, verb: str) -> None:
    result = done("request", verb, succeeded[:8])
    assert json.loads(result.stdout) == {"pairs": [["key0", 0], ["key1", 1], ["key2", 2]]}


@pytest.mark.parametrize("verb", ["wait", "result"])
def test_a_failure_is_told_with_its_handler_place_and_traceback(failed: str, verb: str) -> None:
    result = mr("request", verb, failed)
    assert result.exit_code == exits.FAILED
    assert result.stdout == ""
    assert "ValueError: boom" in result.stderr
    assert "handler count version" in result.stderr
    assert "invocation 0.1," in result.stderr
    assert "Traceback" in result.stderr
    assert "mr request resume" in result.stderr


def test_a_result_that_a_writer_put_elsewhere_is_told_by_its_place(
    workflow: str, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MR_RESULT_WRITER", "file")
    monkeypatch.setenv("MR_RESULT_FILE_WRITER_OUTPUT_PATH", str(tmp_path / "out"))
    parts = Parts(Settings.from_env(os.environ))
    r = submitted("a=1")
    worker = SmallWorker(parts, maps_to(2))
    worker.work("w", r)
    assert document("request", "show", r)["state"] == "writing"
    assert mr("request", "cancel", r).exit_code == exits.REFUSED
    worker.write("w", r)
    parts.close()
    result = done("request", "result", r)
    assert result.stdout == "{}\n"
    assert str(tmp_path / "out" / r) in result.stderr
    assert str(tmp_path / "out" / r) in done("request", "show", r).stdout


def test_an_empty_result_is_an_empty_list(workflow: str, parts: Parts) -> None:
    r = submitted("a=1")
    SmallWorker(parts, maps_to(0)).work("w", r)
    assert done("request", "result", r).stdout == '{"pairs":[]}\n'


def test_the_result_of_a_running_request_is_not_waited_for(workflow: str) -> None:
    r = submitted("a=1")
    assert mr("request", "result", r).exit_code == exits.GAVE_UP
    assert mr("request", "wait", r, "--timeout", "0").exit_code == exits.GAVE_UP


def test_requests_are_listed_by_workflow_and_state(succeeded: str, failed: str) -> None:
    assert [one["id"] for one in document("request", "list")] == [succeeded, failed]
    assert [one["id"] for one in document("request", "list", "w", "--state", "failed")] == [failed]
    assert [one["id"] for one in document("request", "list", "--limit", "1")] == [failed]
    assert done("request", "list", "--plain").stdout.splitlines()[0].split("\t")[:3] == [succeeded, "w/j", "succeeded"]
    assert mr("request", "list", "nope").exit_code == exits.FAILED


def test_a_request_is_shown_with_its_error(failed: str) -> None:
    assert document("request", "show", f"w/{failed}")["failed_invocation_id"] == f"{failed}.0.1"
    result = done("request", "show", failed)
    assert "failed" in result.stdout
    assert "ValueError: boom" in result.stderr


def test_a_running_request_is_cancelled_once(workflow: str) -> None:
    r = submitted("a=1")
    assert document("request", "cancel", r)["state"] == "cancelled"
    assert mr("request", "cancel", r).exit_code == exits.REFUSED
    assert mr("request", "wait", r).exit_code == exits.FAILED


def test_a_failed_request_is_resumed(failed: str, parts: Parts) -> None:
    assert document("request", "resume", failed)["epoch"] == 2
    SmallWorker(parts, maps_to(3)).work("w", failed)
    assert json.loads(done("request", "result", failed).stdout)["pairs"][1] == ["key1", 1]
    assert mr("request", "resume", failed).exit_code == exits.FAILED


def test_a_request_that_is_over_is_removed_and_a_running_one_is_not(succeeded: str) -> None:
    running = submitted("a=1")
    done("request", "rm", succeeded, "--yes")
    assert mr("request", "show", succeeded).exit_code == exits.FAILED
    result = mr("request", "rm", running, "--yes")
    assert result.exit_code == exits.REFUSED
    assert f"mr request cancel w/{running}" in result.stderr


def test_what_runs_is_removed_by_force(succeeded: str) -> None:
    running = submitted("a=1")
    said = done("request", "rm", succeeded[:8], running, "--force", "--yes").stderr
    assert said.count("removed request") == 2
    assert document("request", "list") == []


def test_a_pinned_request_says_so_and_is_not_removed_by_chance(succeeded: str, parts: Parts) -> None:
    assert document("request", "pin", succeeded, "--note", "of May")["pin"]["note"] == "of May"
    assert document("request", "list")[0]["is_pinned"] is True
    assert "pinned" in done("request", "list").stdout
    shown = done("request", "show", succeeded).stdout
    assert "never: pinned" in shown
    assert "of May" in shown
    assert document("request", "show", succeeded)["pin"]["note"] == "of May"
    result = mr("request", "rm", succeeded, "--yes")
    assert result.exit_code == exits.REFUSED
    assert f"mr request unpin w/{succeeded}" in result.stderr
    assert "it is removed after" in done("request", "unpin", succeeded).stderr
    assert mr("request", "unpin", succeeded).exit_code == exits.REFUSED
    done("request", "rm", succeeded, "--yes")
    assert parts.store.count(keys.PINNED) == 0


def test_the_tree_is_drawn_or_a_document(succeeded: str) -> None:
    lines = done("tree", succeeded[:6]).stdout.splitlines()
    assert lines[0].startswith(f"w/j  {succeeded}  succeeded")
    assert lines[1].startswith("✔ 0  split")
    assert document("tree", succeeded)["root"]["children_done"] == 3
    assert mr("tree", "abc").exit_code == exits.FAILED


def test_the_tree_shows_each_child_if_asked(workflow: str, parts: Parts) -> None:
    r = submitted("a=1")
    SmallWorker(parts, maps_to(50, fails="0.40")).work("w", r)
    shown = done("tree", r, "--all").stdout
    assert all(f" 0.{number}  count" in shown for number in range(50))
    assert "0.0 …" not in done("tree", r).stdout


def test_an_invocation_is_shown_with_what_it_printed(succeeded: str, failed: str) -> None:
    assert "0.1\n" in done("invocation", "show", f"{succeeded[:8]}.0.1").stdout
    assert document("invocation", "show", f"w/{failed}.0.1")["invocation"]["error"] == "ValueError: boom"
    assert "Traceback" in done("invocation", "show", f"{failed}.0.1").stdout
    assert mr("invocation", "show", failed).exit_code == exits.FAILED
    assert mr("invocation", "show", f"{failed}.7").exit_code == exits.FAILED


def offer(
    parts: Parts, name: str, capabilities: list[str], *, host: str = "h", workflows: Sequence[str] = (),
    holds: Sequence[str] = (),
) -> None:  # fmt: skip
    """A worker that lives as long as the store."""
    record = WorkerRecord(
        host=host, pid=7, capabilities=capabilities, workflows=list(workflows), slots=2, version="0",
        started_at="2026-01-01T00:00:00Z", holds=list(holds),
    )  # fmt: skip
    parts.store.commit(Transaction(operations=[Put(keys.worker(name), encode(record))]))


def test_status_shows_workers_requests_and_queues(workflow: str, parts: Parts) -> None:
    submitted("a=1")
    found = document("status")
    assert found["workers"] == []
    assert found["running"] == {"w": 1}
    assert found["queues"]["mr.w.map.general"]["waiting"] == 1
    assert found["capabilities_missing"] == ["general"]
    offer(parts, "w9", ["general"])
    shown = done("status").stdout
    assert "w9" in shown
    assert "mr.w.map.general" in shown
    assert document("status")["capabilities_missing"] == []


def test_status_says_loudly_what_waits_for_nobody(workflow: str, parts: Parts) -> None:
    r = submitted("a=1")
    (one,) = document("status")["unserved"]
    assert (one["workflow"], one["capability"], one["messages"], one["nearest"]) == ("w", "general", 1, "")
    assert one["oldest_wait_s"] >= 0
    offer(parts, "near", ["genral"], host="h7")
    offer(parts, "far", ["gpu"])
    shown = done("status")
    assert "NONE" in shown.stdout
    assert "1 message of workflow w wait" in shown.stderr
    assert "nobody offers general; nearest: h7 (genral), lacks general" in shown.stderr
    assert "mr worker --capabilities general" in shown.stderr
    offer(parts, "elsewhere", ["general"], workflows=["other"])
    assert document("status")["unserved"] != []
    offer(parts, "here", ["GENERAL"], workflows=["w"], holds=[f"w/{r}/0.17", f"w/{r}/0.18"])
    assert document("status")["unserved"] == []
    assert f"w/{r[:12]} 0.17 and 1 more" in done("status").stdout


def test_status_shows_since_when_the_oldest_waits(workflow: str, parts: Parts) -> None:
    r = submitted("a=1")
    SmallWorker(parts, maps_to(3)).work("w", r, pieces=1, drain=True)
    queue = document("status")["queues"]["mr.w.map.general"]
    assert queue["waiting"] >= 1
    assert 0 <= queue["oldest_wait_s"] < 600
    assert document("status")["oldest_running_s"]["w"] >= queue["oldest_wait_s"]


def test_status_shows_messages_that_no_workflow_asks_for(workflow: str, parts: Parts) -> None:
    parts.publisher.publish([Publication("mr.w.map.gpu", b"x"), Publication("mr.old.map.general", b"x")])
    found = document("status")
    assert found["queues"]["mr.w.map.gpu"]["capability"] == "gpu"
    assert found["strays"]["mr.old.map.general"]["waiting"] == 1
    assert "mr.old.map.general (of no workflow)" in done("status").stdout


def test_status_goes_on_without_the_broker(
    workflow: str, parts: Parts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def away(*_: Any) -> None:
        raise errors.BrokerUnavailable("the broker is away")

    monkeypatch.setattr("mr.adapters.brokers.sqlite.SqlitePublisher.topics", away)
    assert document("status")["queues"] is None
    shown = done("status")
    assert "the broker is away" in shown.stderr
    assert "RUNNING REQUESTS" in shown.stdout


def test_settings_are_shown_with_their_origin(store: str) -> None:
    rows = {row["name"]: row for row in document("config", "show")}
    assert (rows["MR_STORE"]["value"], rows["MR_STORE"]["origin"]) == (store, "environment")
    assert rows["MR_BROKER"]["origin"] == "default"
    assert done("config", "show", "--plain").stdout.startswith("MR_STORE\t")


def test_a_reader_that_goes_away_is_no_accident(workflow: str) -> None:
    code = f"{sys.executable} -m mr.cli.main config show --json | head -c 1"
    shown = subprocess.run(code, shell=True, capture_output=True, text=True, check=True, env={**os.environ})
    assert shown.stdout == "["
    assert shown.stderr == ""


def test_a_noun_without_a_verb_explains_itself() -> None:
    nouns = [name for name, command in ALL.items() if isinstance(command, Noun) and command is not program]
    assert "mr handler" in nouns
    for name in nouns:
        assert "Commands:" in done(*name.split()[1:]).stdout
