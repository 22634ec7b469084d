"""What a handler finds when it runs: JX-33 to 37."""

from __future__ import annotations

from functools import partial
from textwrap import dedent

from tests.acceptance.conftest import Shared
from tests.acceptance.service import eventually
from tests.acceptance.sources import ALL, FLAT, map_to, mapper, module, reducer

NAMES = {
    "MrConfigureToMap", "MrConfigureToReturn", "S_GET", "S_SET", "S_LIST", "FS", "SEP", "JOIN", "LOG", "NOTIFY",
    "PRINT", "RUN", "EMAIL", "HTTP", "__name__", "__builtins__",
}  # fmt: skip


def returns(code: str) -> str:
    """A mapper that returns data."""
    return mapper("yield MrConfigureToReturn()\n" + code)


def test_JX_33_every_call_has_globals_of_its_own(pair: Shared, w: str) -> None:
    leaf = returns("global seen\nseen = globals().get('seen', 0) + 1\nyield 'seen', seen")
    pair.define(w, {"start": (map_to("leaf", "[(n, n) for n in range(50)]"), FLAT), "leaf": (leaf, ALL)})
    assert pair.post(w).pairs == [["seen", [1] * 50]]


def test_JX_34_exactly_the_documented_names_are_there(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (returns("yield 'names', sorted(globals())\nyield 'name', __name__"), ALL)})
    found = dict(pair.post(w).pairs)
    assert set(found["names"][0]) == NAMES
    assert found["name"] == ["handler(start_map)"]


def test_JX_34_SEP_and_JOIN_make_paths(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (returns("yield SEP, JOIN('a', 'b', 'c.txt')"), ALL)})
    assert pair.post(w).pairs == [["/", ["a/b/c.txt"]]]


def test_JX_34_what_a_handler_prints_and_logs_is_kept_with_its_invocation(pair: Shared, w: str) -> None:
    code = "import sys\nPRINT('printed')\nprint('plain')\nLOG.warning('logged %d', 7)\nNOTIFY.info('notified')\n"
    pair.define(w, {"start": (returns(code + "sys.stderr.write('aside\\n')\nyield 'a', 1"), ALL)})
    reply = pair.post(w)
    output = pair.parts.tracing.invocation(w, reply.request_id, "0").output
    for said in ("printed\n", "plain\n", "WARNING [start_map] logged 7\n", "notified", "aside\n"):
        assert said in output


def test_JX_35_RUN_feeds_a_command_and_gives_its_exit_code(pair: Shared, w: str) -> None:
    code = """
    yield 'good', RUN(['tr', 'a-z', 'A-Z'], input_data='shout')
    yield 'other', RUN(['sh', '-c', 'echo aside >&2; exit 3'], success_code=3)
    yield 'any', RUN(['sh', '-c', 'exit $CODE'], success_code=None, env={'CODE': '9', 'PATH': '/usr/bin:/bin'})
    """
    pair.define(w, {"start": (returns(dedent(code)), ALL)})
    reply = pair.post(w)
    assert sorted(reply.pairs) == [["any", [9]], ["good", [0]], ["other", [3]]]
    output = pair.parts.tracing.invocation(w, reply.request_id, "0").output
    assert "SHOUT" in output
    assert "aside" in output


def test_JX_35_a_command_that_fails_raises_a_ValueError_with_the_command(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (returns("RUN(['sh', '-c', 'exit 4'])\nyield 'a', 1"), ALL)})
    error = pair.post(w).error
    assert error["type"] == "ValueError"
    assert error["message"].startswith("Command failed: ['sh', '-c', 'exit 4']")


def test_JX_37_a_file_system_that_is_not_configured_names_its_setting_when_used(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (returns("yield 'a', FS.open('x')"), ALL)})
    error = pair.post(w).error
    assert "no filesystem configured" in error["message"]
    assert "MR_FS_URL" in error["message"]


def test_JX_37_hooks_that_are_not_configured_name_their_settings_when_used(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (returns("yield 'a', EMAIL.info('x')"), ALL)})
    assert "MR_LOG_EMAIL" in pair.post(w).error["message"]


def test_a_module_gets_the_same_by_its_ctx(pair: Shared, w: str) -> None:
    start = """
    def handle(arguments, ctx):
        ctx.map_to("leaf")
        ctx.session.set("n", 1)
        for n in range(3):
            yield "n", n
    """
    leaf = """
    def handle(arguments, ctx):
        for _, n in arguments:
            ctx.session["n"] = n
            yield "ids", ctx.invocation.removeprefix(ctx.request)
    """
    lower = """
    def handle(results, ctx):
        for key, values in results:
            yield key, [values[0], ctx.session["n"]]
    """
    upper = """
    def handle(results, ctx):
        for key, values in results:
            yield key, values
    """
    pair.define(
        w,
        {
            "start": (module("mapper", start), module("reducer", upper)),
            "leaf": (module("mapper", leaf), module("reducer", lower)),
        },
    )
    assert pair.post(w).pairs == [["ids", [[".0.0", 0], [".0.1", 1], [".0.2", 2]]]]


EACH = "for key, values in results: yield key, values"
FACTORY = "tests.acceptance.site_scope.Factory"


def test_JX_36_a_site_gives_names_to_handlers_and_its_secrets_stay_with_it(pair: Shared, w: str) -> None:
    capability = f"scope-{w}"
    code = "import os\nyield WHO, [SEP, length(TOKEN), os.environ.get('SITE_TOKEN')]"
    step = (mapper(f"yield MrConfigureToReturn()\n{code}", capability=capability), reducer(EACH, capability=capability))
    pair.define(w, {"start": step, "bad": step})
    pair.parts.registry.create_job(w, "bad", "", "bad")
    token = "hush-" + "7" * 20
    with pair.worker(capability, only=w, MR_WORKFLOW_SCOPE_FACTORY_FQ_CLASS=FACTORY, SITE_TOKEN=token) as worker:
        assert pair.post(w).pairs == [[[w, "start_map"], [["|", 25, None]]]]
        error = pair.post(w, job="bad").error
        assert (error["class"], error["type"], error["handler"]) == ("scope_factory", "ScopeFactoryError", "bad_map")
        assert error["message"] == (
            f"the scope factory {FACTORY} gives no scope for handler bad_map: "
            f"PermissionError: the vault has nothing for {w}"
        )
        assert worker.stop() == 0
        assert token not in worker.log
    assert not [key for key, value in pair.entries("").items() if token.encode() in value]


def test_JX_36_a_class_that_is_no_scope_factory_stops_the_start_with_one_line(pair: Shared) -> None:
    for name in ("tests.acceptance.site_scope.Missing", "collections.OrderedDict"):
        with pair.process("worker", MR_WORKFLOW_SCOPE_FACTORY_FQ_CLASS=name) as process:
            eventually(partial(getattr, process, "has_ended"), "the worker ends")
            (line,) = [line for line in process.log.splitlines() if "MR_WORKFLOW_SCOPE_FACTORY_FQ_CLASS" in line]
            assert name in line
            assert "Traceback" not in process.log
