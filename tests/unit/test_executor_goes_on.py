"""An executor goes on with what a child has mapped to, and tells the same as if each level had been ordered alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from mr.worker import frames
from mr.worker.executor_process import ExecutorProcess
from mr.worker.frames import Failed, Finished, Mapped, Reduced, Results, Turn

from .executors import ALL, RETURN, SAME, SUM, Bench, Recorder, bench, until

THREE = "yield MrConfigureToMap('leaf')\nfor n in range(3):\n    yield 'k', n\n"


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in a loop of its own."""
    asyncio.run(test)


def told(recorder: Recorder) -> list[Any]:
    """What was reported, in order: the kind of frame, and what tells it from others of its kind.

    Results may come in several frames, if the machine is slow.
    """
    found = [
        (type(frame), getattr(frame, "child", None) if not isinstance(frame, Turn) else frame.to)
        for frame in recorder.order
    ]
    return [one for one, before in zip(found, [None, *found], strict=False) if one != before or one[0] is not Results]


async def goes_on(one: Bench, leaf: str = SAME, *, mapper: str = THREE, reducer: str = ALL, **options: Any) -> Recorder:
    return await one.map(mapper, reducer=reducer, below=(leaf, ALL), **options)


def test_a_small_tree_is_one_run_and_told_level_by_level() -> None:
    async def test() -> None:
        async with bench() as one:
            recorder = await goes_on(one, reducer="for k, v in results: yield k, sum(x for y in v for x in y)\n")
        assert told(recorder) == [(Mapped, 0), (Results, None), (Turn, "reduce"), (Reduced, 0), (Finished, None)]
        mapped = recorder.order[0]
        assert (mapped.goes_on, mapped.step, mapped.count) == (True, "leaf", 3)
        assert recorder.results_of == {(0, n): [["k", [n]]] for n in range(3)}
        assert recorder.lists[0, "arguments"] == [[["k", 0]], [["k", 1]], [["k", 2]]]
        assert recorder.lists[(0, "reduce"), "pairs"] == [["k", 3]]

    run(test())


def test_it_comes_back_to_the_next_child() -> None:
    async def test() -> None:
        async with bench() as one:
            recorder = one.start_map(THREE, [[["a", 1]], [["b", 2]]], reducer=ALL, below=(SAME, ALL), first=5)
            assert await one.finish(recorder) == 7
        tree = [(Results, None), (Turn, "reduce")]
        assert told(recorder) == [
            (Mapped, 5), *tree, (Reduced, 5), (Mapped, 6), *tree, (Reduced, 6), (Finished, None),
        ]  # fmt: skip

    run(test())


def test_what_is_more_than_it_may_go_on_with_is_left_to_the_supervisor() -> None:
    async def test() -> None:
        async with bench() as one:
            recorder = await goes_on(one, most=2)
        assert told(recorder) == [(Mapped, 0), (Finished, None)]
        assert not recorder.order[0].goes_on

    run(test())


def test_another_step_than_expected_and_no_children_are_left_to_the_supervisor() -> None:
    async def test() -> None:
        async with bench() as one:
            for mapper in ("yield MrConfigureToMap('other')\nyield 1, 1\n", "yield MrConfigureToMap('leaf')\n"):
                recorder = await goes_on(one, mapper=mapper)
                assert told(recorder) == [(Mapped, 0), (Finished, None)]
                assert not recorder.order[0].goes_on

    run(test())


def test_sessions_and_prints_belong_to_their_level() -> None:
    mapper = "S_SET('of', 'mapper')\nprint('mapper')\n" + THREE
    leaf = "S_SET('of', arguments[0][1])\nprint('leaf', arguments[0][1])\n" + SAME
    reducer = "print('reducer')\nyield S_GET('of'), len(results)\n"

    async def test() -> None:
        async with bench() as one:
            recorder = await goes_on(one, leaf, mapper=mapper, reducer=reducer)
        outputs: dict[Any, str] = {(0, n): f"leaf {n}\n" for n in range(3)}
        sessions: dict[Any, Any] = {(0, n): {"of": n} for n in range(3)}
        assert recorder.outputs == outputs | {0: "mapper\n", (0, "reduce"): "reducer\n"}
        assert recorder.sessions == sessions | {0: {"of": "mapper"}, (0, "reduce"): {}}
        assert recorder.lists[(0, "reduce"), "pairs"] == [["mapper", 1]]

    run(test())


def test_what_a_mapper_broke_is_put_back_before_its_children() -> None:
    mapper = "import os\nos.environ['LEFT'] = 'x'\nos.chdir('/')\n" + THREE
    leaf = "import os\n" + RETURN + "yield os.getcwd() != '/', 'LEFT' in os.environ\n"

    async def test() -> None:
        async with bench() as one:
            recorder = await goes_on(one, leaf, mapper=mapper)
        assert recorder.lists[(0, "reduce"), "pairs"] == [[True, [[False], [False], [False]]]]

    run(test())


@pytest.mark.parametrize(
    ("leaf", "kind"),
    [
        ("if arguments[0][1] == 1: raise KeyError('no luck')\n" + SAME, Failed),
        ("if arguments[0][1] == 1:\n    yield MrConfigureToMap('x')\n    yield 1, 1\nelse:\n"
         "    yield MrConfigureToReturn()\n    yield 'k', 1\n", Mapped),
        (RETURN + "yield 'k', 'x' * (200_000 if arguments[0][1] == 1 else 1)\n", Reduced),
    ],
    ids=["fails", "maps on", "is big"],
)  # fmt: skip
def test_where_a_child_is_no_plain_result_the_reduce_is_left_to_the_supervisor(leaf: str, kind: type) -> None:
    async def test() -> None:
        async with bench() as one:
            recorder = await goes_on(one, leaf)
        expected = [(Mapped, 0), (Results, None), (kind, 1), (Results, None), (Turn, "back"), (Finished, None)]
        if kind is Reduced:  # small enough to wait for what comes next, but not to be among the results
            assert [entry for entry in told(recorder) if entry[0] is not frames.Chunk] == expected
        else:
            assert told(recorder) == expected

    run(test())


def test_a_reducer_that_fails_is_told_as_such() -> None:
    async def test() -> None:
        async with bench() as one:
            recorder = await goes_on(one, reducer="raise KeyError('no luck')\nyield\n")
        assert told(recorder) == [(Mapped, 0), (Results, None), (Turn, "reduce"), (Failed, 0), (Finished, None)]
        failed = recorder.closed[0, "reduce"]
        assert (failed.kind, failed.handler, failed.message, failed.returned) == (
            "reduce", "the_reducer", "'no luck'", False,
        )  # fmt: skip

    run(test())


def gate(path: Path) -> str:
    """Code that waits until a file is there."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}): time.sleep(0.001)\n"


def test_what_takes_long_is_told_meanwhile(tmp_path: Path) -> None:
    leaf = (
        f"if arguments[0][1] == 1:\n    {gate(tmp_path / 'gate').strip().replace(chr(10), chr(10) + '    ')}\n" + SAME
    )

    async def test() -> None:
        async with bench() as one:
            recorder = one.start_map(THREE, reducer=ALL, below=(leaf, ALL))
            await until(lambda: (0, 0) in recorder.results_of, "the mapper and the first child are told")
            assert told(recorder) == [(Mapped, 0), (Results, None)]
            current = one.process.current()
            assert current is not None
            assert (current.child, current.is_below) == (1, True)
            (tmp_path / "gate").touch()
            await one.finish(recorder)
        assert recorder.lists[(0, "reduce"), "pairs"] == [["k", [[0], [1], [2]]]]

    run(test())


def test_it_stops_after_the_child_that_runs(tmp_path: Path) -> None:
    leaf = gate(tmp_path / "gate") + SAME

    async def test() -> None:
        async with bench() as one:
            recorder = one.start_map(THREE, [[["a", 1]], [["b", 2]]], reducer=ALL, below=(leaf, ALL))
            await until(lambda: recorder.order, "the mapper is told")
            one.process.stop_after_current()
            (tmp_path / "gate").touch()
            assert await one.finish(recorder) == 1
        assert told(recorder) == [(Mapped, 0), (Results, None), (Finished, None)]
        assert list(recorder.results_of) == [(0, 0)]

    run(test())


async def _end(one: Bench, recorder: Recorder, process: ExecutorProcess) -> Any:
    how = await one.death()
    assert not recorder.done.done()
    assert not process.alive
    return how


def test_who_dies_before_it_was_told_is_not_blamed() -> None:
    async def test() -> None:
        async with bench() as one:
            recorder = one.start_map(THREE, reducer=ALL, below=("import os\nos._exit(3)\n" + SAME, ALL))
            how = await _end(one, recorder, one.process)
        assert (how.class_, how.is_untold, recorder.order) == ("exit", True, [])

    run(test())


def test_who_dies_after_it_was_told_is_known(tmp_path: Path) -> None:
    leaf = "import os\nif arguments[0][1] == 2:\n    time = __import__('time')\n"
    leaf += f"    while not os.path.exists({str(tmp_path / 'gate')!r}): time.sleep(0.001)\n    os._exit(3)\n" + SAME

    async def test() -> None:
        async with bench() as one:
            recorder = one.start_map(THREE, reducer=SUM, below=(leaf, ALL))
            await until(lambda: (0, 1) in recorder.results_of, "it is told")
            (tmp_path / "gate").touch()
            how = await _end(one, recorder, one.process)
        assert (how.class_, how.child, how.stage, how.is_untold) == ("exit", 2, "map", False)

    run(test())
