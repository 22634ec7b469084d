"""JobX's scripts for requests and their invocations."""

from __future__ import annotations

import click

from mr.cli.jobx.script import entity, script, simulation
from mr.cli.output import echo, lines
from mr.cli.session import opened


@script("workflow_name", "request_id", example="test_workflow c1ef1a0d645e9a01fae9de1b7eca412fb14372c3")
def mr_kv_request_get(workflow_name: str, request_id: str) -> None:
    """Print a request."""
    with opened() as parts:
        w, r = parts.tracing.find(f"{workflow_name}/{request_id}")
        found = parts.results.request(w, r)
    entity("request", {"workflow_name": w, "request_id": r}, found)


@script("workflow_name", "request_id", example="test_workflow c1ef1a0d645e9a01fae9de1b7eca412fb14372c3 -s")
@click.option("-s", "--simulate", is_flag=True, help="Only print the keys that would go.")
def mr_kv_request_cleanup(workflow_name: str, request_id: str, simulate: bool) -> None:
    """Remove a request that is over, with everything below it, at once."""
    with opened() as parts:
        w, r = parts.tracing.find(f"{workflow_name}/{request_id}")
        if not simulate:
            parts.cleaner.remove(w, r)
            return
        simulation()
        for key in parts.cleaner.would_remove(w, r):
            echo(key)


@script("workflow_name", "invocation_id", example="test_workflow c1ef1a0d645e9a01fae9de1b7eca412fb14372c3.0.17")
def mr_kv_invocation_get(workflow_name: str, invocation_id: str) -> None:
    """Print an invocation, named <request>.<path>."""
    from mr.cli.invocation import split

    name, path = split(f"{workflow_name}/{invocation_id}")
    with opened() as parts:
        w, r = parts.tracing.find(name)
        found = parts.tracing.invocation(w, r, path)
    entity("invocation", {"workflow_name": w, "invocation_id": f"{r}.{path}"}, found)


@script("workflow_name", "request_id", example="test_workflow c1ef1a0d645e9a01fae9de1b7eca412fb14372c3")
def mr_get_invocation_flat_list(workflow_name: str, request_id: str) -> None:
    """Print the invocations of a request, one line for each visit."""
    from mr.cli.flat_list import flat_list

    with opened() as parts:
        tree = parts.tracing.tree(*parts.tracing.find(f"{workflow_name}/{request_id}"))
    lines(flat_list(tree))


@script("workflow_name", "request_id", example="test_workflow c1ef1a0d645e9a01fae9de1b7eca412fb14372c3")
def mr_get_invocation_graph(workflow_name: str, request_id: str) -> None:
    """Print every invocation of a request, with its data."""
    from mr.cli.dump import dumped

    with opened() as parts:
        w, r = parts.tracing.find(f"{workflow_name}/{request_id}")
        lines(dumped(*parts.dump.of(w, r, limit=None)))


@script("workflow_name", "request_id", example="test_workflow c1ef1a0d645e9a01fae9de1b7eca412fb14372c3")
def mr_get_request_sessions(workflow_name: str, request_id: str) -> None:
    """Print what the mappers of a request kept for their reducers."""
    from mr.cli.dump import kept

    with opened() as parts:
        found = parts.sessions.of(*parts.tracing.find(f"{workflow_name}/{request_id}"))
    lines(kept(found))


@script("workflow_name", "request_id", example="test_workflow c1ef1a0d645e9a01fae9de1b7eca412fb14372c3")
def mr_draw_invocation_graph(workflow_name: str, request_id: str) -> None:
    """Write the graph of a request to request-<id>.dot in the current directory."""
    from mr.cli.graph import write
    from mr.services.dot import dot

    with opened() as parts:
        w, r = parts.tracing.find(f"{workflow_name}/{request_id}")
        found = dot(parts.pictures.graph(w, r, everything=True))
    echo(write(f"request-{r}.dot", found.encode()))
