"""What commands write drives no terminal, and what cannot be written is told in a line."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mr.cli import exits, output
from mr.cli.exits import conclude
from mr.errors import StoreUnavailable

HOSTILE = "a\x1b]0;owned\x07\x1b[31mb\x9b5m\u202ec\u2066d\r\x00\x7f"
SHOWN = r"a\x1b]0;owned\x07\x1b[31mb\x9b5m\u202ec\u2066d\r\x00\x7f"
COLOUR = re.compile("\x1b\\[[0-9;]+m")


def driving(text: str) -> list[str]:
    """What of a text would drive a terminal."""
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def at_terminal(*call: str, **environ: str) -> str:
    """What a piece of Python writes to a terminal, stdout and stderr."""
    ours, theirs = pty.openpty()
    root = str(Path(output.__file__).parents[2])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MR_") and name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-c", "\n".join(call)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**kept, "PYTHONPATH": root, "TERM": "xterm", **environ},
    )
    os.close(theirs)
    data = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux says so at the end
            break
        if not piece:
            break
        data += piece
    os.close(ours)
    process.wait(30)
    return data.decode().replace("\r\n", "\n")


def test_controls_are_shown_as_escapes_and_tabs_and_line_ends_stay(capsys: pytest.CaptureFixture[str]) -> None:
    output.echo(HOSTILE + "\t|\nnext ä 語 ✔")
    assert capsys.readouterr().out == SHOWN + "\t|\nnext ä 語 ✔\n"


def test_a_lone_surrogate_is_shown_and_does_not_crash(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("name \udcff")
    assert capsys.readouterr().err == "name \\udcff\n"


def test_at_a_terminal_only_our_own_colours_are_colours() -> None:
    said = at_terminal(
        "from mr.cli.output import *",
        f"echo(style({HOSTILE!r}, fg='green') + {HOSTILE!r})",
        f"table(['name'], [[{HOSTILE!r}]]); fields([('n', {HOSTILE!r})]); did({HOSTILE!r}); next_step({HOSTILE!r})",
    )
    assert "\x1b[32ma\\x1b]0;owned" in said
    assert said.count(r"\x1b]0;owned\x07") == 6
    assert not [one for one in driving(COLOUR.sub("", said)) if one != "\n"]
    assert set(COLOUR.findall(said)) == {"\x1b[32m", "\x1b[1m", "\x1b[2m", "\x1b[0m"}


def test_no_colour_means_none_in_errors_either() -> None:
    call = ("from mr.cli.exits import complain", "complain('x')")
    assert "\x1b[31m" in at_terminal(*call)
    assert at_terminal(*call, NO_COLOR="1") == "mr: x\n"


def test_json_is_the_same_document_without_controls(capsys: pytest.CaptureFixture[str]) -> None:
    output.document([HOSTILE])
    output.json_lines([{"a": HOSTILE}, 1])
    said = capsys.readouterr().out
    assert not driving(said)
    first, _, rest = said.partition("]\n")
    assert json.loads(first + "]") == [HOSTILE]
    assert [json.loads(line) for line in rest.splitlines()] == [{"a": HOSTILE}, 1]


def test_columns_stay_aligned_where_something_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(["a", "b"], [["\x1b", "1"], ["x", "2"]])
    assert capsys.readouterr().out == "A     B\n\\x1b  1\nx     2\n"


def test_a_long_cell_does_not_move_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * (output.CELL_MAX + 1)
    output.table(["name", "b"], [["short", "1"], [long, "2"]])
    assert capsys.readouterr().out == f"NAME   B\nshort  1\n{long}  2\n"


def ended(call: Callable[[], Any]) -> object:
    with pytest.raises(SystemExit) as ended:
        conclude(call)
    return ended.value.code


def test_a_mistake_of_ours_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEBUG", raising=False)
    assert ended(lambda: os.environ["MR_NOTHING"]) == exits.FAILED
    assert capsys.readouterr().err.splitlines() == [
        "mr: this should not happen: KeyError: 'MR_NOTHING'",
        "  its traceback: the same with DEBUG=1",
    ]
    monkeypatch.setenv("DEBUG", "1")
    with pytest.raises(KeyError):
        conclude(lambda: os.environ["MR_NOTHING"])


def test_a_store_that_says_no_next_step_gets_one(capsys: pytest.CaptureFixture[str]) -> None:
    def call() -> None:
        raise StoreUnavailable("it is away")

    assert ended(call) == exits.UNREACHABLE
    assert "mr doctor" in capsys.readouterr().err


def run(command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A shell line, with `mr` as a command."""
    root = str(Path(output.__file__).parents[2])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MR_")}
    line = f'mr() {{ {sys.executable} -m mr.cli.main "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", line], env={**kept, "PYTHONPATH": root, **environ}, capture_output=True, text=True, timeout=60
    )


def test_a_full_disk_behind_stdout_is_one_line() -> None:
    ended = run("mr config show > /dev/full")
    assert ended.returncode == exits.FAILED
    assert ended.stderr.splitlines()[0] == "mr: the output cannot be written or read: No space left on device"
    assert "Traceback" not in ended.stderr


def test_a_closed_stdout_is_no_error() -> None:
    ended = run("mr config show >&-")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_terminal_without_our_characters_gets_escapes() -> None:
    ended = run("mr tree --help", PYTHONIOENCODING="latin-1")
    assert ended.returncode == 0
    assert "\\u2714 done" in ended.stdout


@pytest.mark.parametrize("is_ignored", [False, True])
def test_ctrl_c_while_the_commands_are_imported_is_quiet(tmp_path: Path, is_ignored: bool) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('went on')\n")
    before = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);" if is_ignored else ""
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {before} from mr.cli.start import main; main()"
    root = str(Path(output.__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=60
    )
    assert ("went on" in ended.stdout) is is_ignored
    assert ("KeyboardInterrupt" in ended.stderr) is False
    if not is_ignored:
        assert (ended.returncode, ended.stderr) == (-signal.SIGINT, "")
