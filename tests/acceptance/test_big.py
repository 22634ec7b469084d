"""Big data and many children; memory stays within bounds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from tests.acceptance.conftest import Shared
from tests.acceptance.sources import ALL, RETURN, SUM, map_to, mapper, reducer

MB = 1024 * 1024
RSS_MAX_MB = 300
SAMPLE_S = 0.05


@contextmanager
def memory_of(pair: Shared) -> Iterator[dict[int, int]]:
    """The most memory, in bytes, that each process of the front end and the workers has used up to the end."""
    most: dict[int, int] = {}
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            for process in (pair.front_end, pair.general, pair.gpu):
                for pid in process.family():
                    most[pid] = max(most.get(pid, 0), _rss(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield most
    finally:
        over.set()
        thread.join()


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0  # it has ended


def test_a_result_of_five_megabytes_arrives_whole(pair: Shared, w: str) -> None:
    code = "yield MrConfigureToReturn()\nfor n in range(1000): yield n, chr(97 + n % 26) * 5000"
    pair.define(w, {"start": (mapper(code), ALL)})
    got = dict(pair.post(w).pairs)
    assert got == {n: [chr(97 + n % 26) * 5000] for n in range(1000)}


def test_values_of_400_kilobytes_go_through_every_stage(pair: Shared, w: str) -> None:
    pair.define(
        w,
        {
            "start": (map_to("leaf", "[(n, chr(97 + n) * 400_000) for n in range(12)]"), reducer(
                "for k, v in results: yield k, v[0][0]", capability="gpu"
            )),
            "leaf": (RETURN, ALL),
        },
    )  # fmt: skip
    assert dict(pair.post(w).pairs) == {n: chr(97 + n) * 400_000 for n in range(12)}


def test_twenty_thousand_children_get_their_arguments(pair: Shared, w: str) -> None:
    pairs = "[('n', [n, 'x' * 200]) for n in range(20_000)]"
    leaf = mapper("yield MrConfigureToReturn()\nfor k, (n, text) in arguments: yield k, n if len(text) == 200 else -1")
    sums = reducer("for k, v in results: yield k, [len(v), sum(v)]")
    pair.define(w, {"start": (map_to("leaf", pairs), sums), "leaf": (leaf, SUM)})
    assert pair.post(w).pairs == [["n", [20_000, sum(range(20_000))]]]


def test_a_tree_of_ten_levels_with_children_at_each(pair: Shared, w: str) -> None:
    """Every invocation maps to two, so the last level has 1,024 leaves."""
    code = """
    for path, left in arguments:
        if left:
            yield MrConfigureToMap("start")
            for n in range(2):
                yield f"{path}{n}", left - 1
        else:
            yield MrConfigureToReturn()
            yield "leaves", path
    """
    flat = reducer("for k, v in results: yield k, [y for x in v for y in (x if isinstance(x, list) else [x])]")
    pair.define(w, {"start": (mapper(dedent(code)), flat)})
    [[_, leaves]] = pair.post(w, {"": 10}).pairs
    assert sorted(leaves) == [f"{n:010b}" for n in range(1024)]


def test_a_reduce_of_200_megabytes_stays_below_300_MB_in_every_process(pair: Shared, w: str) -> None:
    leaf = mapper("""
    yield MrConfigureToReturn()
    for _, n in arguments:
        for m in range(20):
            yield f"{n % 7} {m}", chr(97 + m) * 50_000
    """)
    count = reducer("for k, v in results: yield k, [sum(1 for x in v for _ in x), sum(len(y) for x in v for y in x)]")
    pair.define(w, {"start": (map_to("leaf", "[(n, n) for n in range(200)]"), count), "leaf": (leaf, ALL)})
    with memory_of(pair) as most:
        reply = pair.post(w, timeout_s=90.0)
    assert sum(bytes_ for _, (_, bytes_) in reply.pairs) == 200 * 20 * 50_000
    assert sum(values for _, (values, _) in reply.pairs) == 200 * 20
    print("most memory of a process:", max(most.values()) // MB, "MB")
    assert max(most.values()) < RSS_MAX_MB * MB, {pid: size // MB for pid, size in most.items()}


@pytest.mark.parametrize("size", [500_000, 600_000], ids=["below", "above"])
def test_a_value_has_a_limit_that_is_named(pair: Shared, w: str, size: int) -> None:
    pair.define(w, {"start": (mapper(f"yield MrConfigureToReturn()\nyield 'a', 'x' * {size}"), ALL)})
    reply = pair.post(w)
    if size == 500_000:
        assert reply.status == 200
    else:
        assert reply.error["class"] == "output_limit"
        assert "524288" in reply.error["message"]
