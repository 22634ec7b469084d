"""The commands that trace: what they print, where they write, and that each reads out JSON."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mr.cli import exits
from mr.wiring import Parts
from tests.servers import program as installed
from tests.unit.command_line import done, mr
from tests.unit.small_worker import SmallWorker
from tests.unit.test_dump import kept_by_root
from tests.unit.test_tracing import defined, maps_to, submitted


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    """A store that the commands find; the current directory is empty."""
    monkeypatch.setenv("MR_STORE", f"sqlite:///{tmp_path}/mr.db")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    built = defined(tmp_path)
    yield built
    built.close()


@pytest.fixture
def r(parts: Parts) -> str:
    """A request that failed."""
    r = submitted(parts)
    SmallWorker(parts, kept_by_root(maps_to(20, fails="0.7"))).work("w", r)
    return r


def test_a_graph_is_dot_on_stdout_by_default(r: str) -> None:
    shown = done("graph", r)
    assert shown.stdout.startswith(f"// Request {r}\ndigraph {{")
    assert "mr graph" not in shown.stdout
    assert "drawn as one" in shown.stderr
    assert done("graph", r, "--all").stdout.count('label="mapped to"') == 20


@pytest.mark.parametrize(("end", "begin"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_a_picture_gets_a_file(r: str, end: str, begin: bytes) -> None:
    installed("dot")
    assert f"wrote request-{r}.{end}" in done("graph", r, "--format", end).stderr
    assert Path(f"request-{r}.{end}").read_bytes().startswith(begin)
    done("graph", r[:8], "--output", f"mine.{end}")
    assert Path(f"mine.{end}").read_bytes().startswith(begin)
    assert done("graph", r, "--format", end, "--output", "-").stdout_bytes.startswith(begin)


def test_a_file_whose_name_says_nothing_needs_a_format(r: str) -> None:
    result = mr("graph", r, "--output", "mine.jpg")
    assert result.exit_code == exits.USAGE
    assert "--format" in result.stderr
    assert not Path("mine.jpg").exists()
    done("graph", r, "--output", "mine.txt", "--format", "dot")
    assert Path("mine.txt").read_text().startswith("// Request")


def test_without_graphviz_the_command_says_what_to_install(r: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = mr("graph", r, "--format", "png")
    assert result.exit_code == exits.UNREACHABLE
    assert "apt-get install graphviz" in result.stderr
    done("graph", r)


@pytest.mark.parametrize(
    "words", [["graph"], ["timeline"], ["why"], ["tree"], ["request", "sessions"], ["request", "show"]]
)
def test_all_of_them_speak_json(r: str, words: list[str]) -> None:
    assert json.loads(done(*words, r, "--json").stdout)


def test_a_dump_speaks_json_line_by_line(r: str) -> None:
    first, *visits = [json.loads(line) for line in done("request", "dump", r, "--json").stdout.splitlines()]
    assert (first["id"], first["state"]) == (r, "failed")
    found = {visit["path"]: visit for visit in visits}
    assert found["0.7"]["error"]["message"] == "boom"
    assert found["0.3"]["arguments"]["pairs"] == [["key3", 3]]


def test_a_dump_shows_where_data_was_cut(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(30)).work("w", r)
    assert "… and more (--all)" in done("request", "dump", r).stdout
    assert "… and more" not in done("request", "dump", r, "--all").stdout


def test_sessions_are_shown_and_their_absence_is_said(parts: Parts, r: str) -> None:
    assert done("request", "sessions", r).stdout == 'Invocation: 0\n[seed]: [{"n":7}]\n\n'
    shown = done("request", "sessions", submitted(parts))
    assert shown.stdout == ""
    assert "no mapper" in shown.stderr


def test_a_tree_is_followed_to_the_end(parts: Parts) -> None:
    r = submitted(parts)
    worker = threading.Thread(target=lambda: SmallWorker(parts, maps_to(3)).work("w", r))
    worker.start()
    shown = done("tree", r, "--follow")
    worker.join()
    assert "succeeded" in shown.stdout.splitlines()[0]
    assert "3 of 3 children done" in shown.stdout
    assert "running for" in shown.stderr or "succeeded" in shown.stderr


def test_a_tree_folds_what_is_alike(parts: Parts) -> None:
    r = submitted(parts)

    def decide(path: str, pairs: list[Any]) -> Any:
        return maps_to(10_000, fails="0.9998")(path, pairs)

    SmallWorker(parts, decide).work("w", r)
    shown = done("tree", r).stdout
    assert "× 9,984 done" in shown
    assert "0.9998" in shown
    assert len(shown.splitlines()) < 10
