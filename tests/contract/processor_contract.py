"""What a handler may rely on, and what is told of one that fails, whatever its language.

A dialect brings the same small handlers in its own language. They go through the processor that checks what is pushed,
and run in a real executor. Languages of lines know no types; what that leaves out they declare.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from mr.codec import Items, encode
from mr.errors import InvalidHandler
from mr.model.handler import Handler, HandlerType
from mr.model.language import Language
from mr.ports.processor import Processor
from mr.worker.frames import Limits
from tests.unit.executors import ALL, Bench, until

CLEF = "\N{MUSICAL SYMBOL G CLEF}"
ODD = f"größe 日本 {CLEF} \\ \" ' {{}} %s $x"
BIG = 400_000


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """A language and handlers in it.

    `header` has `{kind}`; `code` what follows, by what it does. `has_types`: values of JSON come through as they are.
    `has_calls`: it can map to steps and keep a session. `raises_in_line` is where `raises` fails, counted from the
    first line of the file; `stack` what its report shows of that; `broken_line` where `broken` cannot be read, if a
    push can tell.
    """

    processor: Processor
    extension: str
    header: str
    code: dict[str, str]
    has_types: bool = True
    has_calls: bool = True
    has_keys: bool = True
    stack: tuple[str, ...] = ()
    broken_line: int | None = None

    def handler(self, what: str, kind: HandlerType = "mapper") -> Handler:
        """A handler as it is stored when its file is pushed."""
        parameter = "arguments" if kind == "mapper" else "results"
        file = (self.header + self.code[what]).replace("{kind}", kind).replace("{parameter}", parameter)
        return self.processor.check(f"folder/{what}.{self.extension}", file)


@pytest.mark.asyncio(loop_scope="class")
class ProcessorContract:
    """To give: a fixture `dialect`, and `languages`. All tests of a class share an executor, until one ends it."""

    languages: Mapping[str, Language] = {}

    @pytest_asyncio.fixture(loop_scope="class")
    async def one(self, benches: list[Bench]) -> Bench:
        """An executor that knows the language."""
        if not benches or not benches[-1].process.alive:
            benches.append(Bench(languages=self.languages, memory_bytes=4 * 1024**3))
            await benches[-1].process.start()
        return benches[-1]

    # What comes in, and goes out.

    async def test_pairs_come_in_and_go_out_in_order(self, dialect: Dialect, one: Bench) -> None:
        if dialect.has_keys:
            run = await one.map(dialect.handler("same"), [[["b", "two"], ["a", "one"]], [["c", "three"]]], reducer=ALL)
            assert run.results_of == {0: [["a", ["one"]], ["b", ["two"]]], 1: [["c", ["three"]]]}
        else:
            run = await one.map(dialect.handler("same"), [[["k", "b\ttwo\na\tone\n"]]], reducer=ALL)
            assert run.results_of == {0: [["a", ["one"]], ["b", ["two"]]]}

    async def test_values_of_json_keep_their_types(self, dialect: Dialect, one: Bench) -> None:
        if not dialect.has_types:
            return  # its values are text
        values = [1, -1.5, True, None, "1", "", [], {}, [[1, {"a": [None]}]], {"b": 2, "a": "x"}]
        run = await one.map(dialect.handler("same"), [[["k", value] for value in values]])
        assert run.result() == [["k", values]]
        assert [type(value) for value in run.result()[0][1]] == [type(value) for value in values]

    async def test_unicode_and_odd_characters_come_through(self, dialect: Dialect, one: Bench) -> None:
        argument = ["ключ", ODD] if dialect.has_keys else ["k", f"ключ\t{ODD}"]
        assert (await one.map(dialect.handler("same"), [[argument]])).result() == [["ключ", [ODD]]]

    async def test_a_reducer_gets_every_key_with_its_values(self, dialect: Dialect, one: Bench) -> None:
        rows = [["a", ["1", "2", "3"]], ["b", ["4"]]]
        run = await one.reduce(dialect.handler("total", "reducer"), "rows", rows)
        assert {key: float(value) for key, value in run.result(5)} == {"a": 6, "b": 4}

    async def test_a_combiner_stands_between_mapper_and_reducer(self, dialect: Dialect, one: Bench) -> None:
        source = "yield MrConfigureToReturn()\nfor key, value in arguments:\n    yield key, value\n"
        pairs = [["b", "1"], ["a", "2"], ["b", "3"]]
        run = await one.map(source, [pairs], combiner=dialect.handler("combines", "combiner"))
        sums = {key: [float(value) for value in values] for key, values in run.result()}
        assert sums == {"a": [2.0], "b": [4.0]}

    async def test_nothing_in_and_nothing_out_is_fine(self, dialect: Dialect, one: Bench) -> None:
        assert (await one.map(dialect.handler("same"), [[]])).result() == []
        assert (await one.reduce(dialect.handler("total", "reducer"), "rows", [])).result(5) == []

    async def test_many_pairs_and_big_values_come_through(self, dialect: Dialect, one: Bench) -> None:
        big = "x" * (BIG - 1) + "y"
        argument = ["k", big] if dialect.has_keys else ["k", f"k\t{big}"]
        assert (await one.map(dialect.handler("same"), [[argument]])).result() == [["k", [big]]]
        run = await one.map(dialect.handler("many"))
        assert len(run.result()) == 5000
        rows: list[Any] = [["k", ["1"] * 40_000], ["l", ["1"]]]
        total = await one.reduce(dialect.handler("total", "reducer"), "rows", rows)
        assert {key: float(value) for key, value in total.result(5)} == {"k": 40_000, "l": 1}

    async def test_a_group_too_big_for_a_list_comes_in_pieces(self, dialect: Dialect, one: Bench) -> None:
        numbers = [["k", "1" + " " * 990]] * 4600
        run = one.start_reduce(dialect.handler("total", "reducer"), limits=Limits(grouping=1024 * 1024))
        for start in range(0, len(numbers), 200):
            await one.process.send_input("pairs", Items.of([encode(pair) for pair in numbers[start : start + 200]]))
        one.process.end_input()
        await one.finish(run)
        assert [float(value) for _, value in run.result(5)] == [4600]

    async def test_a_value_over_the_limit_is_refused(self, dialect: Dialect, one: Bench) -> None:
        argument = ["k", "x" * 2000] if dialect.has_keys else ["k", "k\t" + "x" * 2000]
        failure = (await one.map(dialect.handler("same"), [[argument]], limits=Limits(value=1000))).failure()
        assert failure.class_ == "output_limit"
        assert "mapper the_mapper yields a value of" in failure.message
        assert "mr/worker" not in failure.traceback

    # What else a handler can say.

    async def test_a_mapper_maps_to_a_step(self, dialect: Dialect, one: Bench) -> None:
        if not dialect.has_calls:
            return  # it runs programs that know nothing of steps
        run = await one.map(dialect.handler("maps"), [[["a", "1"], ["b", "2"]], []])
        assert [(run.closed[child].step, run.closed[child].count) for child in (0, 1)] == [("next", 2), ("next", 0)]
        assert run.lists[0, "arguments"] == [[["a", "1"]], [["b", "2"]]]

    async def test_a_session_is_kept_for_the_reducer(self, dialect: Dialect, one: Bench) -> None:
        if not dialect.has_calls:
            return  # it runs programs that know nothing of sessions
        kept = {"a/é": "one two"}
        run = await one.map(dialect.handler("keeps"), [[["k", "1"]]], reducer=None)
        assert run.sessions == {0: kept}
        recalls = dialect.handler("recalls", "reducer")
        assert (await one.reduce(recalls, "rows", [["k", ["1"]]], session=kept)).result(5) == [["k", "one two"]]
        missing = (await one.reduce(recalls, "rows", [["k", ["1"]]])).failure(5)
        assert missing.class_ == "exception"
        refused = (await one.reduce(dialect.handler("keeps", "reducer"), "rows", [["k", ["1"]]])).failure(5)
        assert "Session writes are disabled" in refused.message

    async def test_what_is_printed_belongs_to_its_invocation(self, dialect: Dialect, one: Bench) -> None:
        run = await one.map(dialect.handler("prints"), [[["k", "1"]], [["k", "2"]]])
        assert run.outputs == {0: "printed 1 é\n", 1: "printed 2 é\n"}

    # Failures.

    async def test_an_error_shows_the_stack_of_its_language(self, dialect: Dialect, one: Bench) -> None:
        failure = (await one.map(dialect.handler("raises"))).failure()
        assert failure.class_ == "exception"
        assert (failure.handler, failure.kind) == ("the_mapper", "map")
        assert "no such luck" in failure.message
        for part in ("no such luck", *dialect.stack):
            assert part in failure.traceback, failure.traceback
        good = [["k", "a\t1"]]
        assert (await one.map(dialect.handler("same"), [good])).result(), "the next invocation is not concerned"

    async def test_a_file_that_is_broken_is_refused_or_fails(self, dialect: Dialect, one: Bench) -> None:
        if dialect.broken_line is not None:
            with pytest.raises(InvalidHandler, match=f"^folder/broken.{dialect.extension}:{dialect.broken_line}: "):
                dialect.handler("broken")
        else:
            assert (await one.map(dialect.handler("broken"))).failure().class_ in ("exception", "exit")

    async def test_a_header_that_is_wrong_is_refused_with_its_place(self, dialect: Dialect) -> None:
        file = dialect.header.replace("{kind}", "wrapper") + dialect.code["same"]
        with pytest.raises(InvalidHandler, match=r"^x\.y:\d+: handler_type is 'wrapper'"):
            dialect.processor.check("x.y", file)
        with pytest.raises(InvalidHandler, match=r"^x\.y:1: "):
            dialect.processor.check("x.y", dialect.code["same"])

    async def test_a_process_that_ends_is_told_as_what_it_was(self, dialect: Dialect, one: Bench) -> None:
        for what, class_, said in (("exits", "exit", "3"), ("kills_itself", "signal", "SIGTERM")):
            run = one.start_map(dialect.handler(what), [[["k", "a\t1"]]])
            ends: list[asyncio.Future[Any]] = [run.done, one.gone]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=20)
            if run.done.done():
                failure = run.failure()
                assert failure.class_ in (class_, "exception")
                assert said in failure.message
                assert failure.handler == "the_mapper"
            else:
                assert one.exits[-1].class_ == class_  # of Python it is the executor that ends
                return

    async def test_one_that_never_ends_is_seen_and_killed(self, dialect: Dialect, one: Bench) -> None:
        one.start_map(dialect.handler("hangs"), [[["k", "a\t1"]]], first=7)

        def hangs() -> bool:
            current = one.process.current()
            return current is not None and current.seconds > 0.2 and "hanging" in one.process.printed()

        await until(hangs, "a handler that hangs")
        how = await asyncio.wait_for(one.process.kill(), 10)
        assert (how.class_, how.child) == ("killed", 7)
        assert "hanging" in how.output
