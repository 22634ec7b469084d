"""Handler files: what is accepted, and what each mistake is called and on which line."""

from __future__ import annotations

import builtins
import subprocess
import sys
import threading
import traceback
from typing import Any

import pytest

from mr.adapters.processors import python_body
from mr.adapters.processors.python import PythonProcessor
from mr.errors import InvalidHandler
from mr.model.handler import ARGUMENT_TYPES, Handler
from mr.ports.processor import SOURCE_BYTES_MAX

HEADER = """argument_spec:
  - {name: arguments, type: list}
handler_type: mapper
required_capability: none
"""
CODE = 'yield MrConfigureToReturn()\nyield "a", 1\n'


def body(header: str = HEADER, code: str = CODE, mark: str = "**", description: str = "Split it.") -> str:
    return f'"""{description}\n{mark}\n{header}"""\n{code}'


def module(block: str = 'handler_type = "mapper"\nrequired_capability = "none"', code: str = "") -> str:
    comments = "\n".join(f"# {line}".rstrip() for line in block.split("\n"))
    return f'"""Count it."""\n# /// mr\n{comments}\n# ///\n\n' + (
        code or "def handle(arguments, ctx):\n    yield 1, 2\n"
    )


def check(source: str) -> Handler:
    return PythonProcessor().check("split.py", source)


def refusal(source: str) -> str:
    with pytest.raises(InvalidHandler) as caught:
        check(source)
    text = str(caught.value)
    assert text.startswith("split.py:")
    assert len(text) < 1000
    return text


def run(source: str, parameter: str, value: Any, **scope: Any) -> list[Any]:
    names: dict[str, Any] = dict(scope)
    exec(python_body.body_as_function(source, "split", parameter), names)
    return list(names["handle"](value))


# The bare body


def test_JX_11_a_bare_body_with_top_level_yield_and_return_is_accepted() -> None:
    handler = check(body(code="yield MrConfigureToReturn()\nif not arguments:\n    return\nyield 1, 2\n"))
    assert handler.description == "Split it."
    assert handler.argument_spec == [("arguments", "list")]
    assert (handler.handler_type, handler.required_capability, handler.form) == ("mapper", "none", "body")
    assert handler.capability == "general"
    assert handler.source_type == "python"


def test_JX_11_nothing_is_executed_to_check() -> None:
    code = "import this_module_does_not_exist\nraise SystemExit(3)\nyield 1\n"
    assert check(body(code=code)).form == "body"
    assert (
        check(module(code=code.replace("yield 1", "") + "def handle(arguments, ctx):\n    yield 1\n")).form == "module"
    )


def test_JX_11_a_syntax_error_names_file_line_and_problem() -> None:
    assert refusal(body(code="x = 1\nyield (\n")) == "split.py:9: '(' was never closed"


@pytest.mark.parametrize("mark", ["**", "**yaml", "** yaml", "**YAML ", "**\r"])
def test_JX_12_yaml_is_read_after_the_mark(mark: str) -> None:
    assert check(body(mark=mark)).handler_type == "mapper"


@pytest.mark.parametrize("mark", ["**json", "**JSON", "** Json"])
def test_JX_12_json_is_read_after_the_mark(mark: str) -> None:
    header = (
        '{"argument_spec": [{"name": "arguments", "type": null}],'
        ' "handler_type": "mapper", "required_capability": "gpu"}'
    )
    handler = check(body(header=header, mark=mark))
    assert handler.argument_spec == [("arguments", None)]
    assert handler.capability == "gpu"


def test_JX_12_another_parser_is_refused_by_name() -> None:
    assert "split.py:2: Parser for description is invalid: [xml]" in refusal(body(mark="**xml"))


def test_JX_12_carriage_returns_change_nothing_not_even_the_version() -> None:
    plain = check(body())
    assert check(body().replace("\n", "\r\n")) == plain
    assert check("\ufeff" + body()) == plain


def test_JX_12_the_description_is_the_text_before_the_mark_stripped() -> None:
    assert check(body(description="\n  One.\n\n  Two.\n")).description == "One.\n\n  Two."


def test_JX_13_a_doc_string_without_a_mark_is_refused() -> None:
    assert "split.py:1: No description could be isolated." in refusal(f'"""Just text."""\n{CODE}')


def test_JX_13_a_file_without_a_doc_string_is_refused_by_name() -> None:
    for source in (CODE, "", "# only a comment\n", f"b'''x\n**\n{HEADER}'''\n{CODE}", f'f"""x"""\n{CODE}'):
        assert "has no header" in refusal(source)


def test_JX_14_a_missing_field_names_both_sets() -> None:
    text = refusal(body(header="handler_type: mapper\nrequired_capability: none\n"))
    assert "[handler_type, required_capability]; expected exactly" in text
    assert "[argument_spec, handler_type, required_capability]" in text


def test_JX_14_an_extra_field_names_both_sets() -> None:
    text = refusal(body(header=HEADER + "colour: red\n"))
    assert "[argument_spec, colour, handler_type, required_capability]; expected exactly" in text


def test_JX_15_each_safe_type_is_accepted_and_kept_in_order() -> None:
    for kind in ARGUMENT_TYPES:
        assert check(body(header=HEADER.replace("list}", f"{kind}}}"))).argument_spec == [("arguments", kind)]
    assert check(body(header=HEADER.replace("list}", "null}"))).argument_spec == [("arguments", None)]


def test_JX_15_every_other_builtin_is_refused_as_a_type() -> None:
    for kind in set(dir(builtins)) - set(ARGUMENT_TYPES) - {"None", "True", "False"}:
        assert kind in refusal(body(header=HEADER.replace("list}", f"'{kind}'}}")))


@pytest.mark.parametrize(
    "spec",
    ["x", "{}", "[1]", "[{name: arguments}]", "[{name: arguments, type: list, x: 1}]", "[{name: 1, type: list}]"],
)
def test_JX_15_a_malformed_argument_spec_is_refused(spec: str) -> None:
    header = f"argument_spec: {spec}\nhandler_type: mapper\nrequired_capability: none\n"
    assert "split.py:2: " in refusal(body(header=header))


def test_JX_16_a_mapper_takes_arguments_and_nothing_else() -> None:
    assert "Can not save MAPPER handler with invalid defined arguments: [results]" in refusal(
        body(header=HEADER.replace("name: arguments", "name: results"))
    )
    two = HEADER.replace("handler_type", "  - {name: more, type: list}\nhandler_type")
    assert "[arguments, more]; expected exactly [arguments]" in refusal(body(header=two))
    none = "argument_spec: []\nhandler_type: mapper\nrequired_capability: none\n"
    assert "Can not save MAPPER handler" in refusal(body(header=none))


@pytest.mark.parametrize("kind", ["combiner", "reducer"])
def test_JX_16_combiners_and_reducers_take_results(kind: str) -> None:
    header = HEADER.replace("mapper", kind)
    assert f"Can not save {kind.upper()} handler" in refusal(body(header=header))
    assert check(body(header=header.replace("name: arguments", "name: results"))).handler_type == kind


@pytest.mark.parametrize("kind", ["maper", "MAPPER", "1", "null", "[mapper]", "{a: b}"])
def test_JX_16_another_handler_type_is_refused(kind: str) -> None:
    text = refusal(body(header=HEADER.replace("handler_type: mapper", f"handler_type: {kind}")))
    assert "expected mapper, combiner or reducer" in text


def test_JX_17_a_handler_that_requires_none_runs_on_any_general_worker() -> None:
    assert check(body()).capability == "general"
    assert check(body(header=HEADER.replace("none", "gpu"))).capability == "gpu"


def test_JX_55_capabilities_are_lower_case_and_good_names() -> None:
    assert check(body(header=HEADER.replace("none", "GPU"))).required_capability == "gpu"
    for bad in ("a/b", "''", "null", "7", "'.x'", "'a b'", "[a]"):
        assert "capab" in refusal(body(header=HEADER.replace("none", bad)))


def test_a_body_without_a_yield_of_its_own_is_no_generator() -> None:
    for code in ("return 1\n", "def inner():\n    yield 1\n", "f = lambda: (yield)\n", "async def f():\n    yield 1\n"):
        assert "split.py:1: is no generator" in refusal(body(code=code))


def test_a_yield_in_a_block_or_a_default_counts() -> None:
    for code in (
        "if 0:\n    yield\n",
        "try:\n    pass\nfinally:\n    yield from ()\n",
        "def f(x=(yield)):\n    pass\n",
    ):
        assert check(body(code=code)).form == "body"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("from __future__ import annotations\nyield 1\n", ":8: from __future__ imports must occur at the beginning"),
        ("nonlocal x\nyield 1\n", ":8: no binding for nonlocal 'x' found"),
        ("global arguments\nyield 1\n", ":8: name 'arguments' is parameter and global"),
        ("yield 1\nawait x\n", ":9: 'await' outside async function"),
        ("yield 1\nasync for a in b:\n    pass\n", ":9: 'async for' outside async function"),
        ("yield 1\nbreak\n", ":9: 'break' outside loop"),
        ("yield 1\nclass A:\n    yield 2\n", ":10: 'yield' outside function"),
        ("from os import *\nyield 1\n", ":8: import * only allowed at module level"),
        ("yield 1\n  x\n", ":9: unexpected indent"),
    ],
)
def test_what_no_function_may_hold_is_refused_with_its_line(code: str, problem: str) -> None:
    assert problem in refusal(body(code=code))


def test_a_global_in_a_body_is_legal() -> None:
    assert check(body(code="global counter\ncounter = 1\nyield counter\n")).form == "body"


# Running a body


def test_JX_18_text_over_several_lines_reaches_the_handler_unchanged() -> None:
    code = "yield '''line1\nline2\n\tline3'''\nyield 'a\\\nb'\n"
    assert run(body(code=code), "arguments", []) == ["line1\nline2\n\tline3", "ab"]


def test_JX_18_tracebacks_name_the_handler_and_the_line_of_the_file() -> None:
    source = body(code="yield 1\n\n\nyield 1 // arguments\n")
    with pytest.raises(ZeroDivisionError) as caught:
        run(source, "arguments", 0)
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (frame.filename, frame.lineno) == ("handler(split)", source.split("\n").index("yield 1 // arguments") + 1)


def test_JX_33_a_body_sees_its_scope_its_argument_and_not_our_future_imports() -> None:
    code = "def f(x: 1 + 1): pass\nyield f.__annotations__['x'], arguments, GIVEN\n"
    assert run(body(code=code), "arguments", "a", GIVEN="g") == [(2, "a", "g")]


def test_inner_functions_and_comprehensions_of_a_body_work() -> None:
    code = "limit = 2\ndef small(n):\n    return n < limit\nyield [n for n in arguments if small(n)]\n"
    assert run(body(code=code), "arguments", [1, 2, 3]) == [[1]]


def test_an_empty_body_cannot_become_a_function() -> None:
    with pytest.raises(InvalidHandler, match="is empty"):
        python_body.body_as_function("# nothing\n", "x", "arguments")


def test_a_module_becomes_code_with_the_name_of_its_handler() -> None:
    names: dict[str, Any] = {}
    exec(python_body.module_as_code(module(), "words_count"), names)
    assert list(names["handle"]([], None)) == [(1, 2)]
    assert names["handle"].__code__.co_filename == "handler(words_count)"


# The module


def test_a_module_is_accepted_with_its_doc_string_as_description() -> None:
    block = 'handler_type = "reducer"\nrequired_capability = "GPU"\ntimeout_s = 2.5\nmemory_mb = 64\nattempts = 3'
    handler = check(module(block, "def handle(results, ctx):\n    yield from results\n"))
    assert (handler.form, handler.description, handler.handler_type) == ("module", "Count it.", "reducer")
    assert handler.argument_spec == [("results", None)]
    assert (handler.capability, handler.timeout_s, handler.memory_mb, handler.attempts) == ("gpu", 2.5, 64, 3)


def test_a_module_needs_no_doc_string_and_may_use_what_modules_may() -> None:
    source = module().removeprefix('"""Count it."""\n')
    assert check(source).description == ""
    assert check(source.replace("def handle", "from __future__ import annotations\nfrom os import *\ndef handle"))
    assert check(module(code="def handle(arguments: list, ctx: object) -> object:\n    yield 1\n")).form == "module"


def test_a_file_with_handle_and_a_top_level_yield_is_a_body() -> None:
    assert check(body(code="def handle(x):\n    return x\nyield handle(1)\n")).form == "body"


@pytest.mark.parametrize(
    ("code", "got"),
    [
        ("def handle(arguments):\n    yield 1\n", "got: def handle(arguments)"),
        ("def handle(ctx, arguments):\n    yield 1\n", "got: def handle(ctx, arguments)"),
        ("def handle(results, ctx):\n    yield 1\n", "got: def handle(results, ctx)"),
        ("def handle(arguments, ctx=None):\n    yield 1\n", "got: def handle(arguments, ctx=None)"),
        ("def handle(arguments, ctx, *more):\n    yield 1\n", "got: def handle(arguments, ctx, *more)"),
        ("def handle(arguments, ctx, *, a):\n    yield 1\n", "got: def handle(arguments, ctx, *, a)"),
        ("def handle(arguments, /, ctx):\n    yield 1\n", "got: def handle(arguments, /, ctx)"),
        ("async def handle(arguments, ctx):\n    yield 1\n", "got: async def handle(arguments, ctx)"),
    ],
)
def test_another_signature_is_refused_and_the_right_one_named(code: str, got: str) -> None:
    text = refusal(module(code=code))
    assert text.startswith("split.py:7: expected def handle(arguments, ctx), ")
    assert got in text


def test_a_module_whose_handle_yields_nothing_is_no_generator() -> None:
    code = "def handle(arguments, ctx):\n    def inner():\n        yield 1\n    return inner()\n"
    assert "split.py:7: is no generator" in refusal(module(code=code))


def test_two_handles_are_refused() -> None:
    code = "def handle(arguments, ctx):\n    yield 1\n"
    assert "split.py:9: 'handle' is defined again; first in line 7" in refusal(module(code=code + code))


def test_a_return_outside_of_handle_is_refused_with_its_line() -> None:
    assert "split.py:9: 'return' outside function" in refusal(
        module(code="def handle(arguments, ctx):\n    yield 1\nreturn\n")
    )


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ('handler_type = "mapper"', ":2: the header has the fields [handler_type]; expected exactly"),
        (
            'handler_type = "mapper"\nrequired_capability = "a"\ncolour = 1',
            "[colour, handler_type, required_capability]",
        ),
        ('handler_type = "mapper"\nrequired_capability = ', ":4: no TOML: Invalid value, in: required_capability ="),
        ('handler_type = "mapper"\nhandler_type = "mapper"', ":4: no TOML: Cannot overwrite a value, in: handler_type"),
        ("handler_type = mapper\na = 1", ":3: no TOML: Invalid value, in: handler_type = mapper"),
        ('handler_type = "maper"\nrequired_capability = "a"', "expected mapper, combiner or reducer"),
        ('handler_type = "mapper"\nrequired_capability = 3', "required_capability is 3"),
        ('handler_type = "mapper"\nrequired_capability = "a"\ntimeout_s = -3', "timeout_s to be a positive number"),
        ('handler_type = "mapper"\nrequired_capability = "a"\ntimeout_s = 0', "got: 0"),
        ('handler_type = "mapper"\nrequired_capability = "a"\ntimeout_s = inf', "got: inf"),
        ('handler_type = "mapper"\nrequired_capability = "a"\ntimeout_s = nan', "got: nan"),
        ('handler_type = "mapper"\nrequired_capability = "a"\ntimeout_s = true', "got: True"),
        ('handler_type = "mapper"\nrequired_capability = "a"\nmemory_mb = 1.5', "memory_mb to be a whole number"),
        ('handler_type = "mapper"\nrequired_capability = "a"\nattempts = 0', "attempts to be a whole number"),
        ('handler_type = "mapper"\nrequired_capability = "a"\nattempts = true', "got: True"),
        ('handler_type = "mapper"\nx = = 1', ":4: no TOML"),
        ("a = " + "[" * 5000, "no TOML"),
        ("a = " + "9" * 5000, "no TOML that can be read"),
        ("a = 1\n" * 3000, "the block has"),
    ],
)
def test_a_wrong_block_is_refused_with_its_line(block: str, problem: str) -> None:
    assert problem in refusal(module(block))


def test_a_block_that_is_missing_open_double_or_misplaced_is_refused() -> None:
    code = "def handle(arguments, ctx):\n    yield 1\n"
    assert "split.py:1: has 'def handle', but no '# /// mr' block" in refusal(code)
    assert "split.py:1: the '# /// mr' block is not closed" in refusal("# /// mr\n# a = 1")
    assert "split.py:3: expected '# ' or the closing" in refusal(f"# /// mr\n# a = 1\n{code}")
    assert "split.py:3: a second '# /// mr' block" in refusal(f"# /// mr\n# ///\n# /// mr\n# ///\n{code}")
    assert "split.py:1: has a '# /// mr' block, but no top-level 'def handle'" in refusal("# /// mr\n# ///\nx = 1\n")


# Fields that come apart from the code


def test_verify_accepts_code_without_a_header_and_finds_its_form() -> None:
    plain = Handler(
        description="d", argument_spec=[("arguments", None)], source_type="python", source_code="yield 1\r\n",
        handler_type="mapper", required_capability="GPU",
    )  # fmt: skip
    handler = PythonProcessor().verify("given", plain)
    assert (handler.source_code, handler.required_capability, handler.form) == ("yield 1\n", "gpu", "body")


def test_verify_refuses_what_check_refuses() -> None:
    good: dict[str, Any] = {
        "description": "d", "argument_spec": [("arguments", None)], "source_type": "python",
        "source_code": "yield 1\n", "handler_type": "mapper", "required_capability": "none",
    }  # fmt: skip
    wrong: list[dict[str, Any]] = [
        {"source_code": "return 1"}, {"source_code": ""}, {"argument_spec": []},
        {"argument_spec": [("arguments", "eval")]}, {"handler_type": "x"}, {"required_capability": "a/b"},
        {"handler_type": "reducer"},
    ]  # fmt: skip
    for change in wrong:
        with pytest.raises(InvalidHandler, match=r"^given:1: "):
            PythonProcessor().verify("given", Handler(**{**good, **change}))


# Versions


def test_JX_23_equal_files_share_a_version_and_any_difference_changes_it() -> None:
    assert check(body()).version == check(body()).version
    assert len({check(text).version for text in (body(), body(description="Other."), body(code=CODE + "#\n"))}) == 3


# Hostile headers


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("a: &a [1]\nb: *a\n", "split.py:4: no YAML: aliases are not allowed"),
        ("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", "aliases are not allowed"),
        ("!!python/object/apply:os.system ['true']\n", "no YAML: could not determine a constructor"),
        ("!!python/name:os.system\n", "no YAML: could not determine a constructor"),
        (HEADER + "handler_type: reducer\n", "split.py:7: no YAML: the key 'handler_type' is given twice"),
        ("<<: {handler_type: mapper}\n" + HEADER, "split.py:3: no YAML: the key '<<' is not allowed"),
        ("- a\n- b\n", "expected the fields"),
        ("", "the header is null"),
        ("just text", "the header is 'just text'"),
        ("a: b: c\n", "split.py:3: no YAML: mapping values are not allowed here"),
        ("--- 1\n--- 2\n", "no YAML"),
        ("[" * 8000, "no YAML"),
        ("{a: " * 3000, "no YAML"),
        ("a: 2001-99-99\n", "no YAML that can be read"),
        ("a: " + "9" * 5000, "no YAML that can be read"),
        ("? [a]\n: b\n", "no YAML: found unhashable key"),
        ("1: 2\n", "[1]; expected exactly"),
        ("a: \\x07\n", "no YAML that can be read"),
        ("a: \\ud800\n", "holds a lone surrogate"),
        ("%TAG ! tag:yaml.org,2002:python/\n--- !name:os.system\n", "no YAML"),
        ("x" * 20000, "the header has 20000 bytes; at most 16384"),
    ],
)
def test_a_hostile_yaml_header_is_refused(header: str, problem: str) -> None:
    assert problem in refusal(body(header=header))


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ('{"a": 1, "a": 2}', "appears twice"), ("[NaN]", "NaN is not JSON"), ("[" * 5000, "nested deeper"),
        ("{", "split.py:2: no JSON"), ("[]", "the header is []"), ('["\\\\ud800"]', "surrogate"),
    ],
)  # fmt: skip
def test_a_hostile_json_header_is_refused(header: str, problem: str) -> None:
    assert problem in refusal(body(header=header, mark="**json"))


def test_a_description_has_a_limit_on_both_sides() -> None:
    assert check(body(description="x" * 60_000))
    assert "the description has 66000 bytes; at most 65536" in refusal(body(description="x" * 66_000))


# Hostile source

_FINALLY = "".join(
    [" " * i + "try:\n" for i in range(20)]
    + [" " * 20 + "return\n"]
    + [
        " " * i + "finally:\n" + " " * (i + 1) + "try: return\n" + " " * (i + 1) + "finally: pass\n"
        for i in range(19, -1, -1)
    ]
)
HOSTILE = {
    "null byte": "yield 1\0\n",
    "control character": "yield '\x01'\n",
    "parentheses": "yield " + "(" * 100_000 + ")" * 100_000,
    "brackets": "yield " + "[" * 100_000 + "]" * 100_000,
    "unary": "yield " + "-" * 100_000 + "1",
    "not": "yield " + "not " * 100_000 + "1",
    "attributes": "yield a" + ".b" * 100_000,
    "calls": "yield a" + "()" * 100_000,
    "sum": "yield 1" + "+1" * 100_000,
    "powers": "yield 1" + "**1" * 100_000,
    "lambdas": "yield " + "lambda:" * 50_000 + "1",
    "conditions": "yield 1" + " if 1 else 1" * 30_000,
    "elif": "if 1:\n yield\n" + "elif 1:\n pass\n" * 30_000,
    "comprehension": "yield [x" + " for x in y" * 40_000 + "]",
    "finally": "yield 1\n" + _FINALLY,
    "returns": "yield 1\ntry:\n" + " return\n" * 20_000 + "finally:\n" + " x\n" * 20_000,
    "blocks": "".join(" " * i + "if 1:\n" for i in range(300)),
    "digits": "yield " + "9" * 5000,
    "five megabytes": "yield 1\n" + "#" * 5_000_000,
    "lone surrogate": "yield '\ud800'\n",
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_X_17_source_made_to_hurt_the_parser_is_refused(kind: str) -> None:
    refusal(body(code=HOSTILE[kind]))
    with pytest.raises(InvalidHandler):
        python_body.body_as_function(body(code=HOSTILE[kind]), "x", "arguments")


def test_X_17_the_guards_hold_in_a_thread_with_a_smaller_stack() -> None:
    # A parser that overflows its stack kills the process, so this one is not ours.
    script = (
        "import threading; from tests.unit.test_python_processor import HOSTILE, refusal, body\n"
        "threading.stack_size(1024 * 1024); seen = []\n"
        "def all_of_them():\n"
        "    for kind in HOSTILE: refusal(body(code=HOSTILE[kind])); seen.append(kind)\n"
        "thread = threading.Thread(target=all_of_them); thread.start(); thread.join()\n"
        "print(len(seen))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, f"{len(HOSTILE)}\n"), done.stderr


def test_X_17_a_source_just_under_the_limit_is_accepted() -> None:
    start = body()
    filler = "#" * (SOURCE_BYTES_MAX - len(start) - 1) + "\n"
    assert check(start + filler).form == "body"
    assert "a handler has at most 524288" in refusal(start + filler + "#")


def test_ordinary_nested_finally_is_accepted() -> None:
    code = "try:\n try:\n  yield 1\n  return\n finally:\n  x = 1\nfinally:\n x = 2\n"
    assert check(body(code=code)).form == "body"


def test_checking_in_several_threads_gives_the_same_handlers() -> None:
    seen: list[Handler] = []
    threads = [threading.Thread(target=lambda: seen.append(check(body()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert seen == [check(body())] * 8
