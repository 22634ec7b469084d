"""The writer `file`: what its lines and folders look like, and what nobody must ever see."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mr.adapters.writers.file import NAME_MAX, FileWriter, file_name, line
from mr.codec import Items, encode
from mr.errors import ConfigError, ValueRefused
from mr.ports.result_writer import Origin

R = "0123456789" * 4


def origin(r: str = R) -> Origin:
    return Origin(workflow="w", job="j", request_id=r)


def pieces(*pairs: list[Any], size: int = 2) -> Iterator[Items]:
    """The pairs as a store gives them, some at a time."""
    for start in range(0, len(pairs), size):
        yield Items.of([encode(pair) for pair in pairs[start : start + size]])


def left_over(folder: Path) -> list[str]:
    return [path.name for path in (folder / ".partial").iterdir()]


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (["the", 5], "the 5"),
        (["ünï", "text"], "ünï text"),
        (["a b", "x y"], r'"a\u0020b" "x y"'),
        (['say "no"', "it's"], r'''"say\u0020\"no\"" "it's"'''),
        (["back\\slash", "line\nline"], r'"back\\slash" "line\nline"'),
        (["", None], '"" null'),
        (["\u2028", "\x7f"], r'"\u2028" "\u007f"'),
        ([["l", "a b", 1], {"k": [1, 2.5, True]}], r'["l","a\u0020b",1] {"k":[1,2.5,true]}'),
        ([10**30, -0.5], f"{10**30} -0.5"),
        (["../../x", "/etc"], "../../x /etc"),
    ],
)
def test_JX_80_a_line_is_key_space_value_whatever_they_are(pair: list[Any], expected: str) -> None:
    assert line(encode(pair)) == expected.encode() + b"\n"


@pytest.mark.parametrize("text", ["a b", "", "tab\there", "quote\"'", "\\", "\n\n", "é\u00a0é", "\u2028"])
def test_JX_80_no_text_is_lost_where_it_cannot_stand_as_it_is(text: str) -> None:
    written = line(encode([text, text])).decode()
    assert written.count("\n") == 1
    key, value = written[:-1].split(" ", 1)
    assert json.loads(key) == json.loads(value) == text


def test_JX_80_a_file_is_named_by_the_request_in_a_folder_that_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    told = FileWriter(str(folder)).write(origin(), pieces(["a", 1], ["b", 2], ["a", 3]))
    assert told == {"path": str(folder / R)}
    assert (folder / R).read_bytes() == b"a 1\nb 2\na 3\n"
    assert left_over(folder) == []


def test_an_empty_result_is_an_empty_file_or_folder(tmp_path: Path) -> None:
    FileWriter(str(tmp_path)).write(origin(), pieces())
    assert (tmp_path / R).read_bytes() == b""
    FileWriter(str(tmp_path), as_folders=True).write(origin(), pieces())
    assert list((tmp_path / R).iterdir()) == []


def test_JX_81_a_folder_has_a_file_for_each_key_with_the_value_as_text(tmp_path: Path) -> None:
    FileWriter(str(tmp_path), as_folders=True).write(
        origin(), pieces(["a", 1], ["b", "text\nmore"], ["c", [1, 2]], [7, None], ["d e", True])
    )
    found = {path.name: path.read_text() for path in (tmp_path / R).iterdir()}
    assert found == {"a": "1", "b": "text\nmore", "c": "[1, 2]", "7": "None", "d%20e": "True"}


NASTY = [
    "../x", "..", ".", "/etc/passwd", "a/b", "a\\b", "\x00", "a\nb", "", "~", "a~2", ".hidden", "-rf", "%2F",
    "ä" * 300, "x" * 255, "x" * 256, "con", "\u202e", "*?[]", "a b",
]  # fmt: skip


def test_JX_81_no_key_leaves_the_folder_and_none_overwrites_another(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    before = set(tmp_path.iterdir())
    keys = [*NASTY, *NASTY, "a", "a", "a", ["a"], {"a": 1}, 1, "1"]
    FileWriter(str(folder), as_folders=True).write(origin(), pieces(*([key, n] for n, key in enumerate(keys))))
    assert set(tmp_path.iterdir()) - before == {folder}
    assert {path.name for path in folder.iterdir()} == {R, ".partial"}
    found = [path for path in (folder / R).iterdir() if path.is_file()]
    assert sorted(int(path.read_text()) for path in found) == list(range(len(keys)))
    assert {"a", "a~2", "a~3", "%2E.%2Fx", "a%2Fb", "a%2Fb~2"} <= {path.name for path in found}


def test_names_of_different_keys_differ_and_fit_any_file_system() -> None:
    keys = [*NASTY, *("y" * length for length in range(NAME_MAX - 2, NAME_MAX + 3)), "y" * 300 + "z"]
    made = [file_name(key) for key in keys]
    assert len(set(made)) == len(keys)
    for name in made:
        assert len(name.encode()) < 250
        assert name.isascii()
        assert "/" not in name
        assert not name.startswith(".")


@pytest.mark.parametrize("r", ["../" + R, R[:-1], R.upper().replace("0", "A"), "", ".partial", f"{R}/x"])
def test_only_the_id_of_a_request_becomes_a_name(tmp_path: Path, r: str) -> None:
    writer = FileWriter(str(tmp_path))
    with pytest.raises(ValueRefused, match="id of a request"):
        writer.write(origin(r), pieces(["a", 1]))
    assert {path.name for path in tmp_path.iterdir()} == {".partial"}


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_JX_85_a_repeat_overwrites_itself_whatever_was_there(tmp_path: Path, first: bool, second: bool) -> None:
    FileWriter(str(tmp_path), as_folders=first).write(origin(), pieces(["old", 1], ["older", 1]))
    writer = FileWriter(str(tmp_path), as_folders=second)
    for _ in range(2):
        writer.write(origin(), pieces(["a", 1]))
        if second:
            assert {path.name for path in (tmp_path / R).iterdir()} == {"a"}
        else:
            assert (tmp_path / R).read_text() == "a 1\n"
    assert left_over(tmp_path) == []


def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "out"
    writer = FileWriter(str(folder))
    (folder / R).symlink_to(victim)
    writer.write(origin(), pieces(["a", 1]))
    assert victim.read_text() == "precious"
    assert not (folder / R).is_symlink()


@pytest.mark.parametrize("as_folders", [False, True])
def test_JX_85_what_breaks_off_is_never_seen_and_leaves_nothing(tmp_path: Path, as_folders: bool) -> None:
    def breaks() -> Iterator[Items]:
        yield from pieces(["a", 1], ["b", 2])
        assert left_over(tmp_path)
        assert not (tmp_path / R).exists()
        raise OSError("gone")

    writer = FileWriter(str(tmp_path), as_folders=as_folders)
    with pytest.raises(OSError, match="gone"):
        writer.write(origin(), breaks())
    assert not (tmp_path / R).exists()
    assert left_over(tmp_path) == []


def _dies(folder: str, as_folders: bool) -> None:
    def breaks() -> Iterator[Items]:
        yield from pieces(["a", 1], ["b", 2])
        os.kill(os.getpid(), signal.SIGKILL)

    FileWriter(folder, as_folders=as_folders).write(origin(), breaks())


@pytest.mark.parametrize("as_folders", [False, True])
def test_JX_85_what_a_killed_writer_leaves_is_removed_by_the_next(tmp_path: Path, as_folders: bool) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_dies, args=(str(tmp_path), as_folders))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / R).exists()
    assert left_over(tmp_path)
    FileWriter(str(tmp_path))
    assert left_over(tmp_path) == []


def test_what_another_writes_at_the_moment_is_left_alone(tmp_path: Path) -> None:
    def meanwhile() -> Iterator[Items]:
        yield from pieces(["a", 1])
        FileWriter(str(tmp_path)).write(origin("f" * 40), pieces(["b", 2]))
        yield from pieces(["c", 3])

    FileWriter(str(tmp_path)).write(origin(), meanwhile())
    assert (tmp_path / R).read_text() == "a 1\nc 3\n"
    assert (tmp_path / ("f" * 40)).read_text() == "b 2\n"


def test_a_lock_that_is_taken_before_its_owner_has_it_costs_only_another_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A neighbour clears the new room away in the moment between its making and its locking."""
    real, calls = fcntl.flock, []

    def flock(file: Any, how: int) -> None:
        calls.append(file.name)
        if len(calls) == 1:
            os.unlink(file.name)
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    FileWriter(str(tmp_path)).write(origin(), pieces(["a", 1]))
    assert (tmp_path / R).read_text() == "a 1\n"
    assert left_over(tmp_path) == []


def test_a_folder_that_cannot_be_is_refused_with_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"MR_RESULT_FILE_WRITER_OUTPUT_PATH: expected .*file/out"):
        FileWriter(str(tmp_path / "file" / "out"))
