"""The dump of a request with its data, and its sessions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mr.cli.dump import dumped, kept
from mr.errors import RequestNotFound
from mr.ports.store import Put, Transaction
from mr.rules import keys
from mr.services.dump import Visit
from mr.wiring import Parts
from tests.unit.small_worker import Decide, SmallWorker
from tests.unit.test_tracing import defined, maps_to, submitted


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    built = defined(tmp_path)
    yield built
    built.close()


def kept_by_root(decide: Decide) -> Decide:
    """The same, and the root keeps a value for its reducer."""

    def keep(path: str, pairs: list[Any]) -> Any:
        decided = decide(path, pairs)
        return (*decided, {"seed": b'{"n":7}'}) if path == "0" else decided

    return keep


def ran(parts: Parts, decide: Decide, **how: Any) -> str:
    r = submitted(parts)
    SmallWorker(parts, decide, batch_size=how.pop("batch_size", None)).work("w", r, **how)
    return r


def visits(parts: Parts, r: str, limit: int | None = None) -> dict[str, Visit]:
    return {visit.path: visit for visit in parts.dump.of("w", r, limit=limit)[1]}


def text(parts: Parts, r: str) -> str:
    return click.unstyle("\n".join(dumped(*parts.dump.of("w", r))))


def test_JX_103_every_invocation_is_reached_by_an_edge(parts: Parts) -> None:
    shown = text(parts, ran(parts, maps_to(2)))
    edges = [line for line in shown.splitlines() if line.startswith(("ROOT", "PARENT"))]
    assert edges == [
        "ROOT [0] [split]",
        "PARENT [0] [split]  has MAPPED to  CHILD [0.0] [count]",
        "PARENT [0.0] [count]  was REDUCED by  CHILD [0.0.r] [count]",
        "PARENT [0] [split]  has MAPPED to  CHILD [0.1] [count]",
        "PARENT [0.1] [count]  was REDUCED by  CHILD [0.1.r] [count]",
        "PARENT [0] [split]  was REDUCED by  CHILD [0.r] [split]",
    ]
    assert shown.count("==> INVOCATION [map]") == 3
    assert shown.count("==> INVOCATION [reduce]") == 3


def test_JX_103_a_mapper_stands_with_its_arguments_and_what_came_out(parts: Parts) -> None:
    shown = text(parts, ran(parts, maps_to(2)))
    assert '  Arguments:\n    "a": 1\n  Post-Reduce:\n    "key0": 0\n    "key1": 1\n' in shown
    assert '  Arguments:\n    "key1": 1\n  Post-Reduce:\n    "key1": 1\n' in shown


def test_each_of_many_children_has_its_own_data(parts: Parts) -> None:
    found = visits(parts, ran(parts, maps_to(5000)))
    assert len(found) == 2 * 5001
    for number in (0, 1, 1023, 1024, 4999):
        visit = found[f"0.{number}"]
        assert visit.arguments is not None
        assert visit.reduced is not None
        assert visit.arguments.pairs == visit.reduced.pairs == [[f"key{number}", number]]


def test_of_children_that_are_not_done_there_are_arguments(parts: Parts) -> None:
    found = visits(parts, ran(parts, maps_to(20), batch_size=4, pieces=2, drain=True))
    assert found["0.15"].reduced is not None
    assert (found["0.16"].reduced, found["0.16"].state) == (None, "queued")
    assert found["0.19"].arguments is not None
    assert found["0.19"].arguments.pairs == [["key19", 19]]
    assert "0.r" not in found


def test_no_more_of_a_dataset_is_shown_than_asked_for(parts: Parts) -> None:
    found = visits(parts, ran(parts, maps_to(5)), limit=2)
    assert found["0"].reduced is not None
    assert (len(found["0"].reduced.pairs), found["0"].reduced.is_cut) == (2, True)


def test_JX_107_what_failed_stands_with_its_traceback(parts: Parts) -> None:
    shown = text(parts, ran(parts, maps_to(3, fails="0.1")))
    assert "ERROR ValueError: boom" in shown
    failed = shown.partition("CHILD [0.1] [count]")[2].partition("==>")[0]
    assert "FAILED (attempt 1 on worker w1): ValueError: boom" in failed
    assert "Traceback (most recent call last)" in failed


def test_JX_107_a_half_cleaned_request_is_dumped_with_what_is_left(parts: Parts) -> None:
    r = ran(parts, kept_by_root(maps_to(3)))
    for entry in list(parts.store.range(keys.facts("w", r), limit=100).entries):
        parts.store.delete_prefix(entry.key, limit=1)
        text(parts, r)
        parts.sessions.of("w", r)
    assert "its invocations are cleaned away" in text(parts, r)
    assert parts.sessions.of("w", r) == []


def test_JX_106_sessions_of_mappers_are_shown(parts: Parts) -> None:
    r = ran(parts, kept_by_root(maps_to(2)))
    (session,) = parts.sessions.of("w", r)
    assert (session.path, session.values) == ("0", {"seed": {"n": 7}})
    assert list(kept([session])) == ["Invocation: 0", '[seed]: [{"n":7}]', ""]
    assert parts.sessions.of("w", ran(parts, maps_to(2))) == []


def test_values_of_an_execution_that_lost_are_not_shown(parts: Parts) -> None:
    r = ran(parts, kept_by_root(maps_to(2)))
    parts.store.commit(Transaction(operations=[Put(keys.session("w", r, "0", "other.1", "seed"), b"8")]))
    (session,) = parts.sessions.of("w", r)
    assert session.values == {"seed": {"n": 7}}


def test_what_does_not_exist_has_no_dump(parts: Parts) -> None:
    with pytest.raises(RequestNotFound):
        parts.dump.of("w", "0" * 40)
    with pytest.raises(RequestNotFound):
        parts.sessions.of("w", "0" * 40)
