"""Executors of the tests of processors, which live as long as the tests of a class."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.unit.executors import Bench


@pytest_asyncio.fixture(scope="class", loop_scope="class")
async def benches() -> AsyncIterator[list[Bench]]:
    """Those that were started; all are killed in the end."""
    running: list[Bench] = []
    yield running
    for one in running:
        await one.process.kill()
