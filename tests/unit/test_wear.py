"""When an executor is replaced: at each limit, and not just below it."""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mr.codec import Items
from mr.settings import HandlerSettings
from mr.worker import wear
from mr.worker.case import Slot
from mr.worker.log import Hooks
from mr.worker.pool import Pool
from mr.worker.stock import Stock
from mr.worker.wear import AGE_MIN_S, GROWTH_MIN_BYTES, INVOCATIONS_MAX, LOOK_S, Wear

MB = 1024 * 1024
BASE = 100 * MB
LIMIT = 1000 * MB


def worn(*, invocations: int = 0, resident: int = BASE, left: Any = "", handlers: int = 1) -> Wear:
    one = Wear(0.0, BASE, LIMIT)
    one.look(1.0, BASE, 1)
    one.add(invocations, left)
    one.look(2.0, resident, handlers)
    return one


def test_ten_thousand_invocations_are_enough() -> None:
    assert not worn(invocations=INVOCATIONS_MAX - 1).due(60.0)
    assert str(INVOCATIONS_MAX) in worn(invocations=INVOCATIONS_MAX).due(60.0)


def test_an_executor_that_is_young_stays() -> None:
    assert not worn(invocations=INVOCATIONS_MAX).due(AGE_MIN_S - 0.1)
    assert worn(invocations=INVOCATIONS_MAX).due(AGE_MIN_S)


def test_memory_may_grow_by_half() -> None:
    assert not worn(resident=150 * MB - 1).due(60.0)
    assert worn(resident=150 * MB).due(60.0) == "its memory grew from 100 to 150 MB"


def test_a_little_growth_is_nothing() -> None:
    small = Wear(0.0, 10 * MB, LIMIT)
    small.look(1.0, 10 * MB + GROWTH_MIN_BYTES - 1, 0)
    assert not small.due(60.0)
    small.look(1.0, 10 * MB + GROWTH_MIN_BYTES, 0)
    assert small.due(60.0)


def test_what_a_new_handler_imports_is_no_growth() -> None:
    assert not worn(resident=300 * MB, handlers=2).due(60.0)


def test_half_of_the_memory_cannot_wait() -> None:
    assert not worn(resident=LIMIT // 2 - 1).urgent()
    assert worn(resident=LIMIT // 2, handlers=2).urgent() == "it holds 500 of 1000 MB"


def test_an_executor_that_needs_half_of_its_memory_to_start_is_not_replaced_for_that() -> None:
    tight = Wear(0.0, 40 * MB, 64 * MB)
    tight.look(1.0, 45 * MB, 1)
    assert not tight.urgent()


def test_threads_wait_and_descriptors_and_processes_do_not() -> None:
    assert not worn(left="threads").urgent()
    assert worn(left="threads").due(60.0)
    assert "descriptors" in worn(left="descriptors").urgent()
    assert "processes" in worn(left="processes").urgent()
    assert "folder" in worn(left="no folder").urgent()


def test_memory_is_not_measured_all_the_time() -> None:
    one = Wear(0.0, BASE, LIMIT)
    assert not one.wants_look(LOOK_S / 2)
    assert one.wants_look(LOOK_S)


# With real executors.


@asynccontextmanager
async def pool_of_one() -> AsyncIterator[Pool]:
    tasks: set[Any] = set()

    def spawn(coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    handlers = HandlerSettings(memory_mb=1024)
    pool = Pool(
        1, handlers, os.environ, {}, Stock({}), Hooks(), file_system=None,
        spawn=spawn, on_exit=lambda *_: None, on_free=lambda: None,
    )  # fmt: skip
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()
        await asyncio.gather(*tasks)


def a_run(children: int, left: str = "") -> Any:
    return SimpleNamespace(children=children, left=left, results=array("I"), items=Items.of([]))


async def until(condition: Any) -> None:
    async with asyncio.timeout(20.0):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.kills
async def test_a_worn_executor_leaves_its_slot_to_the_spare_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wear, "AGE_MIN_S", 0.0)
    async with pool_of_one() as pool:
        [slot] = pool.slots
        first = slot.executor
        assert first is not None
        await until(lambda: pool._spare is not None)
        spare = pool._spare
        pool.after(slot, a_run(INVOCATIONS_MAX - 1))
        assert slot.executor is first
        pool.after(slot, a_run(1))
        await until(lambda: slot.executor is spare)
        await until(lambda: not first.alive)
        await until(lambda: pool._spare is not None and pool._spare is not spare)
        assert slot.is_free


@pytest.mark.kills
async def test_an_executor_that_may_wait_waits_for_the_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wear, "AGE_MIN_S", 0.0)
    async with pool_of_one() as pool:
        [slot] = pool.slots
        first, pool._spare = slot.executor, None
        pool.after(slot, a_run(1, "threads"))
        assert slot.executor is first
        pool.after(slot, a_run(1, "descriptors"))
        await until(lambda: slot.executor not in (None, first))


@pytest.mark.kills
async def test_suspects_get_one_slot_at_a_time_and_others_any() -> None:
    async with pool_of_one() as pool:
        [slot] = pool.slots
        pool.slots.append(Slot(1, Stock({})))
        assert pool.may_run("dies")
        slot.version, slot.case = "dies", cast(Any, object())
        assert pool.may_run("dies")
        pool.suspect("dies")
        pool.suspect("dies, too")
        assert not pool.may_run("dies")
        assert not pool.may_run("dies, too")
        assert pool.may_run("lives")
        assert pool.may_run(None)
        slot.version = "lives"
        assert pool.may_run("dies")
        slot.case = None


@pytest.mark.kills
async def test_who_is_cleared_up_after_waits_and_others_do_not() -> None:
    async with pool_of_one() as pool:
        [slot] = pool.slots
        pool.slots.append(Slot(1, Stock({})))
        slot.version, slot.case = "leaves processes", cast(Any, object())
        slot.run = cast(Any, SimpleNamespace(is_told=False))
        assert pool.may_run("leaves processes")
        slot.run = cast(Any, SimpleNamespace(is_told=True))
        assert not pool.may_run("leaves processes")
        assert pool.may_run("another")
        assert pool.may_run(None)
        slot.run = slot.case = None
        assert pool.may_run("leaves processes")


@pytest.mark.kills
async def test_a_suspect_waits_longer_after_each_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mr.worker.pool.PAUSE_FIRST_S", 0.1)
    async with pool_of_one() as pool:
        loop = asyncio.get_running_loop()
        pool.suspect("dies")
        assert pool.may_run("dies")
        for pause_s in (0.4, 0.8):
            pool.suspect("dies")
            begun = loop.time()
            assert not pool.may_run("dies")
            await until(lambda: pool.may_run("dies"))
            assert loop.time() - begun >= pause_s


@pytest.mark.kills
async def test_a_suspect_is_free_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mr.worker.pool.SUSPECT_S", 0.0)
    async with pool_of_one() as pool:
        pool.suspect("dies")
        pool.slots[0].version, pool.slots[0].case = "dies", cast(Any, object())
        assert pool.may_run("dies")
        pool.slots[0].case = None


@pytest.mark.kills
async def test_the_end_of_the_pool_is_the_end_of_every_executor_that_it_ever_began() -> None:
    async with pool_of_one() as pool:
        [slot] = pool.slots
        # One leaves, the spare takes its place, and another one is being started, all at the same time.
        leaving = slot.executor
        assert leaving is not None
        pool.after(slot, a_run(0, "no folder"))
        assert slot.executor is not leaving
        begun = set(pool._all)
        assert leaving in begun
        await pool.close()
        assert not [executor for executor in begun | pool._all if executor.alive]
