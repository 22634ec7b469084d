"""`mr fs`: what it copies, prints, asks and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mr.cli import fs as fs_command
from mr.cli.exits import FAILED, REFUSED, UNREACHABLE, USAGE
from tests.unit.command_line import done, refused


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workflow `w`, whose files are in this folder."""
    monkeypatch.setenv("MR_STORE", f"sqlite:///{tmp_path}/mr.db")
    monkeypatch.setenv("MR_FS_URL", f"file://{tmp_path}/shared")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    done("workflow", "create", "w", "A workflow")
    return tmp_path / "shared" / "working" / "w"


def test_a_file_goes_there_and_comes_back(shared: Path) -> None:
    Path("a.txt").write_text("text")
    assert "w:a.txt: 1 file, 4 bytes" in done("fs", "put", "a.txt", "w").stderr
    assert (shared / "a.txt").read_text() == "text"
    done("fs", "mkdir", "w:in")
    done("fs", "put", "a.txt", "w:in/")
    done("fs", "put", "a.txt", "w/in/b.txt")
    assert sorted(path.name for path in (shared / "in").iterdir()) == ["a.txt", "b.txt"]
    done("fs", "get", "w:in/b.txt")
    done("fs", "get", "w:in/b.txt", "c.txt")
    assert Path("b.txt").read_text() == Path("c.txt").read_text() == "text"
    assert sorted(path.name for path in Path().iterdir()) == ["a.txt", "b.txt", "c.txt"]


def test_streams_come_from_stdin_and_go_to_stdout(shared: Path) -> None:
    done("fs", "put", "-", "w:a", stdin="streamed\n")
    result = done("fs", "get", "w:a", "-")
    assert (result.stdout, result.stderr) == ("streamed\n", "")


def test_directories_are_copied_with_all_that_is_in_them(shared: Path) -> None:
    Path("in/deep").mkdir(parents=True)
    Path("in/a").write_text("a")
    Path("in/deep/b").write_text("bb")
    assert "add -r" in refused(USAGE, "fs", "put", "in", "w:")
    found = json.loads(done("fs", "put", "-r", "in", "w:", "--json").stdout)
    assert [(one["path"], one["size_bytes"]) for one in found] == [("in/a", 1), ("in/deep/b", 2)]
    assert "add -r" in refused(USAGE, "fs", "get", "w:in", "out")
    done("fs", "get", "-r", "w:in", "out")
    assert Path("out/deep/b").read_text() == "bb"
    done("fs", "get", "-r", "w", "all")
    assert Path("all/in/a").read_text() == "a"


def test_a_listing_is_for_people_or_machines(shared: Path) -> None:
    done("fs", "mkdir", "-p", "w:x/y")
    done("fs", "put", "-", "w:x/z", stdin="zzz")
    lines = done("fs", "ls", "w:x").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["TYPE", "directory", "file"]
    assert done("fs", "ls", "w:x", "--plain").stdout.splitlines()[1].split("\t")[:2] == ["file", "3"]
    folder, file = json.loads(done("fs", "ls", "w:x", "--json").stdout)
    assert (folder["name"], folder["type"]) == ("y", "directory")
    assert (file["name"], file["size_bytes"], file["created_at"][:2]) == ("z", 3, "20")
    assert [one["name"] for one in json.loads(done("fs", "ls", "w:x/z", "--json").stdout)] == ["z"]
    assert json.loads(done("fs", "ls", "w:x/y", "--json").stdout) == []


def test_things_are_moved_and_removed(shared: Path) -> None:
    done("fs", "put", "-", "w:a", stdin="a")
    done("fs", "mkdir", "w:in")
    done("fs", "mv", "w:a", "w:in")
    done("fs", "mv", "w:in/a", "w:in/b")
    assert (shared / "in" / "b").exists()
    assert "Is a directory: in" in refused(FAILED, "fs", "rm", "w:in")
    assert "needs --yes" in refused(USAGE, "fs", "rm", "-r", "w:in")
    done("fs", "rm", "w:in/b")
    done("fs", "rm", "-r", "w:in", "--yes")
    assert list(shared.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "words", "said"),
    [
        (FAILED, ["get", "w:none"], "No such file or directory: none"),
        (FAILED, ["ls", "w:none"], "see: mr fs ls w"),
        (FAILED, ["put", "none", "w:"], "there is no file none"),
        (FAILED, ["rm", "w:none"], "No such file"),
        (FAILED, ["ls", "nobody:"], "nobody"),
        (USAGE, ["ls", "w:../x"], "Path must be relative and not higher than the current directory"),
        (USAGE, ["ls", "w:/etc"], "Path must be relative"),
        (USAGE, ["mv", "w:a", "v:a"], "use get and put"),
        (USAGE, ["ls"], "Missing argument 'WORKFLOW[:PATH]'"),
    ],
)
def test_what_cannot_be_is_one_line_with_the_next_step(code: int, words: list[str], said: str) -> None:
    assert said in refused(code, "fs", *words)


def test_what_is_in_the_way_is_an_exit_code_of_its_own(shared: Path) -> None:
    done("fs", "mkdir", "w:a")
    assert "File exists: a" in refused(REFUSED, "fs", "mkdir", "w:a")


def test_a_directory_that_is_missing_is_made_by_the_next_step() -> None:
    Path("a").write_text("a")
    assert "mr fs mkdir -p w:new/" in refused(FAILED, "fs", "put", "a", "w:new/")


def test_a_workflow_that_is_misspelt_gets_no_directory(shared: Path) -> None:
    refused(FAILED, "fs", "mkdir", "v:a")
    assert not shared.parent.exists()


def test_without_a_file_system_the_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MR_FS_URL")
    assert "MR_FS_URL: expected a URL" in refused(USAGE, "fs", "ls", "w")


def test_a_directory_that_cannot_be_is_told_with_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MR_FS_URL", "file:///proc/none")
    assert "MR_FS_URL names the directory of all workflows" in refused(FAILED, "fs", "ls", "w")


def test_a_server_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MR_FS_URL", "tahoe+http://127.0.0.1:9/URI:DIR2:hidden:hidden")
    said = refused(UNREACHABLE, "fs", "ls", "w")
    assert "does not answer" in said
    assert "hidden" not in said


def test_how_far_a_big_file_is_is_told_at_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fs_command, "TELL_EVERY_S", 0.0)
    monkeypatch.setattr(fs_command, "BIG_BYTES", 1)
    Path("a").write_text("text")
    assert "100%" not in done("fs", "put", "a", "w:").stderr
    monkeypatch.setattr(fs_command, "is_watched", lambda: True)
    assert "a: 0 of 0 MB, 100%" in done("fs", "put", "a", "w:").stderr


def test_a_download_that_breaks_leaves_nothing_of_that_name(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done("fs", "put", "-", "w:a", stdin="a")

    def breaks(*_all: object) -> int:
        raise OSError("broken")

    monkeypatch.setattr("mr.services.transfers.carry", breaks)
    refused(UNREACHABLE, "fs", "get", "w:a")
    assert list(Path().iterdir()) == []
