"""A graph in DOT, the language of Graphviz.

The labels and edges are JobX's, with paths as ids. Below a label stands what JobX did not say: how many invocations
are folded there, how far they are, how long they took, and in red why one failed.

The hard part is text that users chose. A label knows escapes (`\\N`, `\\n`) and entities (`&amp;`), so backslashes,
quotes and ampersands are escaped, and what cannot be printed is replaced, or an SVG made of it would be no XML.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from mr.model.invocation import ErrorReport
from mr.services.graph import Edge, Graph, Vertex

ID_SHOWN = 10
"""Digits of a request's id in its label."""
ERROR_COLUMNS, ERROR_LINES = 48, 3
TOOLTIP_MAX = 2000
FONT = "DejaVu Sans,Helvetica,Arial"

_GRAPH = {
    "rankdir": "LR",
    "ordering": "out",
    "fontname": FONT,
    "nodesep": "0.3",
    "ranksep": "0.45",
    "pad": "0.25",
    "bgcolor": "white",
}
_NODE = {"fontname": FONT, "fontsize": "11", "shape": "box", "style": "rounded,filled", "margin": "0.14,0.08"}
_EDGE = {"fontname": FONT, "fontsize": "9", "fontcolor": "#5f6368", "color": "#80868b", "arrowsize": "0.7"}

_SHAPES: Mapping[str, Mapping[str, str]] = {
    "request": {"fillcolor": "#202124", "color": "#202124", "fontcolor": "white"},
    "workflow": {"fillcolor": "#f1f3f4", "color": "#bdc1c6"},
    "job": {"fillcolor": "#f1f3f4", "color": "#bdc1c6"},
    "map": {},
    "reduce": {"shape": "octagon", "style": "filled", "margin": "0.05,0.03"},
}
_STATES: Mapping[str, Mapping[str, str]] = {
    "succeeded": {"fillcolor": "#e6f4ea", "color": "#34a853"},
    "failed": {"fillcolor": "#fce8e6", "color": "#d93025", "fontcolor": "#a50e0e", "penwidth": "2.2"},
    "running": {"fillcolor": "#e8f0fe", "color": "#1a73e8"},
    "queued": {"fillcolor": "white", "color": "#80868b"},
    "waiting": {"fillcolor": "#fef7e0", "color": "#f9ab00"},
    "cancelled": {"fillcolor": "#f1f3f4", "color": "#bdc1c6", "fontcolor": "#5f6368"},
}
_EDGES: Mapping[str, Mapping[str, str]] = {
    # The way back does not decide where things stand.
    "stored to": {"style": "dashed", "color": "#bdc1c6"},
}
_WORDS = {"succeeded": "done"}


def dot(graph: Graph) -> str:
    """The source text of a picture of the graph."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    yield f"// Request {graph.request_id}"
    yield "digraph {"
    yield f"    graph{_attributes(_GRAPH)}"
    yield f"    node{_attributes(_NODE)}"
    yield f"    edge{_attributes(_EDGE)}"
    for vertex in graph.vertices:
        yield f"    {quoted(vertex.id)}{_attributes(_of_vertex(vertex))}"
    states = {vertex.id: vertex.state for vertex in graph.vertices}
    for edge in graph.edges:
        yield f"    {quoted(edge.source)} -> {quoted(edge.target)}{_attributes(_of_edge(edge, states[edge.target]))}"
    yield "}"


def _of_vertex(vertex: Vertex) -> dict[str, str]:
    label = [_label(vertex), *_below(vertex)]
    found = {"label": "\n".join(label)}
    found |= _SHAPES[vertex.kind]
    if vertex.path:
        found |= _STATES[vertex.state]
    if vertex.alike > 1:
        found["peripheries"] = "2"
    if vertex.state == "failed" and not vertex.path:
        found |= {"fillcolor": "#d93025", "color": "#d93025"}
    report = vertex.error or (vertex.attempts[-1] if vertex.attempts else None)
    if report is not None:
        found["tooltip"] = f"{report.type}: {report.message}"[:TOOLTIP_MAX]
    elif vertex.worker:
        found["tooltip"] = f"worker {vertex.worker}"
    return found


def _of_edge(edge: Edge, state: str) -> dict[str, str]:
    found = dict(_EDGES.get(edge.label, {}))
    if edge.label:
        found["label"] = edge.label
    if state == "failed":
        found["color"] = "#d93025"
    return found


def _label(vertex: Vertex) -> str:
    """What JobX wrote there."""
    match vertex.kind:
        case "request":
            return f"Request ({vertex.name[:ID_SHOWN]})"
        case "workflow":
            return f"Workflow ({vertex.name})"
        case "job":
            return f"Job ({vertex.name})"
    letter = "MI" if vertex.kind == "map" else "RI"
    others = " …" if vertex.alike > 1 else ""
    return f'S "{vertex.step}" H "{vertex.handler}" {letter} {vertex.path}{others}'


def _below(vertex: Vertex) -> Iterator[str]:
    """What is to be said besides."""
    if not vertex.path:
        if vertex.state:
            yield vertex.state
        return
    words = []
    if vertex.alike > 1:
        more = "more " if vertex.is_rest else ""
        words.append(f"× {vertex.alike:,} {more}{_WORDS.get(vertex.state, vertex.state)}")
    elif vertex.state != "succeeded":
        words.append(vertex.state)
    if vertex.children_total is not None:
        words.append(f"{vertex.children_done:,} of {vertex.children_total:,} children done")
    if vertex.seconds is not None:
        words.append(_time(vertex.seconds) + (" in all" if vertex.alike > 1 else ""))
    if words:
        yield ", ".join(words)
    if vertex.error is not None:
        attempt = f"attempt {vertex.error.attempt}: " if vertex.error.attempt > 1 else ""
        yield from _wrapped(f"{attempt}{_text(vertex.error)}")
    elif vertex.attempts:
        times = "1 attempt" if len(vertex.attempts) == 1 else f"{len(vertex.attempts)} attempts"
        yield from _wrapped(f"{times} failed: {_text(vertex.attempts[-1])}")


def _text(report: ErrorReport) -> str:
    return f"{report.type}: {report.message}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, ERROR_COLUMNS, max_lines=ERROR_LINES, placeholder=" …")


def _time(seconds: float) -> str:
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:,.1f} s"


def _attributes(found: Mapping[str, str]) -> str:
    return f" [{', '.join(f'{name}={quoted(value)}' for name, value in found.items())}]" if found else ""


def quoted(text: str) -> str:
    """Any text as a string of DOT that is shown as it is, with its line breaks."""
    plain = "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    plain = plain.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;").replace("\n", "\\n")
    return f'"{plain}"'
