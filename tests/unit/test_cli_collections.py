"""`mr collections`: what it prints, asks and refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mr.cli.exits import FAILED, REFUSED, USAGE
from mr.services.collections import Collections
from mr.settings import Settings
from mr.wiring import Parts
from tests.unit.command_line import done, refused


@pytest.fixture(autouse=True)
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collections]:
    """A workflow `w` with the queue `seen` and the tree `totals`."""
    monkeypatch.setenv("MR_STORE", f"sqlite:///{tmp_path}/mr.db")
    done("workflow", "create", "w", "A workflow")
    parts = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db"}))
    queue, tree = parts.collections.queue("w", "seen"), parts.collections.tree("w", "totals")
    for number in range(5):
        queue.append(b'{"n":%d}' % number)
    tree.put(b"1", "a")
    tree.put(b'"red"', "a", "col/our")
    tree.put(b"[2]", "b", "c")
    yield parts.collections
    parts.close()


def test_the_collections_of_a_workflow_are_listed() -> None:
    assert done("collections", "ls", "w").stdout.split() == [
        "KIND", "NAME", "VALUES", "queues", "seen", "5", "trees", "totals", "3",
    ]  # fmt: skip
    assert done("collections", "ls", "w:queues", "--plain").stdout == "queues\tseen\t5\n"
    assert json.loads(done("collections", "ls", "w", "--json").stdout) == [
        {"kind": "queues", "name": "seen", "count": 5}, {"kind": "trees", "name": "totals", "count": 3},
    ]  # fmt: skip


def test_the_items_of_a_queue_are_listed_from_anywhere() -> None:
    assert (
        done("collections", "ls", "w:queues/seen", "--plain", "--limit", "2").stdout == '0\t7\t{"n":0}\n1\t7\t{"n":1}\n'
    )
    found = json.loads(done("collections", "ls", "w/queues/seen", "--after", "2", "--json").stdout)
    assert found == [{"number": 3, "value": {"n": 3}}, {"number": 4, "value": {"n": 4}}]
    assert done("collections", "ls", "w:queues/seen/3", "--plain").stdout == '3\t7\t{"n":3}\n'
    assert done("collections", "ls", "w:queues/not-there", "--plain").stdout == ""


def test_the_children_of_a_node_are_listed_with_their_values() -> None:
    assert done("collections", "ls", "w:trees/totals", "--plain").stdout == "a\t1\t1\nb\t\t\n"
    assert done("collections", "ls", "w:trees/totals/a", "--plain").stdout == 'col/our\t5\t"red"\n'
    assert json.loads(done("collections", "ls", "w:trees/totals", "--json").stdout) == [
        {"name": "a", "has_value": True, "value": 1}, {"name": "b", "has_value": False, "value": None},
    ]  # fmt: skip


def test_values_are_printed_as_JSON_one_or_all() -> None:
    assert done("collections", "get", "w:queues/seen/3").stdout == '{"n":3}\n'
    assert done("collections", "get", "w:trees/totals/a/col%2Four", "--json").stdout == '"red"\n'
    lines = done("collections", "get", "-r", "w:trees/totals").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [[["a"], 1], [["a", "col/our"], "red"], [["b", "c"], [2]]]
    assert json.loads(done("collections", "get", "-r", "w:queues/seen/3", "--json").stdout) == [
        [3, {"n": 3}],
        [4, {"n": 4}],
    ]


def test_what_is_not_there_is_said_with_the_next_step() -> None:
    assert "there is no value at w:trees/totals/b" in refused(FAILED, "collections", "get", "w:trees/totals/b")
    assert "mr collections ls w" in refused(FAILED, "collections", "get", "w:queues/seen/7")
    assert "add -r" in refused(USAGE, "collections", "get", "w:queues/seen")
    assert "expected the number of an item, got: x" in refused(USAGE, "collections", "get", "w:queues/seen/x")
    assert "w is no collection" in refused(FAILED, "collections", "get", "w")
    assert "expected queues/NAME or trees/NAME" in refused(USAGE, "collections", "ls", "w:files/x")
    assert "mr workflow list" in refused(FAILED, "collections", "ls", "nobody")
    assert "is not allowed" in refused(USAGE, "collections", "ls", "w:queues/..")


def test_what_is_removed_is_asked_for_and_nothing_else_goes(shared: Collections) -> None:
    assert "--yes" in refused(USAGE, "collections", "rm", "w:queues/seen")
    assert "it goes as a whole" in refused(USAGE, "collections", "rm", "w:queues/seen/1", "--yes")
    assert "one at a time" in refused(FAILED, "collections", "rm", "w", "--yes")
    assert "removed w:trees/totals/a" in done("collections", "rm", "w:trees/totals/a", "--yes").stderr
    assert [path for path, _ in shared.tree("w", "totals").walk()] == [("b", "c")]
    done("collections", "rm", "w:queues/seen", "--yes")
    assert len(shared.queue("w", "seen")) == 0
    assert len(shared.tree("w", "totals")) == 1


def test_a_workflow_with_collections_goes_only_with_force(shared: Collections) -> None:
    assert "collections" in refused(REFUSED, "workflow", "rm", "w", "--yes")
    assert "with collections" in done("workflow", "rm", "w", "--force", "--yes").stderr
    assert shared.listing("w") == []
