"""What handlers want people to be told: out of an executor, with what is theirs, and never too much of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from mr.worker.log import NOTICES_MAX, TEXT_MAX, Hooks
from tests.unit.executors import ALL, Bench, bench

RETURN = "yield MrConfigureToReturn()\n"


@pytest_asyncio.fixture
async def one() -> AsyncIterator[Bench]:
    async with bench(hooks=Hooks(log="warning", notify=True, email="info", http="error")) as found:
        yield found


async def test_JX_96_each_name_tells_in_its_way_and_leaves_a_line(one: Bench) -> None:
    run = await one.map(
        "LOG.info('unheard'); LOG.warning('%d of %s', 1, 'x'); NOTIFY.debug('n %s', 1)\n"
        "EMAIL.debug('unheard'); EMAIL.info('e%d', 2); HTTP.warning('unheard'); HTTP.error('h %s', [3])\n" + RETURN
    )
    told = [(notice.by, notice.level, notice.text, notice.handler, notice.child) for notice in run.notices]
    assert told == [
        ("notify", "debug", "n 1", "the_mapper", 0),
        ("email", "info", "e2", "the_mapper", 0),
        ("http", "error", "h [3]", "the_mapper", 0),
    ]
    assert run.outputs[0].splitlines()[:4] == [
        "WARNING [the_mapper] 1 of x",
        "DEBUG [the_mapper NOTIFY] n 1",
        "INFO [the_mapper EMAIL] e2",
        "ERROR [the_mapper HTTP] h [3]",
    ]


async def test_JX_96_ctx_and_reducers_tell_too(one: Bench) -> None:
    module = (
        "def handle(results, ctx):\n    ctx.notify.info('n'); ctx.email.info('e'); ctx.http.critical('h')\n"
        "    try:\n        1 / 0\n    except ZeroDivisionError:\n        ctx.notify.exception('oh')\n    yield 1, 1\n"
    )
    run = await one.reduce(module, "rows", [])
    assert [(notice.by, notice.handler, notice.child) for notice in run.notices] == [
        (by, "the_reducer", 5) for by in ("notify", "email", "http", "notify")
    ]
    assert run.notices[-1].text.startswith("oh\nTraceback (most recent call last)")
    assert run.notices[-1].text.endswith("ZeroDivisionError: division by zero")


async def test_JX_95_what_cannot_be_made_a_text_fails_nothing(one: Bench) -> None:
    source = (
        "class Mute:\n    def __str__(self): raise OSError('mute')\n"
        "NOTIFY.info('%d', 'x'); NOTIFY.info(Mute()); NOTIFY.info('lone \\ud800'); NOTIFY.info('x' * 100_000)\n"
    )
    run = await one.map(source + RETURN + "yield 'a', 1\n")
    assert run.result() == [["a", [1]]]
    assert [notice.text for notice in run.notices] == [
        "str that cannot be told with 1 arguments", "Mute that cannot be told with 0 arguments", r"lone \ud800",
        "x" * TEXT_MAX,
    ]  # fmt: skip


async def test_JX_95_a_loop_does_not_fill_a_mailbox(one: Bench) -> None:
    source = f"for n in range({2 * NOTICES_MAX}): NOTIFY.info(str(n))\n" + RETURN
    run = await one.map(source, [[["k", 1]], [["k", 2]]], reducer=ALL)
    assert [notice.child for notice in run.notices] == [0] * NOTICES_MAX + [1] * NOTICES_MAX
    assert run.outputs[0].count("more than 100 notifications by one invocation") == 1


async def test_a_thread_that_a_handler_left_behind_speaks_for_nobody(one: Bench) -> None:
    source = (
        "import threading, time\nnotify = NOTIFY\n"
        "def late():\n    while True:\n        notify.info('late'); time.sleep(0.001)\n"
        "threading.Thread(target=late, daemon=True).start()\n" + RETURN + "yield 1, 1\n"
    )
    for _ in range(20):
        assert (await one.map(source)).result() == [[1, [1]]]
    assert one.process.alive


async def test_without_hooks_a_notification_is_only_a_line() -> None:
    async with bench() as plain:
        run = await plain.map("NOTIFY.info('n')\n" + RETURN)
        assert run.notices == []
        assert run.outputs[0].startswith("INFO [the_mapper NOTIFY] n\n")
