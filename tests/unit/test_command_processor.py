"""Handlers in other languages as they are pushed: headers, syntax, and the file that describes languages."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import msgspec
import pytest

from mr.adapters import language_file
from mr.adapters.processors.command import CommandProcessor
from mr.errors import ConfigError, InvalidHandler
from mr.model.language import Language, filled, interpreter_of
from mr.ports.processor import named_language
from tests.servers import program

SHIPPED = language_file.languages()
SCRIPT = CommandProcessor(Language(name="script", command=("script",), extensions=("x",), comment="//"))
HEADER = '// /// mr\n// handler_type = "mapper"\n// required_capability = "None"\n// ///\n'

HASHED = '# /// mr\n# handler_type = "mapper"\n# required_capability = "none"\n# ///\n'


def test_a_header_stands_among_the_first_comments() -> None:
    text = f"#!/usr/bin/script\n// What it does.\n//\n{HEADER}//  More\n\n//of it.\n\ncode // no\n"
    handler = SCRIPT.check("a/b.x", text)
    assert handler.description == "What it does.\n\n More\n\nof it."
    assert (handler.source_type, handler.handler_type, handler.form) == ("script", "mapper", "module")
    assert handler.required_capability == "none"
    assert handler.argument_spec == [("arguments", None)]
    assert handler.source_code == text
    assert SCRIPT.check("other", text.replace("\n", "\r\n")).version == handler.version


def test_the_options_of_a_header_are_kept() -> None:
    more = '// timeout_s = 2.5\n// memory_mb = 100\n// attempts = 3\n// source_type = "script"\n'
    more += '// argument_spec = [{name = "arguments", type = "list"}]\n// ///\n'
    handler = SCRIPT.check("b.x", HEADER.replace("// ///\n", more))
    assert (handler.timeout_s, handler.memory_mb, handler.attempts) == (2.5, 100, 3)
    assert handler.argument_spec == [("arguments", "list")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("code\n", r"^b\.x:1: has no header: no line '// /// mr' among its leading comments"),
        ("code\n" + HEADER, r"^b\.x:1: has no header"),
        (HEADER.replace("// ///\n", "// "), r"^b\.x:1: the '// /// mr' block is not closed"),
        (HEADER.replace('"mapper"', "mapper"), r"^b\.x:2: no TOML"),
        (HEADER.replace('"mapper"', '"wrapper"'), r"^b\.x:1: handler_type is 'wrapper'"),
        ("//\n" + HEADER.replace("handler_type", "kind"), r"^b\.x:2: the header has the fields \[kind, required_cap"),
        (HEADER + HEADER, r"^b\.x:5: a second '// /// mr' block; the first is in line 1"),
        (HEADER.replace("// ///\n", "// timeout_s = -1\n// ///\n"), r"^b\.x:1: expected timeout_s to be a positive"),
        (HEADER.replace("// ///\n", '// source_type = "perl"\n// ///\n'), r"^b\.x:1: source_type is 'perl' in a file"),
        (HEADER.replace("None", "a b"), r"^b\.x:1: "),
        (HEADER + "\0\n", r"^b\.x:5: holds the control character"),
        (HEADER.replace("// ///\n", "// argument_spec = []\n// ///\n"), "invalid defined arguments"),
    ],
)
def test_a_header_that_is_wrong_is_refused_with_file_and_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidHandler, match=problem):
        SCRIPT.check("b.x", text)


def test_fields_given_apart_need_no_header() -> None:
    handler = SCRIPT.check("b.x", HEADER)
    bare = msgspec.structs.replace(handler, source_code="code\r\n", form="body")
    assert SCRIPT.verify("given", bare) == msgspec.structs.replace(handler, source_code="code\n")


def test_the_header_names_the_language_if_it_likes() -> None:
    assert named_language(HEADER) is None
    assert named_language(HEADER.replace("// ///\n", '// source_type = "perl"\n// ///\n')) == "perl"
    assert named_language('x\n# /// mr\n# a = 1\n# source_type="so-me"\n# ///\n') == "so-me"
    assert named_language(HEADER + '// source_type = "perl"\n') is None


def test_a_streaming_handler_names_its_program() -> None:
    processor = CommandProcessor(SHIPPED["streaming"])
    header = HASHED
    assert processor.check("m.py", "#!/usr/bin/env -S awk -f\n" + header).source_type == "streaming"
    with pytest.raises(InvalidHandler, match=r"^m\.py:1: does not begin with '#!'"):
        processor.check("m.py", header)
    assert interpreter_of("#! /usr/bin/env  -S awk -f \nx") == ("/usr/bin/env", "-S awk -f")
    assert SHIPPED["streaming"].argv("/h", interpreter=("/bin/a", "b c")) == ["/bin/a", "b c", "/h"]


@pytest.mark.parametrize(
    ("language", "interpreter", "text", "problem"),
    [
        ("javascript", "node", HEADER + "export function* handle( {\n}\n", r"^b\.js:\d: SyntaxError: "),
        ("javascript", "node", HEADER + "import { x } from './nowhere.js';\nyield 1;\n", r"^b\.js:6: SyntaxError: "),
        ("shell", "bash", HASHED + "if\nfi\n", r"^b\.sh:6: syntax error"),
    ],
)
def test_mistakes_of_syntax_are_found_where_the_program_is_there(
    language: str, interpreter: str, text: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(interpreter)
    processor = CommandProcessor(SHIPPED[language])
    name = f"b.{processor.extensions[0]}"
    with pytest.raises(InvalidHandler, match=problem):
        processor.check(name, text)
    monkeypatch.setenv("PATH", "/nowhere")
    assert processor.check(name, text).source_code == text


def test_nothing_is_executed_to_find_out(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    sources = {
        "javascript": HEADER + f"import {{ writeFileSync }} from 'node:fs';\nwriteFileSync('{mark}', 'x');\n",
        "perl": HASHED + f"BEGIN {{ system 'touch {mark}' }}\n",
        "shell": HASHED + f"touch {mark}\n: $(touch {mark})\n",
    }
    for language, text in sources.items():
        CommandProcessor(SHIPPED[language]).check("b", text)
    assert not mark.exists()


# The file that describes languages.


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "processors.toml"
    path.write_text(text)
    return str(path)


def test_a_file_adds_languages_and_replaces_shipped_ones(tmp_path: Path) -> None:
    text = '[tcl]\nextensions = ["tcl", "sh"]\ncommand = ["tclsh", "{here}/run.tcl"]\n[perl]\ncommand = ["perl5"]\n'
    found = language_file.languages(write(tmp_path, text))
    assert set(found) == {*SHIPPED, "tcl"}
    assert found["tcl"].argv("/the/handler") == ["tclsh", f"{tmp_path}/run.tcl", "/the/handler"]
    assert found["tcl"].extensions == ("tcl", "sh")
    assert found["shell"].extensions == ("bash",)
    assert found["perl"].command == ("perl5",)
    assert filled(("a", "{handler}:{memory_mb}"), "/h", memory_mb=5) == ["a", "/h:5"]


def test_the_examples_of_the_page_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "languages.rst").read_text()
    blocks = [dedent(block) for block in re.findall(r"code-block:: toml\n\n((?:    .*\n|\n)+)", page)]
    assert len(blocks) == 2
    for block in blocks:
        assert set(language_file.languages(write(tmp_path, block))) > set(SHIPPED)


def test_mistakes_of_the_file_are_told_together(tmp_path: Path) -> None:
    text = (
        'top = 1\n[a]\ncommand = []\n[b]\ncomand = ["x"]\n[C]\ncommand = ["x"]\n[python]\ncommand = ["x"]\n'
        '[d]\ncommand = ["{handle}"]\nextensions = ["py", "X"]\ncomment = ""\n[e]\ncommand = ["x"]\nspeaks = "french"\n'
    )
    with pytest.raises(ConfigError) as caught:
        language_file.languages(write(tmp_path, text))
    told = "\n".join(caught.value.problems)
    assert all(line.startswith("MR_PROCESSORS: ") for line in caught.value.problems)
    for part in ("[top]", "[a]: command is empty", "[b]: ", "[C]: expected a name", "[python]: expected a name",
                 "{handle} is no placeholder", "'py'", "'X'", "got: ''", "[e]: "):  # fmt: skip
        assert part in told


@pytest.mark.parametrize(("text", "problem"), [("[a", "no TOML"), (None, "a file that can be read")])
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path, text: str | None, problem: str) -> None:
    path = write(tmp_path, text) if text is not None else str(tmp_path / "missing")
    with pytest.raises(ConfigError, match=problem):
        language_file.languages(path)
