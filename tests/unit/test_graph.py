"""The graph of a request: JobX's labels and edges, folds that keep it small, and text that anybody may have chosen."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mr.adapters.renderers.graphviz import GraphvizRenderer
from mr.errors import PictureUnavailable
from mr.rules import keys
from mr.services.dot import dot, quoted
from mr.services.graph import VERTICES_MAX, Graph
from mr.wiring import Parts
from tests.servers import program
from tests.unit.small_worker import SmallWorker
from tests.unit.test_tracing import defined, maps_to, submitted

NASTY = 'a "quote", C:\\N\\, &amp; <b>&#60;</b> \x00\x1b[31m\ud800 ünïcode\nnext'


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    built = defined(tmp_path)
    yield built
    built.close()


def drawn(parts: Parts, decide: Any, **how: Any) -> Graph:
    r = submitted(parts)
    SmallWorker(parts, decide, batch_size=how.pop("batch_size", None)).work("w", r, **how)
    return parts.pictures.graph("w", r)


def edges(graph: Graph) -> set[tuple[str, str, str]]:
    return {(edge.source, edge.label, edge.target) for edge in graph.edges}


def nested(widths: list[int]) -> Any:
    """A mapper that maps so often on each level."""

    def decide(path: str, pairs: list[Any]) -> Any:
        level = path.count(".")
        return ("count", [[[f"k{n}", n]] for n in range(widths[level])]) if level < len(widths) else pairs

    return decide


def test_JX_104_the_edges_are_those_of_jobx(parts: Parts) -> None:
    assert edges(drawn(parts, maps_to(2))) == {
        ("Q", "resolve workflow", "W"),
        ("W", "resolve job from request in workflow", "J"),
        ("J", "", "I0"),
        ("I0", "mapped to", "I0.0"),
        ("I0", "mapped to", "I0.1"),
        ("I0.0", "data reduced by", "I0.0.r"),
        ("I0.1", "data reduced by", "I0.1.r"),
        ("I0.0.r", "stored to", "I0.0"),
        ("I0.1.r", "stored to", "I0.1"),
        ("I0.0", "step reduced by", "I0.r"),
        ("I0.1", "step reduced by", "I0.r"),
        ("I0.r", "stored to", "I0"),
    }


def test_JX_104_the_labels_are_those_of_jobx(parts: Parts) -> None:
    graph = drawn(parts, maps_to(2))
    text = dot(graph)
    r = graph.request_id
    assert text.startswith(f"// Request {r}\n")
    for label in (
        f'"Q" [label="Request ({r[:10]})',
        '"W" [label="Workflow (w)"',
        '"J" [label="Job (j)"',
        '"I0.1" [label="S \\"count\\" H \\"count\\" MI 0.1',
        '"I0.1.r" [label="S \\"count\\" H \\"total\\" RI 0.1.r',
        '"I0" -> "I0.1" [label="mapped to"]',
    ):
        assert label in text


def test_a_mapper_that_maps_to_nothing_is_reduced_all_the_same(parts: Parts) -> None:
    assert ("I0", "data reduced by", "I0.r") in edges(drawn(parts, maps_to(0)))


def test_JX_107_what_failed_is_red_with_its_error(parts: Parts) -> None:
    graph = drawn(parts, maps_to(20, fails="0.7"))
    failed = next(vertex for vertex in graph.vertices if vertex.path == "0.7")
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.message == "boom"
    line = next(line for line in dot(graph).splitlines() if line.strip().startswith('"I0.7"'))
    assert "ValueError: boom" in line
    assert 'color="#d93025"' in line
    assert not [edge for edge in graph.edges if edge.source == "I0.7"]


def test_JX_107_a_running_request_is_drawn_as_far_as_it_has_come(parts: Parts) -> None:
    graph = drawn(parts, maps_to(20), batch_size=4, pieces=2, drain=True)
    folds = {vertex.state: vertex.alike for vertex in graph.vertices if vertex.alike > 1}
    assert folds == {"succeeded": 16, "queued": 4}
    assert not [vertex for vertex in graph.vertices if vertex.path == "0.r"]


def test_JX_107_a_half_cleaned_request_is_drawn_with_what_is_left(parts: Parts) -> None:
    r = submitted(parts)
    SmallWorker(parts, nested([3, 2])).work("w", r)
    for entry in list(parts.store.range(keys.facts("w", r), limit=100).entries):
        parts.store.delete_prefix(entry.key, limit=1)
        dot(parts.pictures.graph("w", r))
    assert [vertex.id for vertex in parts.pictures.graph("w", r).vertices] == ["Q", "W", "J"]


def test_many_alike_are_one_vertex(parts: Parts) -> None:
    graph = drawn(parts, maps_to(10_000))
    assert graph.is_folded
    assert len(graph.vertices) == 6
    assert "× 10,000 done" in dot(graph)
    assert ("I0.0", "step reduced by", "I0.r") in edges(graph)


def test_a_bushy_request_is_folded_until_it_fits(parts: Parts) -> None:
    graph = drawn(parts, nested([6, 6, 6]))
    assert graph.is_folded
    assert 10 < len(graph.vertices) <= VERTICES_MAX
    everything = parts.pictures.graph("w", graph.request_id, everything=True)
    assert not everything.is_folded
    assert sum(vertex.kind in ("map", "reduce") for vertex in everything.vertices) == 2 * (1 + 6 + 36 + 216)


def test_every_edge_joins_vertices_that_are_drawn(parts: Parts) -> None:
    for decide in (maps_to(20, fails="0.7"), nested([3, 20]), nested([20, 3]), maps_to(0)):
        graph = drawn(parts, decide)
        known = [vertex.id for vertex in graph.vertices]
        assert len(set(known)) == len(known)
        assert {end for edge in graph.edges for end in (edge.source, edge.target)} == set(known)


def test_text_of_users_is_shown_as_it_is(tmp_path: Path) -> None:
    program("dot")
    source = f"digraph {{ {quoted('a')} [label={quoted(NASTY)}, tooltip={quoted(NASTY)}] }}"
    picture = ET.fromstring(GraphvizRenderer().render(source, "svg"))
    shown = [element.text for element in picture.iter() if element.tag.endswith("}text")]
    assert shown == ['a "quote", C:\\N\\, &amp; <b>&#60;</b> ��[31m� ünïcode', "next"]


def test_a_handler_may_fail_with_any_text(parts: Parts) -> None:
    program("dot")

    def decide(path: str, pairs: list[Any]) -> Any:
        raise ValueError(NASTY.replace("\ud800", ""))

    graph = drawn(parts, decide)
    assert parts.pictures.draw("w", graph.request_id, "png").startswith(b"\x89PNG")
    text = b"".join(parts.pictures.draw("w", graph.request_id, "svg").split())
    assert b"C:\\N\\" in text


def test_without_graphviz_it_is_said_what_to_install() -> None:
    with pytest.raises(PictureUnavailable, match="apt-get install graphviz"):
        GraphvizRenderer("no-such-program").render("digraph {}", "png")


def test_a_program_that_fails_is_quoted() -> None:
    program("dot")
    with pytest.raises(PictureUnavailable, match="syntax error"):
        GraphvizRenderer().render("digraph {", "png")


def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    slow = tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {pid}.new && mv {pid}.new {pid}\nexec sleep 600\n")
    slow.chmod(0o755)
    with pytest.raises(PictureUnavailable, match="took longer than 2 s"):
        GraphvizRenderer(str(slow), patience_s=2.0).render("digraph {}", "png")
    assert subprocess.run(["kill", "-0", pid.read_text().strip()], capture_output=True, check=False).returncode != 0
