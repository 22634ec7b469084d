"""Tracing: the tree of a request while it runs, after it failed, and while it is cleaned away."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mr.cli.drawing import draw
from mr.cli.flat_list import flat_list
from mr.cli.output import painted
from mr.codec import encode
from mr.errors import InvalidName, NotFound, RequestError, RequestNotFound
from mr.model.invocation import WorkerRecord
from mr.ports.store import Put, Transaction
from mr.rules import keys
from mr.services.tree import Node, singly
from mr.settings import Settings
from mr.wiring import Parts
from tests.unit.small_worker import SmallWorker

HEADER = '# /// mr\n# handler_type = "{kind}"\n# required_capability = "none"\n# ///\n"""A handler."""\n'
SOURCES = {
    "split": HEADER.format(kind="mapper") + "def handle(arguments, ctx):\n    yield 1, 2\n",
    "count": HEADER.format(kind="mapper") + "def handle(arguments, ctx):\n    yield 1, 2\n",
    "total": HEADER.format(kind="reducer") + "def handle(results, ctx):\n    yield 1, 2\n",
}


def defined(tmp_path: Path, **variables: str) -> Parts:
    """Parts over a new file, with a workflow `w` whose job `j` begins with `split`, which maps to `count`."""
    folder = tmp_path / "handlers"
    folder.mkdir()
    for name, source in SOURCES.items():
        (folder / f"{name}.py").write_text(source)
    built = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db", **variables}))
    registry = built.registry
    registry.create_workflow("w", "")
    built.sync.apply(built.sync.plan("w", folder))
    registry.create_step("w", "split", "", "split", "", "total")
    registry.create_step("w", "count", "", "count", "", "total")
    registry.create_job("w", "j", "", "split")
    return built


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    built = defined(tmp_path)
    yield built
    built.close()


def maps_to(count: int, *, fails: str = "") -> Any:
    """A mapper whose root maps to so many leaves, of which one may fail."""

    def decide(path: str, pairs: list[Any]) -> Any:
        if path == "0":
            return "count", [[[f"key{number}", number]] for number in range(count)]
        if path == fails:
            raise ValueError("boom")
        return pairs

    return decide


def submitted(parts: Parts) -> str:
    return parts.submission.submit("w", "j", {"a": 1}).request_id


def states(nodes: list[Node]) -> list[tuple[str, str]]:
    return [(node.path, node.state) for node in singly(nodes)]


def test_a_request_that_nobody_has_begun_is_one_queued_invocation(parts: Parts) -> None:
    tree = parts.tracing.tree("w", submitted(parts))
    assert tree.root is not None
    assert (tree.root.path, tree.root.state, tree.root.step, tree.root.handler) == ("0", "queued", "split", "split")
    assert tree.root.reduce is None
    assert (tree.total, tree.done) == (1, 0)


def test_a_finished_request_has_a_result_everywhere(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(3)).work("w", r)
    tree = parts.tracing.tree("w", r)
    assert tree.root is not None
    assert tree.root.state == "succeeded"
    assert (tree.root.children_total, tree.root.children_done) == (3, 3)
    assert states(tree.root.children) == [("0.0", "succeeded"), ("0.1", "succeeded"), ("0.2", "succeeded")]
    assert tree.root.children[0].seconds == pytest.approx(0.006)
    assert tree.root.reduce is not None
    assert (tree.root.reduce.path, tree.root.reduce.state, tree.root.reduce.handler) == ("0.r", "succeeded", "total")
    assert (tree.total, tree.done) == (4, 4)


def test_a_running_request_waits_at_its_root_and_counts_what_is_done(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20), batch_size=4).work("w", r, pieces=2, drain=True)
    tree = parts.tracing.tree("w", r)
    assert tree.root is not None
    assert tree.root.state == "waiting"
    assert (tree.root.children_total, tree.root.children_done) == (20, 16)
    assert states(tree.root.children) == [(f"0.{n}", "succeeded" if n < 16 else "queued") for n in range(20)]
    assert tree.root.reduce is not None
    assert tree.root.reduce.state == "waiting"


def test_without_details_the_states_are_the_same(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20), batch_size=4).work("w", r, pieces=2, drain=True)
    quick, full = parts.tracing.tree("w", r, detailed=False), parts.tracing.tree("w", r)
    assert quick.root is not None
    assert full.root is not None
    assert states(quick.root.children) == states(full.root.children)
    assert quick.root.children[0].seconds is None
    assert full.root.children[0].seconds is not None


def test_what_a_live_worker_holds_is_running(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20), batch_size=4).work("w", r, pieces=2, drain=True)
    record = WorkerRecord(
        host="h", pid=1, capabilities=["general"], workflows=[], slots=1, version="0", started_at="", holds=[f"w/{r}/0"]
    )
    parts.store.commit(Transaction(operations=[Put(keys.worker("w9"), encode(record))]))
    root = parts.tracing.tree("w", r).root
    assert root is not None
    assert dict(states(root.children))["0.19"] == "running"


def test_a_failed_request_shows_where_why_and_what_never_ran(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20, fails="0.7")).work("w", r)
    root = parts.tracing.tree("w", r).root
    assert root is not None
    assert root.state == "failed"
    assert root.error is None
    found = dict(states(root.children))
    assert (found["0.6"], found["0.7"], found["0.8"]) == ("succeeded", "failed", "cancelled")
    (failed,) = [node for node in root.children if node.state == "failed"]
    assert failed.error is not None
    assert (failed.error.type, failed.error.message, failed.error.handler) == ("ValueError", "boom", "count")


def test_a_resumed_request_is_seen_in_its_new_life(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20, fails="0.7")).work("w", r)
    parts.submission.resume("w", r)
    root = parts.tracing.tree("w", r).root
    assert root is not None
    assert dict(states(root.children))["0.7"] == "queued"
    SmallWorker(parts, maps_to(20)).work("w", r)
    assert parts.tracing.tree("w", r).done == 21


def test_a_half_cleaned_request_shows_what_is_left(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(3)).work("w", r)
    whole = list(parts.store.range(keys.facts("w", r), limit=100).entries)
    for entry in whole:
        parts.store.delete_prefix(entry.key, limit=1)
        tree = parts.tracing.tree("w", r)
        list(draw(tree))
        list(flat_list(tree))
    assert parts.tracing.tree("w", r).root is None
    parts.cleaner.remove("w", r)
    with pytest.raises(RequestNotFound):
        parts.tracing.tree("w", r)


def test_JX_10_one_invocation_tells_what_it_did_and_printed(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20, fails="0.7")).work("w", r)
    root = parts.tracing.invocation("w", r, "0")
    assert (root.parent_invocation_id, root.mapped_count, root.mapped_waiting) == (None, 20, 13)
    assert root.output == "0 maps\n"
    done = parts.tracing.invocation("w", r, "0.3")
    assert (done.mapped_count, done.mapped_waiting) == (None, None)
    assert (done.parent_invocation_id, done.state, done.error, done.seconds) == (f"{r}.0", "succeeded", None, 0.002)
    assert done.output == "0.3\n"
    failed = parts.tracing.invocation("w", r, "0.7")
    assert (failed.state, failed.error) == ("failed", "ValueError: boom")
    assert failed.output == "0.7 was here\n"


def test_the_reduce_of_an_invocation_hangs_below_it(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(2)).work("w", r)
    found = parts.tracing.invocation("w", r, "0.r")
    assert (found.direction, found.parent_invocation_id, found.handler_name) == ("reduce", f"{r}.0", "total")


@pytest.mark.parametrize("path", ["", "1", "0.20", "0.0.0", "0.0.r", "x", "0..1", "-"])
def test_an_invocation_that_does_not_exist_is_not_found(parts: Parts, path: str) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(20)).work("w", r)
    with pytest.raises(NotFound):
        parts.tracing.invocation("w", r, path)


def test_a_request_is_found_by_id_by_its_beginning_and_with_its_workflow(parts: Parts) -> None:
    parts.registry.create_workflow("another", "")
    r = submitted(parts)
    for name in (r, r.upper(), r[:4], f"w/{r}", f"w/{r[:10]}"):
        assert parts.tracing.find(name) == ("w", r)


@pytest.mark.parametrize("name", ["", "abc", "xyzxyz", "ffff0000", "another/{r}", "../{r}", "{r}0"])
def test_what_is_no_request_is_not_found(parts: Parts, name: str) -> None:
    parts.registry.create_workflow("another", "")
    text = name.replace("{r}", submitted(parts))
    with pytest.raises((RequestNotFound, InvalidName)):
        parts.tracing.find(text)


def test_a_beginning_of_several_requests_is_refused(parts: Parts) -> None:
    r = submitted(parts)
    entry = parts.store.get(keys.request("w", r))
    assert entry is not None
    twin = r[:6] + ("0" if r[6] != "0" else "1") + r[7:]
    parts.store.commit(Transaction(operations=[Put(keys.request("w", twin), entry.value)]))
    with pytest.raises(RequestError, match="several"):
        parts.tracing.find(r[:6])


def test_ten_thousand_children_are_a_few_lines(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(10_000)).work("w", r)
    tree = parts.tracing.tree("w", r)
    lines = list(draw(tree))
    assert tree.done == 10_001
    assert len(lines) == 4
    assert "× 10,000 done" in lines[2]


def test_ten_thousand_single_parts_are_a_few_lines(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(10_000)).work("w", r, pieces=1, drain=True)
    part = b'{"execution":"x","result":{"inline":[["a",1]]},"worker":"w2","at":"2026-01-01T00:00:00.000000Z","us":7}'
    manifest = parts.datasets.manifest("w", r, "0")
    assert manifest is not None
    puts = [Put(keys.part("w", r, "0", child // manifest.slice, child), part) for child in range(0, 10_000, 2)]
    for start in range(0, len(puts), 100):
        parts.store.commit(Transaction(operations=puts[start : start + 100]))
    tree = parts.tracing.tree("w", r)
    assert tree.done == 5_000
    assert len(list(draw(tree))) < 20


def test_JX_102_the_flat_list_walks_the_graph_as_jobx_did(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(2)).work("w", r)
    assert "\n".join(flat_list(parts.tracing.tree("w", r))) == (
        "0 M [X-X] split\n"
        "  0.0 M [XXX] count\n"
        "    0.0.r R [---] count\n"
        "      0.0*\n"
        "    0.r R [---] split\n"
        "      0*\n"
        "  0.1 M [XXX] count\n"
        "    0.1.r R [---] count\n"
        "      0.1*\n"
        "    0.r R [---] split\n"
        "      0*"
    )


def test_JX_107_the_flat_list_marks_what_failed_and_shows_what_did_not_run(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(3, fails="0.1")).work("w", r)
    lines = [click.unstyle(painted(line)) for line in flat_list(parts.tracing.tree("w", r))]
    assert "  0.1 M [X--] count  FAILED ValueError: boom" in lines
    assert "  0.2 M [X--] count" in lines
    assert not any(line.strip().startswith("0.r") for line in lines)


def test_the_drawing_shows_the_few_that_are_unlike_the_many(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, maps_to(100, fails="0.70")).work("w", r)
    text = "\n".join(draw(parts.tracing.tree("w", r)))
    assert "0.70  count" in text
    assert "ValueError: boom" in text
    done, cancelled = re.findall(r"(\d+) (?:done|cancelled)", text.partition("children done")[2])
    assert int(done) + int(cancelled) == 99
    assert len(text.splitlines()) < 10
