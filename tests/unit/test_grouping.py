"""Grouping by canonical key: order, spilling, lazy views, and a bound on memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mr.codec import canonical, encode
from mr.rules.grouping import PIECE_BYTES, Groups, Spool, Table, Values, as_pair, as_row, read, values_of

KEYS = st.one_of(
    st.integers(-3, 3), st.booleans(), st.none(), st.text(max_size=2), st.lists(st.integers(0, 2), max_size=2)
)


def plain(groups: Groups | Spool) -> list[tuple[bytes, list[object]]]:
    """All groups with decoded values."""
    return [(key, list(values_of(pieces))) for key, pieces in groups]


@given(pairs=st.lists(st.tuples(KEYS, st.integers())), limit=st.sampled_from([1, 600, 10**9]))
@settings(max_examples=80, deadline=None)
def test_groups_come_in_the_order_of_keys_and_values_in_the_order_of_adding(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[object, int]], limit: int
) -> None:
    expected: dict[bytes, list[int]] = defaultdict(list)
    groups = Groups(limit, str(tmp_path_factory.mktemp("groups")))
    for key, value in pairs:
        expected[canonical(key)].append(value)
        groups.add(canonical(key), encode(value))
    assert plain(groups) == sorted(expected.items())
    assert plain(groups) == sorted(expected.items()), "a second reading differs"
    assert plain(groups.spool()) == sorted(expected.items())
    assert bool(groups) == bool(pairs)
    assert groups.spilled == (bool(pairs) and limit < 10**9 and (limit == 1 or groups.spilled))
    groups.close()


def test_nothing_touches_the_disk_below_the_limit(tmp_path: Path) -> None:
    groups = Groups(10**6, str(tmp_path / "does-not-exist"))
    for number in range(1000):
        groups.add(b"%d" % (number % 10), b"1")
    assert not groups.spilled
    assert len(list(groups)) == 10


def test_files_go_when_groups_are_closed(tmp_path: Path) -> None:
    groups = Groups(1000, str(tmp_path))
    for number in range(100):
        groups.add(b"%d" % number, b"1")
    groups.spool()
    assert list(tmp_path.iterdir())
    groups.close()
    assert not list(tmp_path.iterdir())


def test_a_huge_group_is_a_sequence_that_reads_piece_by_piece(tmp_path: Path) -> None:
    groups = Groups(8 * PIECE_BYTES, str(tmp_path))
    number = 60_000
    for value in range(number):
        groups.add(b'"k"', encode([value, "x" * 200]))
        groups.add(b"%d" % value, b"0")
    [(_, pieces)] = [(key, pieces) for key, pieces in groups if key == b'"k"']
    assert max(len(read(piece)) for piece in pieces) < 2 * PIECE_BYTES
    values = values_of(pieces)
    assert isinstance(values, Values)
    assert len(values) == number
    assert values[12345] == [12345, "x" * 200]
    assert values[-1][0] == number - 1
    assert [value[0] for value in values[10:14]] == [10, 11, 12, 13]
    assert [value[0] for value in values] == list(range(number))
    with pytest.raises(IndexError):
        values[number]
    groups.close()


def test_a_table_looks_like_a_list(tmp_path: Path) -> None:
    groups = Groups(500, str(tmp_path))
    for number in range(50):
        groups.add(b"%02d" % number, b"%d" % number)
    rows = [(number, [number]) for number in range(50)]
    # Keys here are spelled with two digits only to have one order; `json` reads them like msgspec would not.
    table = Table(groups, lambda group: (int(group[0]), json.loads(b"[" + b",".join(map(read, group[1])) + b"]")))
    assert table
    assert list(table) == rows
    assert list(table) == rows
    assert len(table) == 50
    assert table[0] == rows[0]
    assert table[-1] == rows[-1]
    assert table[3:7] == rows[3:7]
    assert rows[9] in table
    for index in (50, -51):
        with pytest.raises(IndexError):
            table[index]
    assert not Table(Groups(1, str(tmp_path)))
    groups.close()


def test_two_readers_of_one_table_do_not_disturb_each_other(tmp_path: Path) -> None:
    groups = Groups(100, str(tmp_path))
    for number in range(100, 150):
        groups.add(b"%d" % number, b"1")
    table = Table(groups)
    assert [(a[0], b[0]) for a, b in zip(table, table, strict=True)] == [(n, n) for n in range(100, 150)]
    assert sum(len([1 for _ in table]) for _ in table) == 2500
    groups.close()


def test_a_spool_keeps_its_order_and_empty_rows(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"))
    spool.add(b'"b"', [b"1,2"])
    spool.add(b'"a"', [])
    spool.add(b'"b"', [b"3"])
    spool.extend(b'"b"', [b"4,5", b"6"])
    expected = [("b", [1, 2]), ("a", []), ("b", [3, 4, 5, 6])]
    assert [as_row(group) for group in spool] == expected
    assert [as_row(spool.group(index)) for index in (0, 1, 2)] == expected
    assert len(spool) == 3
    spool.close()
    assert not list(tmp_path.iterdir())


def test_pairs_in_a_spool_come_back_as_pairs(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "spool"))
    big = "x" * 200_000
    for value in (1, None, [1, 2], big):
        spool.add(b"0", [encode(value)])
    assert list(Table(spool, as_pair)) == [(0, 1), (0, None), (0, [1, 2]), (0, big)]
    spool.close()


def test_a_spilled_and_a_held_grouping_agree(tmp_path: Path) -> None:
    chance = random.Random(20261121)
    spilled, held = Groups(20_000, str(tmp_path)), Groups(10**9, str(tmp_path))
    for number in range(20_000):
        key = canonical(chance.choice([number % 97, f"k{number % 89}", [number % 13]]))
        for groups in (spilled, held):
            groups.add(key, b"%d" % number)
    assert spilled.spilled
    assert plain(spilled) == plain(held)
    spilled.close()


MEASURED = """
import asyncio, os, resource, sys, time
from mr.codec import Items, encode
from mr.worker.frames import Limits
from tests.unit.executors import Bench

async def main(megabytes, grouping, source, huge):
    bench = Bench()
    await bench.process.start()
    recorder = bench.start_reduce(source, limits=Limits(grouping=grouping))
    sent = number = 0
    while sent < megabytes * 1_000_000:
        documents = []
        while len(documents) < 100:
            pairs = [["hot" if huge and n % 2 else f"key{(number + n) * 7919 % 1000003}", "v" * 80] for n in range(25)]
            number += 25
            documents.append(encode(pairs))
        items = Items.of(documents)
        sent += items.size_bytes
        await bench.process.send_input("datasets", items)
    bench.process.end_input()
    await bench.finish(recorder)
    print(number, recorder.closed[5].us, recorder.result(5))
    await bench.process.kill()
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)

megabytes, grouping, source, huge = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "1"
asyncio.run(main(megabytes, grouping, source, huge))
"""

STREAMED = """
def handle(results, ctx):
    groups = values = 0
    for key, group in results:
        groups += 1
        for value in group:
            values += 1
    yield "n", values
"""
INDEXED = """
assert results[0][0] == "hot" and results[-1][0].startswith("key") and len(results) > 1000
n = 0
for key, group in results:
    n += len(group)
yield "n", n
"""


def measured(megabytes: int, grouping_mb: int, source: str, huge: bool) -> int:
    """Reduce that much in an executor; checks the count and returns its peak of resident memory in MiB."""
    arguments = [str(megabytes), str(grouping_mb * 1024 * 1024), source, str(int(huge))]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    first, peak = done.stdout.strip().splitlines()
    assert first.endswith(f"[['n', {first.split()[0]}]]"), first
    return int(peak)


@pytest.mark.parametrize(("source", "huge"), [(STREAMED, False), (STREAMED, True), (INDEXED, True)])
def test_a_reduce_of_60_mb_stays_small(source: str, huge: bool) -> None:
    assert measured(60, 16, source, huge) < 120


@pytest.mark.slow
@pytest.mark.parametrize(("source", "huge"), [(STREAMED, False), (INDEXED, True)])
def test_a_reduce_of_200_mb_stays_below_300_mb(source: str, huge: bool) -> None:
    assert measured(200, 32, source, huge) < 300
