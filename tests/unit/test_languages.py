"""Processes behind handlers in other languages: kept warm, told apart by their ends, gone when they should be."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mr.adapters.language_file import languages
from mr.model.handler import Handler, HandlerType
from mr.model.language import Language
from mr.worker.frames import Limits
from tests.servers import program
from tests.unit.executors import ALL, Bench, Recorder, bench, until

pytestmark = [pytest.mark.kills, pytest.mark.asyncio(loop_scope="module")]

RAW = Language(name="raw", command=(sys.executable, "-u"), extensions=("raw",), install="install the raw language")
LINES = Language(name="lines", command=("sh",), extensions=("lines",), speaks="lines", out_of_memory=("no memory",))
ABSENT = Language(name="absent", command=("no-such-program-of-mr",), install="apt-get install absent")
LANGUAGES = {**languages(), **{language.name: language for language in (RAW, LINES, ABSENT)}}

TALK = """\
import json, sys, os, time
def say(*message): print(json.dumps(message))
def serve(invoke):
    for line in sys.stdin:
        message = json.loads(line)
        if message[0] == "run": rows = []; run = message[1]
        elif message[0] == "in": rows.append(message[1:])
        elif message[0] == "more": rows[-1][1].extend(message[1])
        else: invoke(run, rows); say("done")
"""
"""A language in ten lines: what is defined as `invoke(run, rows)` says what it likes."""

SAME = TALK + "serve(lambda run, rows: [say('out', *row) for row in rows])\n"
PID = TALK + "serve(lambda run, rows: say('out', 'pid', os.getpid()))\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def benches() -> AsyncIterator[list[Bench]]:
    running: list[Bench] = []
    yield running
    for one in running:
        await one.process.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def one(benches: list[Bench]) -> Bench:
    """An executor that knows the languages: the same for all tests, until one ends it."""
    if not benches or not benches[-1].process.alive:
        benches.append(Bench(languages=LANGUAGES))
        await benches[-1].process.start()
    return benches[-1]


def handler(source: str, language: str = "raw", kind: HandlerType = "mapper", **options: Any) -> Handler:
    return Handler(
        description="", argument_spec=[("arguments" if kind == "mapper" else "results", None)], source_type=language,
        source_code=source, handler_type=kind, required_capability="none", form="module", **options,
    )  # fmt: skip


async def failure_of(one: Bench, source: str, language: str = "raw", **options: Any) -> Any:
    run = await one.map(handler(source, language), [[["k", 1]]], **options)
    failure = run.failure()
    assert (failure.handler, failure.kind) == ("the_mapper", "map")
    assert len(failure.version) == 12
    assert (await one.map(handler(SAME))).result() == [["k", [1]]], "the executor works on"
    return failure


async def pid_of(one: Bench, source: Handler) -> int:
    [[_, [pid]]] = (await one.map(source)).result()
    return int(pid)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_process_stays_for_the_next_invocation_and_the_next_run(one: Bench) -> None:
    run = await one.map(handler(PID), [[["k", 1]]] * 3)
    pids = {pairs[0][1][0] for pairs in run.results_of.values()}
    assert len(pids) == 1
    assert await pid_of(one, handler(PID)) in pids
    assert await pid_of(one, handler(PID + "# another version\n")) not in pids


async def test_a_process_that_died_meanwhile_is_started_anew(one: Bench) -> None:
    first = await pid_of(one, handler(PID))
    os.kill(first, 9)
    await until(lambda: not lives(first), "the end of the process")
    assert await pid_of(one, handler(PID)) != first


async def test_a_process_that_has_grown_is_not_used_for_the_next_run(one: Bench) -> None:
    source = TALK + (
        "held = []\n"
        "def invoke(run, rows): held.append(bytearray(rows[0][1])); say('out', 'pid', os.getpid())\n"
        "serve(invoke)\n"
    )

    async def run(size: int) -> Any:
        return (await one.map(handler(source), [[["k", size]]])).result()

    first = await run(1)
    assert await run(10_000_000) == first
    assert await run(200_000_000) == first
    assert await run(1) != first


TALKERS = {
    "javascript": "import fs from 'node:fs';\nexport function* handle() {\n  console.log('half\\nway');\n"
    "  while (!fs.existsSync('GATE'));\n  yield ['k', 1];\n}\n",
    "perl": 'sub handle { my ($in, $ctx) = @_; print "half\\nway\\n";\n'
    "  select undef, undef, undef, 0.02 until -e 'GATE';\n  $ctx->yield('k', 1) }\n",
    "shell": "handle() {\n  printf 'half\\nway\\n' >&2\n  until [ -e GATE ]; do sleep 0.02; done\n}\n",
    "streaming": "#!/bin/sh\nprintf 'half\\nway\\n' >&2\nuntil [ -e GATE ]; do sleep 0.02; done\n",
}


@pytest.mark.parametrize("language", TALKERS)
async def test_the_last_line_can_be_told_while_a_process_runs(one: Bench, language: str, tmp_path: Path) -> None:
    program({"javascript": "node", "shell": "bash", "streaming": "sh"}.get(language, language))
    gate = tmp_path / "gate"
    run = one.start_map(handler(TALKERS[language].replace("GATE", str(gate)), language))
    await until(lambda: one.process.last_line() == "way", "the line that came last")
    assert not run.done.done()
    gate.touch()
    await one.finish(run)
    assert run.outputs[0].startswith("half\nway\n")


async def test_few_processes_wait_at_a_time(one: Bench) -> None:
    pids = [await pid_of(one, handler(f"{PID}# {number}\n")) for number in range(10)]
    await until(lambda: sum(map(lives, pids)) == 8, "eight that wait")
    assert [lives(pid) for pid in pids] == [False] * 2 + [True] * 8


async def test_a_process_that_was_stopped_in_the_middle_is_not_used_again(one: Bench) -> None:
    source = TALK + "serve(lambda run, rows: [say('out', 'pid', os.getpid()), say('out', 'k', 'x' * rows[0][1])])\n"
    small, big = [["k", 10]], [["k", 10_000]]
    run = await one.map(handler(source), [small, big, small], limits=Limits(value=1000))
    assert run.failure(1).class_ == "output_limit"
    first, last = ({key: value[0] for key, value in run.results_of[child]}["pid"] for child in (0, 2))
    assert first != last
    assert not lives(first)


async def test_what_a_process_starts_ends_with_the_run(one: Bench) -> None:
    source = TALK + (
        "import subprocess\n"
        "def invoke(run, rows):\n"
        "    stray = subprocess.Popen(['setsid', 'sleep', '1000'], stdin=-3, stdout=-3, stderr=-3)\n"
        "    say('out', 'pids', [os.getpid(), stray.pid])\n"
        "serve(invoke)\n"
    )
    [[_, [[own, stray]]]] = (await one.map(handler(source))).result()
    await until(lambda: not lives(stray), "the end of what was left")
    assert lives(own)
    await one.process.kill()
    await until(lambda: not lives(own), "the end of the process with its executor")


async def test_a_handler_that_closes_all_descriptors_hurts_nobody(one: Bench) -> None:
    await pid_of(one, handler(PID))
    await one.map("import os\nos.closerange(3, 40)\nyield MrConfigureToReturn()\n")
    assert await pid_of(one, handler(PID)) > 0
    thief = "import os\nos.closerange(3, 40)\nfiles = [os.open('/dev/null', 2) for _ in range(20)]\n"
    thief += "yield MrConfigureToReturn()\n"
    await one.map(thief)
    assert await pid_of(one, handler(PID)) > 0


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("print('hello')", "is 'hello'"),
        ("print('{}')", "is '{}'"),
        ("print('[\"out\", 1]')", "is '[\"out\", 1]'"),
        ("print('[\"shout\", 1, 2]')", "expected one of out, set, map, done, failed"),
        ("print('[\"out\", 1, NaN]')", "NaN"),
        ("sys.stdout.buffer.write(b'\\xff\\n')", "\\\\xff"),
        ("print('[' * 100000)", "is '[[["),
        ("say('out', 1, 2); say('map', 'next')", "must come before all pairs"),
        ("say('map', 'next'); say('map', 'next')", "must come before all pairs"),
        ("say('map', 5)", "takes the name of a step"),
    ],
)
async def test_what_is_no_line_of_the_protocol_is_told_as_that(one: Bench, said: str, shown: str) -> None:
    failure = await failure_of(one, TALK + f"serve(lambda run, rows: [{said.replace('; ', ', ')}])\n")
    assert failure.class_ == "protocol"
    assert shown in failure.message


async def test_done_before_the_input_was_read_is_no_success(one: Bench) -> None:
    rows = [["k", "x" * 1000] for _ in range(2000)]
    run = await one.map(handler("import time\nprint('[\"done\"]', flush=True)\ntime.sleep(60)\n"), [rows])
    assert run.failure().class_ == "protocol"
    assert "before it has read its input" in run.failure().message


async def test_done_before_the_last_piece_was_taken_is_no_success_either(one: Bench) -> None:
    source = "import sys, time\nsys.stdin.buffer.raw.read(10)\nprint('[\"done\"]', flush=True)\ntime.sleep(60)\n"
    run = await one.map(handler(source), [[["k", "x" * 300_000]]])
    assert run.failure().class_ == "protocol"


async def test_a_line_without_end_is_cut_off(one: Bench) -> None:
    failure = await failure_of(one, "import sys\nwhile True: sys.stdout.write('x' * 100000)\n")
    assert failure.class_ == "output_limit"
    assert "a line of more than" in failure.message


@pytest.mark.parametrize(
    ("source", "class_", "said"),
    [
        ("raise SystemExit(7)\n", "exit", "exited with code 7"),
        ("pass\n", "exit", "exited with code 0"),
        ("import os; os.abort()\n", "signal", "SIGABRT"),
        ("import os; os.kill(os.getpid(), 9)\n", "lost_worker", "SIGKILL"),
        ("import os, time; os.close(1); time.sleep(60)\n", "protocol", "closed its stdout"),
    ],
)
async def test_the_death_of_a_process_is_told_as_what_it_was(one: Bench, source: str, class_: str, said: str) -> None:
    failure = await failure_of(one, "import sys\nprint('last words', file=sys.stderr)\n" + source)
    assert failure.class_ == class_
    assert said in failure.message
    assert "last words" in failure.output


async def test_a_process_that_never_answers_is_the_child_that_runs(one: Bench) -> None:
    one.start_map(handler("import time\ntime.sleep(1000)\n"), [[["k", 1]]], first=3)
    await until(lambda: (now := one.process.current()) is not None and now.seconds > 0.1, "a time-out")
    current = one.process.current()
    assert current is not None
    assert (current.child, current.stage) == (3, "map")
    how = await asyncio.wait_for(one.process.kill(), 10)
    assert how.child == 3


async def test_endless_talk_on_stderr_is_cut_and_takes_no_memory(one: Bench) -> None:
    source = TALK + "serve(lambda run, rows: [sys.stderr.write('y' * 1000) for _ in range(3000)])\n"
    run = await one.map(handler(source), limits=Limits(output=1000))
    assert run.outputs[0].startswith("y" * 1000 + "\n… output cut at 1000 bytes")


async def test_both_sides_may_talk_at_once(one: Bench) -> None:
    source = TALK + (
        "for line in sys.stdin:\n"
        "    message = json.loads(line)\n"
        "    if message[0] == 'in':\n"
        "        sys.stderr.write('e' * 1000); say('out', message[1], message[2] * 2)\n"
        "    elif message[0] == 'end': say('done')\n"
    )
    rows = [[number, "x" * 3000] for number in range(1000)]
    run = await one.map(handler(source), [rows])
    assert sorted(run.result()) == [[number, ["x" * 6000]] for number in range(1000)]


async def test_memory_mb_limits_the_process_and_not_its_executor(one: Bench) -> None:
    source = TALK + "serve(lambda run, rows: say('out', 'n', len(bytearray(300_000_000))))\n"
    assert (await one.map(handler(source))).result() == [["n", [300_000_000]]]
    failure = (await one.map(handler(source, memory_mb=200))).failure()
    assert failure.class_ == "exit"  # the language says nothing of memory here
    assert "MemoryError" in failure.traceback
    grows = "import sys\nsys.exit(sys.stderr.write('no memory') and 3)\n"
    failure = (await one.map(handler(f'exec {sys.executable} -c "{grows}"\n', "lines"))).failure()
    assert failure.class_ == "memory"


async def test_a_missing_program_is_named_with_what_to_install(one: Bench) -> None:
    failure = await failure_of(one, "x", "absent")
    assert failure.class_ == "rejected"
    assert "this worker has no no-such-program-of-mr on its PATH" in failure.message
    assert "apt-get install absent" in failure.message
    assert "capability" in failure.message
    failure = await failure_of(one, "x", "unheard")
    assert "MR_PROCESSORS" in failure.message


async def test_values_that_only_javascript_has_are_refused_with_its_stack(one: Bench) -> None:
    program("node")
    values = {
        "NaN": "NaN",
        "[1, -Infinity]": "-Infinity",
        "() => 1": "type function",
        "10n": "type bigint",
        "undefined": "type undefined",
        "'\\ud800'": "surrogate",
    }
    for value, what in values.items():
        source = f"export function* handle() {{\n  yield ['k', {value}];\n}}\n"
        failure = (await one.map(handler(source, "javascript"))).failure()
        assert (failure.class_, failure.type) == ("not_serialisable", "NotSerialisable")
        assert what in failure.message
        assert "javascript.mjs" in failure.traceback


async def test_javascript_may_be_asynchronous_and_keep_state_between_invocations(one: Bench) -> None:
    program("node")
    source = (
        "let seen = 0;\nexport async function* handle(args, ctx) {\n  seen += 1;\n"
        "  await new Promise((go) => setTimeout(go, 5));\n  ctx.log.info('call', seen);\n  yield ['seen', seen];\n}\n"
    )
    run = await one.map(handler(source, "javascript"), [[["k", 1]]] * 2)
    assert list(run.results_of.values()) == [[["seen", [1]]], [["seen", [2]]]]
    assert run.outputs == {0: "INFO [the_mapper] call 1\n", 1: "INFO [the_mapper] call 2\n"}


@pytest.mark.parametrize(
    ("source", "class_"),
    [
        ("export function handle() { return 5; }\n", "exception"),
        ("export const handle = 5;\n", "exception"),
        ("export function* handle() { yield 5; }\n", "protocol"),
        ("export function* handle(args, ctx) { yield [1, 2]; ctx.mapTo('next'); }\n", "protocol"),
        ("export function* handle() { const all = []; for (;;) all.push([all.length]); }\n", "memory"),
        ("throw new Error('while it was read');\n", "exception"),
    ],
)
async def test_javascript_that_is_no_handler_fails_as_what_it_is(one: Bench, source: str, class_: str) -> None:
    program("node")
    failure = (await one.map(handler(source, "javascript", memory_mb=64))).failure()
    assert failure.class_ == class_, failure


async def test_perl_out_of_memory_is_told_as_that(one: Bench) -> None:
    program("perl", "-MJSON::PP", "-e", "1")
    source = "sub handle { my $all = 'x' x 300_000_000; my $more = $all . $all; }\n"
    failure = (await one.map(handler(source, "perl", memory_mb=100))).failure()
    assert failure.class_ == "memory"


async def test_lines_that_a_key_cannot_be_in_are_refused(one: Bench) -> None:
    run = await one.map(handler("cat\n", "lines"), [[["a\tb", "1"]], [["a", "1\n2\n"]], [[1, None]]])
    assert run.failure(0).class_ == "not_serialisable"
    assert run.results_of == {1: [["a", ["1", "2"]]], 2: [["1", ["null"]]]}


async def test_lines_may_be_json(one: Bench) -> None:
    source = "printf json >$MR_INVOCATION_FOLDER/values\ncat\n"
    run = await one.map(handler(source, "lines"), [[["a", [1, 2]]], [["a", "word"]]])
    assert run.results_of == {0: [["a", [[1, 2]]]]}
    assert run.failure(1).class_ == "protocol"
    assert "which is no JSON" in run.failure(1).message


async def test_a_program_need_not_read_its_lines(one: Bench) -> None:
    rows = [["k", "x" * 1000] for _ in range(1000)]
    run: Recorder = await one.map(handler("head -n 1\n", "lines"), [rows], reducer=ALL)
    assert run.result() == [["k", ["x" * 1000]]]


async def test_who_is_left_behind_with_the_pipes_keeps_nobody_waiting(one: Bench) -> None:
    run = await one.map(handler("sleep 1000 &\ncat\n", "lines"))
    assert run.result() == [["k", ["1"]]]
    failure = await failure_of(one, "import os, subprocess\nsubprocess.Popen(['sleep', '1000'])\nos._exit(4)\n")
    assert failure.class_ == "exit"


async def test_a_program_may_go_on_when_it_has_printed_all(one: Bench) -> None:
    source = "cat\nexec >&-\nsleep 0.3\necho late >&2\nexit 5\n"
    failure = await failure_of(one, source, "lines")
    assert failure.message == "ended with exit status 5: late"


async def test_a_run_of_many_quick_invocations_is_not_slow(one: Bench) -> None:
    started = time.monotonic()
    await one.map(handler(SAME), [[["k", 1]]] * 1000)
    assert time.monotonic() - started < 20, "a process for each would take minutes"


async def test_node_that_has_no_room_to_start_is_told_as_lack_of_memory() -> None:
    program("node")
    async with bench(languages=LANGUAGES, memory_bytes=400 * 1024**2) as small:
        failure = (await small.map(handler("export function* handle() { yield [1, 2]; }\n", "javascript"))).failure()
        assert failure.class_ == "memory"
        assert "it may have 400 MB (MR_HANDLER_MEMORY_MB)" in failure.message
