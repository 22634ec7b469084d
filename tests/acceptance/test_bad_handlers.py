"""Handlers that do wrong: the client is told which handler, version and invocation, and why; others never notice."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from mr.worker.family import below
from tests.acceptance.conftest import Shared
from tests.acceptance.service import Reply, eventually
from tests.acceptance.sources import ALL, FLAT, RETURN, combiner, map_to, mapper, module, note, reducer

FIRST = "yield MrConfigureToReturn()\n"
_NUMBERS = itertools.count(1)


# Says what is wrong with its surroundings, and takes a moment, so that it runs beside what the test posts.
CAREFUL = """
import gc, os, signal, sys, time
def has_children():
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
print("out")
os.write(2, b"err")
with open("file", "w") as file:
    file.write("kept")
wrong = [name for name, is_right in {
    "builtins": sum([len([1]), int("1")]) == 2 and sorted([2, 1]) == [1, 2] and isinstance(open, object),
    "folder": os.getcwd() == os.environ["TMPDIR"] and open("file").read() == "kept",
    "standard input": sys.stdin.read() == "",
    "signals": signal.getsignal(15) == signal.SIG_DFL and not signal.pthread_sigmask(0, []),
    "environment": "LEFT" not in os.environ,
    "recursion": sys.getrecursionlimit() == 1000,
    "collector": gc.isenabled(),
    "children": not has_children(),
}.items() if not is_right]
time.sleep(0.005)
yield MrConfigureToReturn()
for key, n in arguments:
    yield key, wrong or n
"""
NEIGHBOURS = 40


@pytest.fixture
def neighbour(pair: Shared) -> Any:
    """A request that shares the executors with what the test posts, and the same once more when that is over."""
    w = f"neighbour-{next(_NUMBERS)}"
    pairs = f"[('n', n) for n in range({NEIGHBOURS})]"
    pair.define(w, {"start": (map_to("leaf", pairs), FLAT), "leaf": (mapper(CAREFUL), ALL)})
    r = pair.start(w)
    yield
    for reply in (pair.result(w, r), pair.post(w)):
        assert reply.pairs == [["n", list(range(NEIGHBOURS))]]
    pair.forget(w)


def blamed(pair: Shared, w: str, reply: Reply, handler: str = "start_map", path: str = "0") -> Any:
    """The error of a reply, which must name handler, version and invocation in its body, and type in its headers."""
    error = reply.error
    assert error["handler"] == handler
    assert error["version"] == pair.parts.registry.get_handler(w, handler).version
    assert error["invocation"] == f"{reply.request_id}.{path}"
    assert reply.headers["x-mr-exception-type"] == error["type"]
    assert reply.headers["x-mr-exception-message"]
    request = pair.request(w, reply.request_id)
    assert request.failed_invocation_id == error["invocation"]
    return error


RAISES = "def deeper():\n    raise RuntimeError('no luck')\n"

WRONG = {
    "nothing first": ("if False: yield", "protocol", "yields nothing first"),
    "a pair first": ("yield 'a', 1", "protocol", "yields a tuple first"),
    "no pair": (FIRST + "yield 'a'", "protocol", "str"),
    "three instead of two": (FIRST + "yield 1, 2, 3", "protocol", "3"),
    "configures twice": (FIRST + "yield MrConfigureToReturn()", "protocol", "Return"),
    "NaN": (FIRST + "yield 'a', float('nan')", "not_serialisable", "nan"),
    "infinity": (FIRST + "yield 'a', [1.0, float('inf')]", "not_serialisable", "inf"),
    "bytes": (FIRST + "yield 'a', b'raw'", "not_serialisable", "bytes"),
    "a set": (FIRST + "yield 'a', {1}", "not_serialisable", "set"),
    "an object": (FIRST + "yield 'a', object()", "not_serialisable", "object"),
    "keys that are no text": (FIRST + "yield 'a', {1: 2}", "not_serialisable", "key"),
    "cyclic": (FIRST + "a = []\na.append(a)\nyield 'a', a", "not_serialisable", ""),
    "a lone surrogate": (FIRST + "yield 'a', chr(0xd800)", "not_serialisable", "surrogate"),
    "bytes to a child": ("yield MrConfigureToMap('start')\nyield 'a', b'raw'", "not_serialisable", "bytes"),
    "a value over the limit": (FIRST + "yield 'a', 'x' * 600_000", "output_limit", "524288"),
    "raises at once": (RAISES + "deeper()\n" + FIRST, "exception", "no luck"),
    "raises midway": (RAISES + FIRST + "yield 'a', 1\ndeeper()", "exception", "no luck"),
    "StopIteration": (FIRST + "next(iter([]))", "exception", "StopIteration"),
    "no such name": (FIRST + "yield nothing_of_the_kind, 1", "exception", "nothing_of_the_kind"),
    "no such module": ("import nothing_of_the_kind\n" + FIRST, "exception", "nothing_of_the_kind"),
    "recursion": ("def f(): return f()\n" + FIRST + "f()", "exception", "recursion"),
    "sys.exit": ("import sys\n" + FIRST + "yield 'a', 1\nsys.exit(3)", "exit", "SystemExit(3)"),
    "os._exit": ("import os\n" + FIRST + "yield 'a', 1\nos._exit(7)", "exit", "code 7"),
    "os.abort": ("import os\n" + FIRST + "yield 'a', 1\nos.abort()", "signal", "SIGABRT"),
    "a segmentation fault": ("import ctypes\n" + FIRST + "ctypes.string_at(0)", "signal", "SIGSEGV"),
    "SIGTERM to itself": ("import os, time\nos.kill(os.getpid(), 15)\ntime.sleep(60)\n" + FIRST, "signal", "SIGTERM"),
    "SIGKILL to itself": ("import os, time\nos.kill(os.getpid(), 9)\ntime.sleep(60)\n" + FIRST, "lost_worker", "KILL"),
    "SIGKILL to its group": ("import os, time\nos.killpg(0, 9)\ntime.sleep(60)\n" + FIRST, "lost_worker", "KILL"),
    "an alarm": ("import signal, time\nsignal.setitimer(0, 0.01)\ntime.sleep(60)\n" + FIRST, "signal", "SIGALRM"),
    "all memory": (FIRST + "x = bytearray(2**36)", "memory", "MR_HANDLER_MEMORY_MB"),
    "big output": (FIRST + "print(chr(1) * 3_000_000)\nraise KeyError('after')", "exception", "after"),
    "an endless message": (FIRST + "raise ValueError('no ' * 10**6)", "exception", "no no"),
    "an unknown step of a megabyte": ("yield MrConfigureToMap('x' * 10**6)\nyield 1, 1", "rejected", "xxx"),
    "a session key of a megabyte": ("S_SET('k' * 10**6, 1)\n" + FIRST, "output_limit", "session key"),
    "all descriptors closed": ("import os\nos.closerange(0, 65536)\n" + FIRST, "", ""),
    "noise on the socket": (
        "import os, stat, time\nfor n in map(int, os.listdir('/proc/self/fd')):\n"
        "    try: is_socket = stat.S_ISSOCK(os.fstat(n).st_mode)\n    except OSError: continue\n"
        "    if is_socket: os.write(n, b'\\xff' * 1000)\ntime.sleep(60)\n" + FIRST,
        "protocol",
        "frame",
    ),
}


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(("code", "class_", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_mapper_fails_its_request_and_nobody_else(
    pair: Shared, w: str, code: str, class_: str, said: str
) -> None:
    pair.define(w, {"start": (mapper(code), ALL)})
    error = blamed(pair, w, pair.post(w, {"a": 1}))
    assert error["class"] in (class_ or ("exit", "protocol", "signal"))
    assert said in error["message"]


MANY = "[(n, n) for n in range(20)]"
LEAVES = {
    "descriptors 0 to 2 closed": "import os\nos.closerange(0, 3)",
    "descriptors 0 to 2 taken": "import os\nfor n in range(3): os.dup2(os.open('/dev/zero', os.O_RDWR), n)",
    "streams closed": "import sys\nsys.stdout.close()\nsys.stderr.close()\nsys.stdin.close()",
    "descriptors eaten": (
        "import os, resource\nhard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))\n"
        "try:\n    while True: os.dup(0)\nexcept OSError: pass"
    ),
    "another folder": "import os\nos.chdir('/')",
    "its folder removed": "import os, shutil\nshutil.rmtree(os.environ['TMPDIR'], ignore_errors=True)",
    "signals ignored": "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)",
    "signals blocked": "import signal\nsignal.pthread_sigmask(0, signal.valid_signals())",
    "an alarm for later": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 0.03)",
    "a thread that sleeps": "import threading, time\nthreading.Timer(60, print).start()",
    "a thread that spins": (
        "import threading, time\nend = time.monotonic() + 0.5\n"
        "def spin():\n    while time.monotonic() < end: pass\nthreading.Thread(target=spin).start()"
    ),
    "patched builtins": (
        "import builtins\nfor name in ('len', 'open', 'print', 'sorted', 'isinstance'): setattr(builtins, name, None)"
    ),
    "environment": "import os\nos.environ['LEFT'] = 'over'",
    "a deep recursion": "import sys\nsys.setrecursionlimit(10**6)",
    "no collector": "import gc\ngc.disable()",
    "standard input": "import os, sys\nassert sys.stdin.read() == '' and os.read(0, 1) == b''",
    "children": "import subprocess\nfor n in range(3): subprocess.Popen(['sleep', '600'], start_new_session=n > 1)",
    "a storm of forks": (
        "import os, time\nme = os.getpid()\nfor _ in range(5): os.fork()\nif os.getpid() != me: time.sleep(600)"
    ),
    "its rights to files": "import os\nos.umask(0o777)",
    "a file of another": "open('big', 'wb').write(bytes(10**7))",
    "much output": "import os\nfor n in range(50): os.write(1, b'y' * 10**6)",
}


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("code", LEAVES.values(), ids=LEAVES)
def test_what_a_handler_leaves_in_its_executor_hurts_nobody(pair: Shared, w: str, code: str) -> None:
    leaf = mapper(f"{code}\n{FIRST}for key, n in arguments: yield key, n")
    pair.define(w, {"start": (map_to("leaf", MANY), ALL), "leaf": (leaf, ALL)})
    assert sorted(pair.post(w).pairs) == [[n, [[n]]] for n in range(20)]


def test_an_executor_that_clears_up_after_a_failed_handler_is_not_replaced(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    # It takes longer than an executor is given whose request is over.
    code = f"import os, time\n{note(tmp_path / 'pid', 'str(os.getpid())')}\n"
    code += "for n in range(300):\n    if not os.fork(): time.sleep(600)\nraise RuntimeError('enough')\n"
    pair.define(w, {"start": (mapper(code + FIRST), ALL)})
    assert pair.post(w).error["message"] == "enough"
    pid = int((tmp_path / "pid").read_text())
    eventually(lambda: not below(pid), "nothing is left below the executor")
    # By then it may have been due for something that others of these tests have left in it.
    log = pair.general.log + pair.gpu.log
    assert Path(f"/proc/{pid}").exists() or f"executor {pid} is replaced" in log, (pid, log[-3000:])


def test_the_traceback_has_the_lines_of_the_handler_as_it_was_stored(pair: Shared, w: str) -> None:
    source = mapper(RAISES + FIRST + "yield 'a', 1\ndeeper()")
    pair.define(w, {"start": (source, ALL)})
    traceback = pair.post(w).error["traceback"]
    lines = source.split("\n")
    for text in ("deeper()", "    raise RuntimeError('no luck')"):
        assert f'File "handler(start_map)", line {lines.index(text) + 1}' in traceback
    assert "RuntimeError: no luck" in traceback
    assert "/mr/" not in traceback


ENDS = {
    "raises": ("raise RuntimeError('no luck')", "exception", "no luck"),
    "yields no pair": ("yield 1", "protocol", "int"),
    "yields a key of bytes": ("yield b'', []", "not_serialisable", "bytes"),
    "dies": ("import os\nos._exit(5)", "exit", "code 5"),
}


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("capability", ["none", "gpu"], ids=["fused", "elsewhere"])
@pytest.mark.parametrize(("code", "class_", "said"), ENDS.values(), ids=ENDS)
def test_a_wrong_leaf_reducer_is_blamed_by_its_own_name(
    pair: Shared, w: str, code: str, class_: str, said: str, capability: str
) -> None:
    wrong = reducer(f"{code}\nif False: yield", capability=capability)
    pair.define(w, {"start": (RETURN, wrong)})
    error = blamed(pair, w, pair.post(w, {"a": 1}), "start_reduce")
    assert error["class"] == class_
    assert said in error["message"]


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(
    ("code", "class_", "said"),
    [*ENDS.values(), ("yield 'a', [b'']", "not_serialisable", "bytes"), ("yield 'a', 'no list'", "protocol", "list")],
    ids=[*ENDS, "yields a list of bytes", "yields no list"],
)
def test_a_wrong_combiner_is_blamed_by_its_own_name(pair: Shared, w: str, code: str, class_: str, said: str) -> None:
    pair.define(w, {"start": (RETURN, combiner(f"{code}\nif False: yield"), ALL)})
    error = blamed(pair, w, pair.post(w, {"a": 1}), "start_combine")
    assert error["class"] == class_
    assert said in error["message"]


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize(("code", "class_", "said"), ENDS.values(), ids=ENDS)
def test_a_wrong_upper_reducer_is_blamed_by_its_own_name(
    pair: Shared, w: str, code: str, class_: str, said: str
) -> None:
    wrong = reducer(f"{code}\nif False: yield")
    pair.define(w, {"start": (map_to("leaf", "[(1, 1), (2, 2)]"), wrong), "leaf": (RETURN, ALL)})
    error = blamed(pair, w, pair.post(w), "start_reduce")
    assert error["class"] == class_
    assert said in error["message"]


@pytest.mark.usefixtures("neighbour")
def test_of_many_children_exactly_the_wrong_one_is_blamed(pair: Shared, w: str) -> None:
    leaf = mapper(FIRST + "for k, n in arguments:\n    if n == 37: raise KeyError(n)\n    yield k, n")
    pair.define(w, {"start": (map_to("leaf", "[('n', n) for n in range(60)]"), ALL), "leaf": (leaf, ALL)})
    error = blamed(pair, w, pair.post(w), "leaf_map", "0.37")
    assert (error["type"], error["message"]) == ("KeyError", "37")


@pytest.mark.usefixtures("neighbour")
def test_of_many_children_exactly_the_one_that_killed_its_executor_is_blamed(pair: Shared, w: str) -> None:
    leaf = mapper("import os\n" + FIRST + "for k, n in arguments:\n    if n == 37: os._exit(9)\n    yield k, n")
    pair.define(w, {"start": (map_to("leaf", "[('n', n) for n in range(60)]"), ALL), "leaf": (leaf, ALL)})
    error = blamed(pair, w, pair.post(w), "leaf_map", "0.37")
    assert (error["class"], error["attempt"]) == ("exit", 2)


HANDLE = "def handle({argument}, ctx):\n    {code}\n    yield 'a', 1"
LOOP = "while True: pass"
ENDLESS = {
    "loops": LOOP,
    "sleeps": "import time; time.sleep(60)",
    "prints": "while True: print('all work and no play')",
    "ignores signals": "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)",
    "waits for a child": "import subprocess; subprocess.run(['setsid', 'sleep', '600'])",
    "holds the interpreter": "import ctypes; ctypes.PyDLL(None).sleep(60)",
    "forks": "import os, time; [os.fork() for _ in range(5)]; time.sleep(600)",
}


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("code", ENDLESS.values(), ids=ENDLESS)
def test_a_mapper_is_ended_when_its_time_is_over(pair: Shared, w: str, code: str) -> None:
    slow = module("mapper", HANDLE.format(argument="arguments", code=code), timeout_s=0.2)
    pair.define(w, {"start": (slow, ALL)})
    error = blamed(pair, w, pair.post(w))
    assert (error["class"], error["attempt"]) == ("timeout", 1)
    assert "0.2 s" in error["message"]


@pytest.mark.usefixtures("neighbour")
@pytest.mark.parametrize("capability", ["none", "gpu"], ids=["fused", "elsewhere"])
def test_a_leaf_reducer_is_ended_when_its_own_time_is_over(pair: Shared, w: str, capability: str) -> None:
    code = HANDLE.format(argument="results", code=LOOP)
    pair.define(w, {"start": (RETURN, module("reducer", code, timeout_s=0.2, capability=capability))})
    error = blamed(pair, w, pair.post(w), "start_reduce")
    assert error["class"] == "timeout"


@pytest.mark.usefixtures("neighbour")
def test_a_combiner_is_ended_when_its_own_time_is_over(pair: Shared, w: str) -> None:
    code = HANDLE.format(argument="results", code=LOOP)
    pair.define(w, {"start": (RETURN, module("combiner", code, timeout_s=0.2), ALL)})
    error = blamed(pair, w, pair.post(w), "start_combine")
    assert error["class"] == "timeout"


def test_the_time_of_a_mapper_is_not_that_of_its_reducer(pair: Shared, w: str) -> None:
    """Each has 0.4 s, and together they take more."""
    mapping = "import time\n    time.sleep(0.25)"
    pair.define(
        w,
        {
            "start": (
                module("mapper", HANDLE.format(argument="arguments", code=mapping), timeout_s=0.4),
                module("reducer", HANDLE.format(argument="results", code=mapping), timeout_s=0.4),
            )
        },
    )
    assert pair.post(w).pairs == [["a", 1]]


def test_a_handler_that_raises_is_tried_once_by_default(pair: Shared, w: str, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    pair.define(w, {"start": (mapper(note(notes) + FIRST + "raise ValueError('no')"), ALL)})
    assert blamed(pair, w, pair.post(w))["attempt"] == 1
    assert notes.read_text().splitlines() == ["."]


# Fails `fails` times, by a file as its memory.
MEMORY = """
import os, sys

def handle({argument}, ctx):
    with open({notes!r}, "a+") as notes:
        notes.seek(0)
        before = len(notes.readlines())
        notes.write("tried\\n")
    if before < {fails}:
        {how}
    yield "a", before
"""


@pytest.mark.parametrize("how", ["raise ValueError('not yet')", "os._exit(1)", "sys.exit(1)", "os.abort()"])
@pytest.mark.parametrize("role", ["mapper", "reducer"])
def test_three_attempts_make_a_handler_succeed_that_fails_twice(
    pair: Shared, w: str, tmp_path: Path, how: str, role: Any
) -> None:
    notes = str(tmp_path / "notes")
    argument = "arguments" if role == "mapper" else "results"
    source = module(role, MEMORY.format(argument=argument, notes=notes, fails=2, how=how), attempts=3)
    pair.define(w, {"start": (source, ALL) if role == "mapper" else (RETURN, source)})
    reply = pair.post(w, {"x": 1})
    assert reply.pairs == [["a", [2] if role == "mapper" else 2]]
    attempts = {key: value for key, value in pair.facts(w, reply.request_id).items() if key.startswith("attempt/")}
    assert len(attempts) == 2


def test_a_handler_that_fails_more_often_than_it_has_attempts_fails_with_the_last(
    pair: Shared, w: str, tmp_path: Path
) -> None:
    code = MEMORY.format(argument="arguments", notes=str(tmp_path / "notes"), fails=9, how="raise ValueError(before)")
    pair.define(w, {"start": (module("mapper", code, attempts=3), ALL)})
    error = blamed(pair, w, pair.post(w))
    assert (error["message"], error["attempt"]) == ("2", 3)


@pytest.mark.parametrize(("fails", "succeeds"), [(1, True), (2, False)])
def test_an_executor_that_ends_by_itself_gets_a_second_try(
    pair: Shared, w: str, tmp_path: Path, fails: int, succeeds: bool
) -> None:
    notes = tmp_path / "notes"
    code = MEMORY.format(argument="arguments", notes=str(notes), fails=fails, how="os._exit(1)")
    pair.define(w, {"start": (module("mapper", code), ALL)})
    reply = pair.post(w)
    if succeeds:
        assert reply.pairs == [["a", [1]]]
    else:
        assert blamed(pair, w, reply)["attempt"] == 2
    assert notes.read_text().splitlines() == ["tried"] * 2


def test_a_mapper_is_not_run_again_when_its_reducer_fails(pair: Shared, w: str, tmp_path: Path) -> None:
    notes = tmp_path / "mapped"
    source = MEMORY.format(argument="results", notes=str(tmp_path / "notes"), fails=2, how="raise ValueError()")
    pair.define(w, {"start": (mapper(note(notes) + FIRST + "yield 1, 1"), module("reducer", source, attempts=3))})
    assert pair.post(w).pairs == [["a", 2]]
    assert notes.read_text().splitlines() == ["."]
