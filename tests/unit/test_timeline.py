"""Timelines: bars by worker, packed into lanes, in the terminal and as SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mr.cli import exits
from mr.cli.main import program
from mr.cli.timeline import FAILED, axis, ticks
from mr.cli.timeline_svg import svg
from mr.codec import encode
from mr.model.invocation import WorkerRecord
from mr.ports.store import Put, Transaction
from mr.rules import keys
from mr.services.timeline import LANES_MAX, Bar, Timeline, lanes
from mr.wiring import Parts
from tests.unit.small_worker import SmallWorker
from tests.unit.test_tracing import defined, maps_to, submitted


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Parts]:
    monkeypatch.setenv("MR_STORE", f"sqlite:///{tmp_path}/mr.db")
    built = defined(tmp_path)
    yield built
    built.close()


def bar(start_s: float, end_s: float, **more: Any) -> Bar:
    return Bar(**{
        "worker": "w1", "kind": "map", "state": "succeeded", "path": "0.1", "step": "s", "start_s": start_s,
        "end_s": end_s, **more,
    })  # fmt: skip


def bars(found: Timeline) -> list[Bar]:
    return [one for rows in found.workers.values() for row in rows for one in row]


def shown(r: str) -> str:
    result = CliRunner().invoke(program, ["timeline", r])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_bars_that_follow_each_other_share_a_lane() -> None:
    found = lanes([bar(0, 2), bar(1, 3), bar(2, 4), bar(3, 5)])
    assert [[(one.start_s, one.end_s) for one in row] for row in found] == [[(0, 2), (2, 4)], [(1, 3), (3, 5)]]


def test_an_end_that_was_noted_late_makes_no_new_lane() -> None:
    assert len(lanes([bar(0, 1.01), bar(1, 2), bar(1.99, 3)])) == 1
    assert len(lanes([bar(0, 1.01), bar(0.9, 2)])) == 2


def test_a_worker_has_only_so_many_lanes_and_no_bar_is_lost() -> None:
    found = lanes([bar(0, 10) for _ in range(50)])
    assert len(found) == LANES_MAX
    assert sum(len(row) for row in found) == 50


def test_a_request_has_its_mappers_children_and_reduces(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20)).work("w", r)
    found = parts.timelines.of("w", r)
    assert list(found.workers) == ["w1"]
    told = {(one.path, one.kind, one.step, one.count) for one in bars(found)}
    assert told == {("0", "map", "split", 1), ("0.0", "map", "count", 20), ("0.r", "reduce", "split", 1)}
    children = next(one for one in bars(found) if one.count == 20)
    assert children.busy_s == pytest.approx(0.04)
    assert all(0 <= one.start_s <= one.end_s <= found.seconds for one in bars(found))


def test_JX_107_failed_attempts_and_what_runs_are_marked(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20, fails="0.7")).work("w", r)
    (failed,) = [one for one in bars(parts.timelines.of("w", r)) if one.state == "failed"]
    assert (failed.path, failed.text) == ("0.7", "attempt 1: ValueError: boom")
    text = shown(r)
    assert FAILED in text.partition("╵0")[0]
    assert "1 attempt failed" in text
    r = submitted(parts)
    SmallWorker(parts, maps_to(20), batch_size=4).work("w", r, pieces=2, drain=True)
    record = WorkerRecord(
        host="h", pid=1, capabilities=["general"], workflows=[], slots=1, version="0", started_at="", holds=[f"w/{r}/0"]
    )
    parts.store.commit(Transaction(operations=[Put(keys.worker("w9"), encode(record))]))
    assert [one.worker for one in bars(parts.timelines.of("w", r)) if one.state == "running"] == ["w9"]
    assert "runs some now" in shown(r)


def test_JX_107_a_half_cleaned_request_shows_what_is_left(parts: Parts) -> None:
    r = submitted(parts)
    assert "nothing of it has run yet" in shown(r)
    SmallWorker(parts, maps_to(3)).work("w", r)
    for entry in list(parts.store.range(keys.facts("w", r), limit=100).entries):
        parts.store.delete_prefix(entry.key, limit=1)
        shown(r)
        svg(parts.timelines.of("w", r))
    assert "nothing of it is left" in shown(r)


def test_the_picture_is_xml_with_a_bar_for_each_invocation(parts: Parts, tmp_path: Path) -> None:
    def decide(path: str, pairs: list[Any]) -> Any:
        if path == "0.7":
            raise ValueError('<b> & "x" \x00\x1b[31m')
        return maps_to(20)(path, pairs)

    r = submitted(parts)
    SmallWorker(parts, decide).work("w", r)
    place = tmp_path / "timeline.svg"
    result = CliRunner().invoke(program, ["timeline", r, "--svg", str(place)])
    assert result.exit_code == 0, result.output
    titles = [one.text or "" for one in ET.fromstring(place.read_text()).iter() if one.tag.endswith("title")]
    assert any(title.startswith("0.0 and 6 more: map of count, succeeded") for title in titles)
    assert any('ValueError: <b> & "x" ��[31m' in title for title in titles)


def test_bars_that_touch_are_one_rectangle(parts: Parts) -> None:
    r = submitted(parts)
    made = [bar(number / 1000, (number + 1) / 1000) for number in range(10_000)]
    found = Timeline(
        workflow="w", request_id=r, request=parts.results.request("w", r), seconds=10.0, workers={"w1": lanes(made)}
    )
    assert svg(found).count("and 9,999 more") == 1


@pytest.mark.parametrize("seconds", [0.0, 0.000_3, 0.7, 9.99, 10.0, 61.0, 86_400.0, 1e9])
def test_times_below_a_chart_are_round_and_few(seconds: float) -> None:
    found = ticks(seconds, 6)
    assert found[0] == 0
    assert found == sorted(set(found))
    assert found[-1] <= seconds * 1.000_001
    assert len(found) <= 7
    assert seconds == 0 or len(found) > 1


def test_a_file_that_cannot_be_written_is_named(parts: Parts) -> None:
    result = CliRunner().invoke(program, ["timeline", submitted(parts), "--svg", "/nowhere/x.svg"])
    assert result.exit_code == exits.FAILED
    assert "/nowhere/x.svg cannot be written" in result.stderr


@pytest.mark.parametrize("seconds", [0.0, 0.0051, 1.0, 60.0, 36_000.0])
@pytest.mark.parametrize("width", [40, 67, 160])
def test_the_times_below_the_chart_end_where_the_chart_does(seconds: float, width: int) -> None:
    line = axis(seconds, width)
    assert line.startswith("╵0")
    assert len(line) <= width
    assert not seconds or line.count("╵") >= 3
