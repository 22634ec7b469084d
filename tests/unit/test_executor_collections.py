"""`COLLECTIONS` in a real executor: what goes out, what comes back, and who is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mr.adapters.stores.sqlite import SqliteStore
from mr.codec import Items
from mr.errors import MrError, StoreUnavailable
from mr.model import operation
from mr.ports.store import Store
from mr.rules import keys
from mr.services import collections
from mr.services.collections import Collections
from mr.worker import frames
from mr.worker.log import Hooks
from tests.unit.executors import ALL, RETURN, Bench, Recorder, bench, until

Perform = Callable[[str, operation.Operation, bytes], collections.Answer]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = SqliteStore(str(tmp_path / "mr.db"))
    yield store
    store.close()


@pytest.fixture
def shared(store: Store) -> Collections:
    return Collections(store)


def answering(one: Bench, recorder: Recorder, perform: Perform, workflow: str = "flow") -> None:
    """Answer what the handlers of a run ask, as the supervisor would."""

    def answer(call: frames.Call, body: bytes) -> None:
        try:
            found = perform(workflow, call.operation, body)
        except MrError as error:
            one.process.answer(frames.Answer(code=error.code, message=str(error)), Items.of([]))
        else:
            one.process.answer(frames.Answer(more=found.more), Items.of(found.documents))

    recorder.answers = answer


def performing(shared: Collections) -> Perform:
    return partial(shared.perform, pause=lambda seconds: None)


async def run(one: Bench, source: str, shared: Collections, **options: Any) -> Recorder:
    recorder = one.start_map(source, **options)
    answering(one, recorder, performing(shared), options.get("workflow", "flow"))
    await one.finish(recorder)
    return recorder


async def test_a_handler_of_either_form_has_queues(shared: Collections) -> None:
    source = (
        "seen = COLLECTIONS.queue('seen')\n"
        "numbers = [seen.append(value) for value in ('a', None, {'b': [1.5]})]\n"
        "again = [seen.append('first', key='k/1'), seen.append('second', key='k/1')]\n"
        f"{RETURN}yield 'got', [numbers, again, len(seen), list(seen.items()), list(seen.items(after=2)),\n"
        "              seen.get(2), seen.get(99), seen.get(99, 'none'), seen.get(1, 'none'), bool(seen)]\n"
    )
    module = (
        "def handle(arguments, ctx):\n    seen = ctx.collections.queue('seen')\n    seen.append('m')\n"
        "    yield 'items', [value for _, value in seen.items()]\n    seen.clear()\n    yield 'left', len(seen)\n"
    )
    async with bench() as one:
        [[_, [got]]] = (await run(one, source, shared)).result()
        items = [[0, "a"], [1, None], [2, {"b": [1.5]}], [3, "first"]]
        assert got == [[0, 1, 2], [3, 3], 4, items, items[3:], {"b": [1.5]}, None, "none", None, True]
        found = (await run(one, module, shared)).result()
        assert found == [["items", [["a", None, {"b": [1.5]}, "first", "m"]]], ["left", [0]]]


async def test_a_handler_has_trees(shared: Collections) -> None:
    source = (
        "tree = COLLECTIONS.tree('totals')\n"
        "tree.put(1, 'a'); tree.put([2], 'a', 'x/y'); tree.put(None, 'b', 'ключ'); tree.at('b').put(3, 'c')\n"
        f"{RETURN}yield 'got', [list(tree.children()), list(tree.at('a').children()), tree.get('a'), tree.get('b'),\n"
        "    tree.get('b', default=0), tree.get('a', 'x/y'), tree.at('b').get('ключ', default=0),\n"
        "    [list(path) for path, _ in tree.walk()], [value for _, value in tree.walk()]]\n"
        "tree.remove('a')\nyield 'left', [list(path) for path, _ in tree.walk()]\n"
    )
    async with bench() as one:
        [_, [got]], [_, [left]] = (await run(one, source, shared)).result()
        assert got == [
            ["a", "b"], ["x/y"], 1, None, 0, [2], None,
            [["a"], ["a", "x/y"], ["b", "ключ"], ["b", "c"]], [1, [2], None, 3],
        ]  # fmt: skip
        assert left == [["b", "ключ"], ["b", "c"]]


async def test_reducers_and_combiners_share_with_mappers(shared: Collections) -> None:
    combiner = "COLLECTIONS.queue('q').append('combiner')\nfor key, value in results:\n    yield key, [value]\n"
    reducer = "COLLECTIONS.queue('q').append('reducer')\nfor key, values in results:\n    yield key, values\n"
    async with bench() as one:
        mapper = f"COLLECTIONS.queue('q').append('mapper')\n{RETURN}yield 1, 1\n"
        assert (await run(one, mapper, shared, combiner=combiner, reducer=reducer)).result() == [[1, [1]]]
        recorder = one.start_reduce(reducer)
        answering(one, recorder, performing(shared))
        await one.process.send_input("rows", Items.of([b"[1,[2]]"]))
        one.process.end_input()
        await one.finish(recorder)
    queue = shared.queue("flow", "q")
    assert [value for _, value in queue.items()] == [b'"mapper"', b'"combiner"', b'"reducer"', b'"reducer"']


async def test_children_that_an_executor_goes_on_with_share_as_well(shared: Collections) -> None:
    append = "COLLECTIONS.queue('q').append(%r)\n"
    mapper = f"{append % 'mapper'}yield MrConfigureToMap('leaf')\nfor n in range(3):\n    yield 'k', n\n"
    leaf = f"{append % 'leaf'}{RETURN}yield 'length', len(COLLECTIONS.queue('q'))\n"
    async with bench() as one:
        recorder = one.start_map(mapper, [[["k", 1]], [["k", 2]]], reducer=append % "above" + ALL, below=(leaf, ALL))
        answering(one, recorder, performing(shared))
        assert await one.finish(recorder) == 2
    values = [value for _, value in shared.queue("flow", "q").items()]
    assert values == 2 * [b'"mapper"', b'"leaf"', b'"leaf"', b'"leaf"', b'"above"']
    assert recorder.lists[(1, "reduce"), "pairs"] == [["length", [[7], [8], [9]]]]


async def test_many_items_and_nodes_are_read_page_by_page_as_they_are_wanted(shared: Collections) -> None:
    asked: list[operation.Operation] = []
    queue, tree = shared.queue("flow", "q"), shared.tree("flow", "t")
    count = 2 * collections.PAGE + 1
    for number in range(count):
        queue.append(b"%d" % number)
        tree.put(b"1", f"{number:03}", "x")

    def perform(w: str, one: operation.Operation, value: bytes) -> collections.Answer:
        asked.append(one)
        return performing(shared)(w, one, value)

    source = (
        f"{RETURN}yield 'sum', sum(value for _, value in COLLECTIONS.queue('q').items())\n"
        "yield 'first', next(iter(COLLECTIONS.queue('q').items()))[1]\n"
        "yield 'nodes', len(list(COLLECTIONS.tree('t').walk()))\n"
        "yield 'last', list(COLLECTIONS.tree('t').children())[-1]\n"
    )
    async with bench() as one:
        recorder = one.start_map(source)
        answering(one, recorder, perform)
        await one.finish(recorder)
        assert dict(map(tuple, recorder.result())) == {
            "sum": [sum(range(count))], "first": [0], "nodes": [count], "last": [f"{count - 1}"],
        }  # fmt: skip
    assert [type(one).__name__ for one in asked] == ["Items"] * 4 + ["Walk"] * 3 + ["Children"]


BAD = "not_serialisable", "NotSerialisable"
WRONG = "exception", "TypeError"
REFUSED = "exception", "ValueRefused"


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("COLLECTIONS.queue('q').append({1})", BAD, "a value for queue q cannot be kept: $ is a set"),
        ("COLLECTIONS.tree('t').put(float('nan'), 'a')", BAD, "a value for tree t cannot be kept"),
        ("COLLECTIONS.tree('t').get('\\ud800')", BAD, "a lone surrogate"),
        ("COLLECTIONS.queue('q').append('x' * 600_000)", ("output_limit", "OutputLimit"), "one record takes 524288"),
        ("COLLECTIONS.queue('../x')", ("exception", "InvalidName"), "queue name '../x' is not allowed"),
        ("COLLECTIONS.tree('')", ("exception", "InvalidName"), "tree name '' is not allowed"),
        ("COLLECTIONS.queue(1)", WRONG, "is a str, not int"),
        ("COLLECTIONS.queue('q').get('1')", WRONG, "is an int, not str"),
        ("COLLECTIONS.tree('t').put(1, 'a', 2)", WRONG, "is a str, not int"),
        ("COLLECTIONS.tree('t').put(1, 'a', '')", REFUSED, "has an empty name: ['a', '']"),
        ("COLLECTIONS.tree('t').put(1, 'x' * 2000)", REFUSED, "at most 1024 are accepted"),
        ("COLLECTIONS.tree('t').put(1, *'x' * 33)", REFUSED, "has 33 names; at most 32"),
        ("COLLECTIONS.queue('q').append(1, 'x' * 2000)", REFUSED, "the key of an item has 2002 bytes"),
        ("next(COLLECTIONS.queue('q').items(after=10**9))", REFUSED, "expected the number of an item"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_name(
    shared: Collections, store: Store, code: str, kind: tuple[str, str], message: str
) -> None:
    async with bench() as one:
        failure = (await run(one, f"{code}\n{RETURN}", shared)).failure()
    assert (failure.class_, failure.type) == kind
    assert message in failure.message
    assert not store.range(keys.COLLECTIONS).entries


async def test_a_store_that_is_away_is_an_exception_of_the_handler(shared: Collections) -> None:
    def away(w: str, one: operation.Operation, value: bytes) -> collections.Answer:
        raise StoreUnavailable("the store does not answer", hint="wait")

    source = (
        "try:\n    COLLECTIONS.queue('q').append(1)\nexcept Exception as error: told = repr(error)\n"
        f"{RETURN}yield told, 1\n"
    )
    async with bench() as one:
        recorder = one.start_map(source)
        answering(one, recorder, away)
        await one.finish(recorder)
        assert recorder.result() == [["StoreUnavailable('the store does not answer (wait)')", [1]]]
        recorder = one.start_map(f"COLLECTIONS.queue('q').append(1)\n{RETURN}")
        answering(one, recorder, away)
        await one.finish(recorder)
        assert (recorder.failure().class_, recorder.failure().type) == ("exception", "StoreUnavailable")


async def test_while_a_handler_waits_its_time_runs_and_it_can_be_killed() -> None:
    async with bench() as one:
        recorder = one.start_map(f"COLLECTIONS.queue('q').append(1)\n{RETURN}")
        calls: list[frames.Call] = []
        recorder.answers = lambda call, body: calls.append(call)
        await until(lambda: calls, "the call comes")
        first = one.process.current()
        assert first is not None
        await until(lambda: (now := one.process.current()) is not None and now.seconds > first.seconds, "time runs")
        await one.process.kill()
        one.process.answer(frames.Answer(), Items.of([]))  # there is nobody any more


async def test_an_alarm_that_interrupts_the_wait_leaves_the_executor_whole(shared: Collections) -> None:
    source = (
        "import signal\n"
        "class Late(Exception): pass\n"
        "def late(*_): raise Late\n"
        "signal.signal(signal.SIGALRM, late); signal.setitimer(signal.ITIMER_REAL, 0.05)\n"
        "try:\n    COLLECTIONS.queue('q').append('slow')\n    got = 'answered'\n"
        "except Late:\n    got = 'late'; NOTIFY.info('late')\n"
        f"second = COLLECTIONS.queue('q').append('quick')\n{RETURN}yield got, second\n"
    )
    async with bench(hooks=Hooks(notify=True)) as one:
        recorder = one.start_map(source)
        held: list[tuple[frames.Call, bytes]] = []
        recorder.answers = lambda call, body: held.append((call, body))
        await until(lambda: held and recorder.notices, "the first call comes, and the alarm")
        answering(one, recorder, performing(shared))
        assert recorder.answers is not None
        recorder.answers(*held[0])
        await one.finish(recorder)
        assert recorder.result() == [["late", [1]]]
        assert (await run(one, f"{RETURN}yield len(COLLECTIONS.queue('q')), 1\n", shared)).result() == [[2, [1]]]


async def test_a_thread_that_a_handler_left_behind_asks_for_no_other_workflow(shared: Collections) -> None:
    """Given a thread that appends without end, then its workflow gets what it asks while it runs, others nothing."""
    source = (
        "import threading, time\nqueue = COLLECTIONS.queue('q')\n"
        "def late():\n    while True:\n"
        "        try: queue.append('late')\n        except Exception: time.sleep(0.001)\n"
        "threading.Thread(target=late, daemon=True).start()\n"
        f"{RETURN}yield 1, 1\n"
    )
    other = f"import time; time.sleep(0.02)\n{RETURN}yield COLLECTIONS.queue('q').append('mine'), 1\n"
    async with bench() as one:
        assert (await run(one, source, shared)).result() == [[1, [1]]]
        for number in range(10):
            assert (await run(one, other, shared, workflow="other")).result() == [[number, [1]]]
        assert one.process.alive
    assert {value for _, value in shared.queue("other", "q").items()} == {b'"mine"'}


async def test_between_two_runs_nobody_is_asked(shared: Collections, tmp_path: Path) -> None:
    told = tmp_path / "told"
    source = (
        "import threading, time\nqueue = COLLECTIONS.queue('q')\n"
        "def late():\n    while True:\n        try: queue.append('late')\n"
        "        except RuntimeError as error:\n"
        f"            with open({str(told)!r}, 'a') as file: file.write(f'{{error}}\\n')\n"
        "            return\n"
        "threading.Thread(target=late, daemon=True).start()\n"
        f"{RETURN}yield 1, 1\n"
    )
    async with bench() as one:
        await run(one, source, shared)
        await until(lambda: told.exists() and told.read_text().endswith("\n"), "the thread is refused")
        assert told.read_text() == "COLLECTIONS was used after the end of the invocation\n"
        assert (await run(one, f"{RETURN}yield 1, 1\n", shared)).result() == [[1, [1]]]


async def test_a_run_is_not_over_before_all_are_answered(shared: Collections, tmp_path: Path) -> None:
    """Given a thread that still waits when its handler has ended, then the run ends with the answer."""
    gate = tmp_path / "gate"
    source = (
        "import os, threading, time\nqueue = COLLECTIONS.queue('q')\n"
        "threading.Thread(target=queue.append, args=[1]).start()\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.001)\n"
        f"{RETURN}yield 1, 1\n"
    )
    async with bench() as one:
        recorder = one.start_map(source)
        held: list[tuple[frames.Call, bytes]] = []
        recorder.answers = lambda call, body: held.append((call, body))
        await until(lambda: held, "the thread asks")
        gate.touch()
        await until(lambda: recorder.results_of, "the child is reported")
        await asyncio.wait([recorder.done], timeout=0.2)
        assert not recorder.done.done()
        answering(one, recorder, performing(shared))
        assert recorder.answers is not None
        recorder.answers(*held[0])
        await one.finish(recorder)
        assert (await run(one, f"{RETURN}yield len(COLLECTIONS.queue('q')), 1\n", shared)).result() == [[1, [1]]]


async def test_a_process_that_a_handler_forks_is_refused(shared: Collections) -> None:
    source = (
        "import os\nlength = len(COLLECTIONS.queue('q'))\nread, write = os.pipe()\n"
        "if not os.fork():\n"
        "    try: COLLECTIONS.queue('q').append(1)\n"
        "    except BaseException as error: os.write(write, str(error).encode())\n"
        "    os._exit(0)\n"
        f"os.wait()\n{RETURN}yield os.read(read, 200).decode(), 1\n"
    )
    async with bench() as one:
        [[told, _]] = (await run(one, source, shared)).result()
    assert told.startswith("COLLECTIONS is for the process of the handler")
    assert len(shared.queue("flow", "q")) == 0


async def test_who_asks_nothing_has_no_thread_for_it(shared: Collections) -> None:
    source = f"import _thread\nbefore = _thread._count()\n{RETURN}yield 'threads', before\n"
    async with bench() as one:
        [[_, [before]]] = (await run(one, source, shared)).result()
        await run(one, f"len(COLLECTIONS.queue('q'))\n{RETURN}", shared)
        [[_, [after]]] = (await run(one, source, shared)).result()
        recorder = await run(one, f"{RETURN}yield 1, 1\n", shared, reducer=ALL)
        assert (before, after, recorder.result()) == (1, 2, [[1, [1]]])
        assert recorder.order[-1].left == ""  # nor is it taken for a handler's
