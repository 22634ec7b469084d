"""Handlers that break things: exactly the child that ran is blamed, and nothing else suffers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mr.rules import limits
from mr.services.isolation import Cgroup
from mr.worker import frames
from mr.worker.frames import Limits
from tests.unit.executors import RETURN, SAME, Bench, Recorder, bench, until

pytestmark = pytest.mark.kills

MAP = "yield MrConfigureToMap('next')\n"


@pytest.fixture
async def one() -> Any:
    async with bench() as running:
        yield running


async def healthy(one: Bench) -> None:
    """The executor still works, with everything in place."""
    run = await one.map("import os\nprint('out', os.getcwd() != '/')\nos.write(1, b'fd')\n" + SAME)
    assert run.result() == [["k", [1]]]
    assert run.outputs == {0: "out True\nfd"}


@pytest.mark.parametrize(
    ("source", "type_", "line"),
    [
        ("raise ValueError('at once')\nyield\n", "ValueError", 1),
        (RETURN + "yield 1, 1\nraise OSError('midway')\n", "OSError", 3),
        (RETURN + "for n in range(5000):\n    yield n, n\nraise OSError('late')\n", "OSError", 4),
        (RETURN + "raise StopIteration\n", "RuntimeError", 2),
        ("assert not arguments\nyield\n", "AssertionError", 1),
        (RETURN + "class Odd(BaseException):\n    pass\nraise Odd\n", "Odd", 4),
        ("class Mute(Exception):\n    def __str__(self): raise TypeError\nraise Mute\nyield\n", "Mute", 3),
    ],
)
async def test_what_a_handler_raises_is_its_failure(one: Bench, source: str, type_: str, line: int) -> None:
    failure = (await one.map(source)).failure()
    assert (failure.class_, failure.type) == ("exception", type_)
    assert f'File "handler(the_mapper)", line {line}' in failure.traceback
    await healthy(one)


@pytest.mark.parametrize(
    "how", ["import sys; sys.exit(0)", "raise SystemExit", "raise KeyboardInterrupt", "raise GeneratorExit"]
)
@pytest.mark.parametrize("first", ["", RETURN])
async def test_leaving_is_never_success(one: Bench, how: str, first: str) -> None:
    failure = (await one.map(f"{first}{how}\nyield\n")).failure()
    assert failure.class_ == "exit"
    failure = (await one.map(SAME, reducer=f"{how}\nyield\n")).failure()
    assert (failure.class_, failure.kind) == ("exit", "reduce")
    await healthy(one)


async def test_a_handler_that_resists_being_closed_fails_all_the_same(one: Bench) -> None:
    for last in ("yield 1, 2", "raise SystemExit", "1 / 0"):
        source = f"{RETURN}try:\n    yield 1, {{1}}\nfinally:\n    print('closing')\n    {last}\n"
        run = await one.map(source)
        assert run.failure().class_ == "not_serialisable"
        assert run.outputs[0].startswith("closing\nWARNING")
    await healthy(one)


async def death_of(one: Bench, source: str, **options: Any) -> Recorder:
    """Run two good children, then the bad one as child 2; wait for the end of the executor."""
    mapper = (
        "if arguments[0][1] < 2:\n    import time; time.sleep(0.05)\nelse:\n    print('last words')\n    exec(BAD)\n"
    )
    run = one.start_map(f"BAD = {source!r}\n" + mapper + SAME, [[["k", n]] for n in range(5)], **options)
    await one.death()
    return run


@pytest.mark.parametrize(
    ("source", "class_", "detail"),
    [
        ("import os; os._exit(0)", "exit", "exited with code 0"),
        ("import os; os._exit(3)", "exit", "exited with code 3"),
        ("import os; os.abort()", "signal", "SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "signal", "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "lost_worker", "killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 15)", "signal", "SIGTERM"),
        ("import signal, os; os.kill(os.getpid(), signal.SIGXCPU)", "signal", "SIGXCPU"),
    ],
)
async def test_a_death_blames_exactly_the_child_that_ran(one: Bench, source: str, class_: str, detail: str) -> None:
    run = await death_of(one, source)
    [how] = one.exits
    assert (how.class_, how.detail, how.run, how.child) == (class_, detail, 1, 2)
    assert "last words" in how.output
    assert sorted(run.results_of) == [0, 1]
    assert not run.done.done()
    if "SEGV" in detail:
        assert 'File "handler(the_mapper)"' in how.output


@pytest.mark.parametrize(
    "loop",
    [
        "while True: pass",
        "import time; time.sleep(1e9)",
        "import ctypes; ctypes.PyDLL(None).sleep(1000)",
        "import signal as s\ns.signal(15, s.SIG_IGN)\ns.pthread_sigmask(0, s.valid_signals())\nwhile True: pass",
    ],
)
async def test_an_endless_child_is_seen_and_killed(one: Bench, loop: str) -> None:
    run = one.start_map(f"print('started')\n{loop}\nyield\n", [[["k", 1]]], first=40)

    def over() -> bool:
        current = one.process.current()
        return current is not None and current.child == 40 and current.seconds > 0.2

    await until(over, "a timeout")
    how = await asyncio.wait_for(one.process.kill(), 2)
    assert (how.class_, how.child, how.output) == ("killed", 40, "started\n")
    assert one.exits == [how]
    assert not run.order


async def test_killing_takes_the_whole_process_group(one: Bench) -> None:
    source = "import subprocess\np = subprocess.Popen(['sleep', '1000'])\nprint(p.pid, flush=True)\np.wait()\nyield\n"
    one.start_map(source)
    await until(lambda: one.process.printed().endswith("\n"), "the child process")
    pid = int(one.process.printed())
    await one.process.kill()
    await until(lambda: not _lives(pid), "the end of the group")


async def test_a_dead_executor_leaves_no_process_behind(one: Bench) -> None:
    source = "import subprocess, os\np = subprocess.Popen(['sleep', '1000'])\nprint(p.pid)\nos._exit(1)\nyield\n"
    one.start_map(source)
    how = await one.death()
    pid = int(how.output)
    await until(lambda: not _lives(pid), "the end of the group")


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_endless_printing_takes_no_memory_and_is_cut(one: Bench) -> None:
    limit = 64 * 1024
    native = "import os\nfor n in range(3000):\n    os.write(1, b'y' * 100000)\nimport time; time.sleep(0.3)\n"
    run = one.start_map(native + SAME, limits=Limits(output=limit))
    await one.finish(run)
    assert run.outputs[0] == "y" * limit + f"\n… output cut at {limit} bytes (MR_HANDLER_OUTPUT_MB)"
    one.start_map("while True:\n    print('all work and no play')\nyield\n", limits=Limits(output=limit))
    await until(lambda: len(one.process.printed()) > limit, "a full output")
    how = await one.process.kill()
    assert how.output.endswith(f"\n… output cut at {limit} bytes (MR_HANDLER_OUTPUT_MB)")


async def test_output_that_no_record_takes_does_not_leave_the_executor(one: Bench) -> None:
    most = limits.OUTPUT_MAX
    run = await one.map(f"import os\nos.write(1, b'y' * {2 * most})\nraise ValueError\nyield\n")
    assert run.failure().output == "y" * most + f"\n… output cut at {most} bytes (what a record takes)"
    run = await one.map(f"import os\nos.write(1, b'y' * {most})\n" + SAME)
    assert run.outputs[0] == "y" * most


async def test_memory_of_endless_output_is_given_back(one: Bench) -> None:
    one.start_map("import os\nwhile True:\n    os.write(1, b'y' * 1000000)\nyield\n", limits=Limits(output=1000))
    inode = one.process._output
    await until(lambda: os.fstat(inode).st_size > 300_000_000, "300 MB of output")
    smallest = [os.fstat(inode).st_blocks]

    def given_back() -> bool:
        smallest.append(os.fstat(inode).st_blocks)
        return any(later < before for before, later in pairwise(smallest))

    await until(given_back, "memory given back")


@pytest.mark.parametrize(
    ("value", "class_", "said"),
    [
        ("float('nan')", "not_serialisable", "$ is nan"),
        ("[1, float('-inf')]", "not_serialisable", "$[1] is -inf"),
        ("b'bytes'", "not_serialisable", "$ is a bytes"),
        ("{1, 2}", "not_serialisable", "$ is a set"),
        ("object()", "not_serialisable", "$ is a object"),
        ("{1: 'a'}", "not_serialisable", "keys of objects must be str"),
        ("'\\ud800'", "not_serialisable", "lone surrogate"),
        ("['\\udfff']", "not_serialisable", "lone surrogate"),
        ("cycle", "not_serialisable", "holds itself"),
        ("deep", "not_serialisable", "nested deeper"),
        ("type('Sly', (str,), {'__repr__': None})('x')", "not_serialisable", "$ is a Sly"),
        ("type('Sly', (dict,), {'__iter__': None})()", "not_serialisable", "$ is a Sly"),
        ("'x' * 600000", "output_limit", "limit"),
        ("['x' * 300000] * 2", "output_limit", "limit"),
        ("10 ** 5000", "not_serialisable", "4300 digits"),
    ],
)
async def test_what_json_cannot_hold_is_refused_everywhere(one: Bench, value: str, class_: str, said: str) -> None:
    before = "cycle = []\ncycle.append(cycle)\ndeep = []\nfor _ in range(10000):\n    deep = [deep]\n"
    many = "for n in range(2000):\n    yield n, n\n"
    for mapper in (
        RETURN + f"yield 'k', {value}\n",
        RETURN + many + f"yield 'k', {value}\n",
        MAP + f"yield 'k', {value}\n",
    ):
        failure = (await one.map(before + mapper)).failure()
        assert failure.class_ == class_
        assert said in failure.message
        assert "step the_step: mapper the_mapper" in failure.message
    assert (await one.map(before + RETURN + f"yield {value}, 1\n")).failure().class_ == class_
    failure = (await one.map(SAME, reducer=before + f"yield 'k', {value}\n")).failure()
    assert (failure.class_, failure.kind, failure.returned) == (class_, "reduce", True)
    assert (await one.map(SAME, combiner=before + f"yield 'k', [{value}]\n")).failure().class_ == class_
    assert (await one.reduce(before + f"yield 'k', {value}\n", "rows", [])).failure(5).class_ == class_
    await healthy(one)


async def test_deep_recursion_is_an_exception(one: Bench) -> None:
    failure = (await one.map("def f(): return f()\nf()\nyield\n")).failure()
    assert (failure.class_, failure.type) == ("exception", "RecursionError")
    assert len(failure.traceback) < 5000
    failure = (await one.map("import sys\nsys.setrecursionlimit(50000)\n" + SAME)).result()
    assert (await one.map("import sys\n" + RETURN + "yield 1, sys.getrecursionlimit()\n")).result() == [[1, [1000]]]


async def test_memory_beyond_the_limit_is_a_memory_failure() -> None:
    async with bench(memory_bytes=300_000_000) as one:
        failure = (await one.map("x = bytearray(10**9)\nyield\n")).failure()
        assert (failure.class_, failure.type) == ("memory", "MemoryError")
        failure = (await one.map("x = []\nwhile True:\n    x.append('y' * 100000 + str(len(x)))\nyield\n")).failure()
        assert failure.class_ == "memory"
        await healthy(one)


async def test_closing_all_low_descriptors_hurts_only_the_handler_itself(one: Bench) -> None:
    run = await one.map("import os\nos.closerange(0, 101)\nprint('still')\n" + SAME)
    assert run.result() == [["k", [1]]]
    assert run.outputs[0] == "still\n"
    await healthy(one)
    run = await one.map("import os\nfor n in range(3):\n    os.dup2(os.open('x', os.O_RDWR | os.O_CREAT), n)\n" + SAME)
    await healthy(one)


async def test_closing_every_descriptor_ends_the_executor_and_is_blamed_on_the_child(one: Bench) -> None:
    await death_of(one, "import os; os.closerange(0, 100000)")
    assert one.exits[0].class_ in ("exit", "protocol")
    assert one.exits[0].child == 2


async def test_writing_to_the_protocol_descriptor_ends_only_the_executor(one: Bench) -> None:
    source = (
        "import os, stat\nfor n in map(int, os.listdir('/proc/self/fd')):\n"
        "    try:\n        mode = os.fstat(n).st_mode\n    except OSError:\n        continue\n"
        "    if stat.S_ISSOCK(mode):\n        os.write(n, b'\\xff' * 1000)\nimport time; time.sleep(60)\nyield\n"
    )
    one.start_map(source)
    how = await one.death()
    assert how.class_ == "protocol"
    assert how.child == 0


async def test_forged_frames_of_the_right_form_do_not_stop_the_supervisor(one: Bench) -> None:
    forged = json.dumps({"t": "finished", "id": 999, "next": 1})
    source = (
        "import os, stat, struct\nfor n in map(int, os.listdir('/proc/self/fd')):\n"
        "    try:\n        mode = os.fstat(n).st_mode\n    except OSError:\n        continue\n"
        f"    if stat.S_ISSOCK(mode):\n        data = {forged.encode()!r}\n"
        "        os.write(n, struct.pack('<II', len(data), 0) + data)\nimport time; time.sleep(60)\nyield\n"
    )
    one.start_map(source)
    how = await one.death()
    assert (how.class_, "run 999" in how.detail) == ("protocol", True)


async def test_patched_builtins_and_modules_do_not_break_the_executor(one: Bench) -> None:
    source = (
        "import builtins, sys, os, io, time, itertools, msgspec\n"
        "for name in ('len', 'type', 'isinstance', 'print', 'sum', 'sorted', 'map', 'dict', 'str', 'int', 'max'):\n"
        "    setattr(builtins, name, None)\n"
        "builtins.open = builtins.repr = None\n"
        "__builtins__['iter'] = __builtins__['next'] = None\n"
        "sys.stdout = sys.stderr = None\nsys.argv = None\nos.environ['LEFT'] = 'over'\nos.chdir('/')\nos.umask(0)\n"
        "time.monotonic = os.lseek = os.write = msgspec.json.encode = None\nsys.path.clear()\n"
    )
    patched = await one.map(source + SAME + "yield {'a': [1.5]}, (1, None)\n", [[["k", n]] for n in range(300)])
    assert patched.result(299) == [["k", [299]], [{"a": [1.5]}, [[1, None]]]]
    assert (await one.map(source + "raise ValueError('x')\nyield\n")).failure().type == "ValueError"
    after = "import os\n" + RETURN + "yield len([1]), [os.environ.get('LEFT'), os.getcwd() == '/', os.umask(0o77)]\n"
    assert (await one.map(after)).result() == [[1, [[None, False, 0o77]]]]
    print_again = await one.map("print(sum([1, 2]))\n" + SAME)
    assert print_again.outputs == {0: "3\n"}


async def test_a_handler_that_closes_its_streams_does_not_silence_the_next(one: Bench) -> None:
    await one.map("import sys\nsys.stdout.close()\nsys.stderr.close()\nsys.stdin.close()\n" + SAME)
    await healthy(one)


async def test_a_fork_that_leaves_the_generator_does_not_answer_twice(one: Bench) -> None:
    source = "import os\npid = os.fork()\nif not pid:\n    os._exit(0)\nos.waitpid(pid, 0)\n" + SAME
    run = await one.map(source, [[["k", n]] for n in range(5)])
    assert sorted(run.results_of) == list(range(5))
    await healthy(one)


async def test_a_forked_child_that_goes_on_as_if_it_were_the_executor_is_not_heard(one: Bench) -> None:
    source = "import os\nos.fork()\n" + SAME
    run = await one.map(source, [[["k", 1]]])
    assert run.result() == [["k", [1]]]
    # What the child still prints goes to whoever runs next: they share one output. It must not end a run.
    again = await one.map(SAME, [[["k", 1]]])
    assert again.result() == [["k", [1]]]


async def test_an_exit_while_idle_is_reported(one: Bench) -> None:
    await one.map(
        "import threading, os, time\nthreading.Timer(0.05, lambda: os.kill(os.getpid(), 15)).start()\n" + SAME
    )
    how = await one.death()
    assert (how.class_, how.detail, how.run, how.child) == ("signal", signal.SIGTERM.name, None, None)


LEFT_BEHIND = {
    "a child": "subprocess.Popen(['sleep', '1000'])",
    "a session": "subprocess.Popen(['sleep', '1000'], start_new_session=True)",
    "an orphan": "subprocess.run(['sh', '-c', 'setsid sleep 1000 &'])",
    "one that ignores signals": "subprocess.Popen(['sh', '-c', \"trap '' HUP INT TERM; sleep 1000; sleep 1000\"])",
    "a fork": "os.fork() or time.sleep(1000)",
    "forks of forks": "[os.fork() for _ in range(5)] and os.getpid() != me and time.sleep(1000)",
}
SLEEPERS = "import os, subprocess, time\nme = os.getpid()\n"


def _marked(folder: str) -> list[int]:
    """Processes that live and were started for the executor with this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TMPDIR={folder}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [pid for pid in found if _lives(pid)]


@pytest.mark.parametrize("start", LEFT_BEHIND.values(), ids=LEFT_BEHIND)
async def test_what_a_handler_leaves_running_ends_with_its_run(one: Bench, start: str) -> None:
    folder = (await one.map("import os\n" + RETURN + "yield os.getcwd(), 1\n")).result()[0][0]
    run = await one.map(SLEEPERS + start + "\n" + SAME)
    assert run.result() == [["k", [1]]]
    assert _marked(folder) == [one.process.pid]
    await healthy(one)


@pytest.mark.parametrize("start", LEFT_BEHIND.values(), ids=LEFT_BEHIND)
@pytest.mark.parametrize("end", ["os._exit(3)", "time.sleep(1000)"], ids=["dies", "is killed"])
@pytest.mark.parametrize("has_cgroup", [True, False], ids=["cgroup", "no cgroup"])
async def test_what_a_handler_leaves_running_ends_with_its_executor(start: str, end: str, has_cgroup: bool) -> None:
    cgroup = Cgroup.own() if has_cgroup else Cgroup(None)
    level = cgroup.prepare()
    if has_cgroup and level.processes != "cgroup":
        pytest.skip("this process may make no cgroup of version 2 here")
    async with bench(cgroup=cgroup) as one:
        ending = f"if os.getpid() == me:\n    print(os.getcwd())\n    {end}\nyield\n"
        one.start_map(SLEEPERS + start + "\n" + ending)
        await until(lambda: one.process.printed().endswith("\n") or one.exits, "the last words")
        if "sleep" in end:
            await one.process.kill()
        how = await one.death()
        assert _marked(how.output.strip()) == []


async def test_a_storm_of_forks_is_ended(one: Bench) -> None:
    """Sixty-four processes that go on, each with a grandchild."""
    source = SLEEPERS + (
        "for _ in range(6):\n    os.fork()\nif os.getpid() != me:\n"
        "    subprocess.Popen(['sleep', '1000'], start_new_session=True)\n    time.sleep(1000)\n"
    )
    folder = (await one.map("import os\n" + RETURN + "yield os.getcwd(), 1\n")).result()[0][0]
    assert (await one.map(source + SAME)).result() == [["k", [1]]]
    assert _marked(folder) == [one.process.pid]
    await healthy(one)


def left(run: Recorder) -> str:
    """What the executor said was left in it."""
    frame = run.order[-1]
    assert isinstance(frame, frames.Finished)
    return frame.left


async def test_what_cannot_be_put_back_is_reported(one: Bench) -> None:
    assert left(await one.map(SAME)) == ""
    eaten = "import resource, os\nsoft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]\n"
    eaten += "if soft > 4096:\n    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
    eaten += "for n in range(20000):\n    try:\n        os.dup(0)\n    except OSError:\n        break\n"
    thread = "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n"
    assert left(await one.map(thread + SAME)) == "threads"
    assert left(await one.map(eaten + SAME)) == "descriptors"


async def test_an_executor_whose_folder_is_gone_says_so(one: Bench) -> None:
    assert left(await one.map("import os, shutil\nshutil.rmtree(os.getcwd())\n" + SAME)) == "no folder"


async def test_what_a_handler_did_to_its_process_is_put_back(one: Bench) -> None:
    source = (
        "import gc, os, shutil, signal, sys\n"
        "shutil.rmtree(os.getcwd())\n"
        "gc.disable()\nsys.settrace(lambda *_: None)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nsignal.signal(signal.SIGINT, lambda *_: os._exit(9))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.02)\nsignal.pthread_sigmask(0, signal.valid_signals())\n"
    )
    assert (await one.map(source + SAME)).result() == [["k", [1]]]
    after = (
        "import gc, os, signal, sys, time\ntime.sleep(0.05)\nopen('file', 'w').write('kept')\n" + RETURN + "yield 1, "
        "[gc.isenabled(), sys.gettrace() is None, signal.getsignal(15) == signal.SIG_DFL, "
        "signal.getsignal(2) in (signal.default_int_handler, signal.SIG_IGN), "
        "signal.pthread_sigmask(0, []) == set()]\n"
    )
    assert (await one.map(after)).result() == [[1, [[True] * 5]]]
    await healthy(one)


async def test_stdin_is_empty_and_stays_so(one: Bench) -> None:
    source = "import os, sys\nassert sys.stdin.read() == '' and os.read(0, 10) == b''\nos.close(0)\n" + SAME
    assert (await one.map(source)).result() == [["k", [1]]]
    assert (await one.map(source)).result() == [["k", [1]]]


async def test_the_limit_of_a_header_holds_for_its_handler_alone() -> None:
    async with bench(memory_bytes=400 * 2**20) as one:
        source = "x = bytearray({} * 2**20)\n" + SAME
        small = await one.map(source.format(150), memory_mb=100)
        assert small.failure().class_ == "memory"
        assert "100 MB (memory_mb of handler the_mapper)" in small.failure().message
        assert (await one.map(source.format(30), memory_mb=100)).result()
        assert (await one.map(source.format(300))).result()
        most = await one.map(source.format(450), memory_mb=1000)
        assert "400 MB (MR_HANDLER_MEMORY_MB)" in most.failure().message
