"""JobX's commands: the same names, arguments and output, on the same services as `mr`.

One function for each console script; what they share stands below them. Entities are printed as
`{"entity_name", "primary_key", "data"}`, indented by 4.
"""

from __future__ import annotations

import pprint
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import msgspec

from mr.cli.command import Command
from mr.cli.output import document, lines, say
from mr.cli.session import opened
from mr.errors import ConfigError, InvalidStep

BAD_HANDLER = {"mapper": 1, "combiner": 2, "reducer": 3}
"""Exit codes of `mr_kv_step_create` by the role whose handler is wrong."""


def entity(name: str, primary_key: Mapping[str, str], data: msgspec.Struct) -> None:
    """Print one entity."""
    document({"entity_name": name, "primary_key": dict(primary_key), "data": data}, indent=4)


def listing(found: Mapping[str, msgspec.Struct], *, without: str = "") -> None:
    """Print entities: `name:`, then a pretty-printed dict."""
    for name, one in found.items():
        built = msgspec.to_builtins(one)
        click.echo(f"{name}:")
        click.echo(pprint.pformat({key: value for key, value in built.items() if key != without}))
        click.echo()


def script(*arguments: str, example: str) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Make a console script of a function with these positional arguments, and whatever options it has."""

    def make(function: Callable[..., Any]) -> Callable[[], None]:
        name = function.__name__
        for argument in reversed(arguments):
            function = click.argument(argument)(function)
        command = click.command(name, cls=Command, examples=[f"{name} {example}".rstrip()])(function)
        COMMANDS[name] = command

        def main() -> None:
            command.main(prog_name=name)

        main.__name__, main.__doc__ = name, function.__doc__
        return main

    return make


COMMANDS: dict[str, click.Command] = {}
"""Every alias by its name."""


@script("workflow_name", "description", example='test_workflow "Jobs that assist build and deployment."')
def mr_kv_workflow_create(workflow_name: str, description: str) -> None:
    """Create a workflow."""
    with opened() as parts:
        made = parts.registry.create_workflow(workflow_name, description)
    entity("workflow", {"workflow_name": workflow_name}, made)


@script("workflow_name", example="test_workflow")
def mr_kv_workflow_get(workflow_name: str) -> None:
    """Print a workflow."""
    with opened() as parts:
        found = parts.registry.get_workflow(workflow_name)
    entity("workflow", {"workflow_name": workflow_name}, found)


@script("workflow_name", "path", example="test_workflow handlers")
@click.option("-s", "--simulate_only", is_flag=True, help="Check everything, write nothing.")
@click.option("-f", "--force", is_flag=True, help="Write also what is the same.")
def mr_kv_handler_store(workflow_name: str, path: str, simulate_only: bool, force: bool) -> int | None:
    """Make the files below a folder the handlers of a workflow."""
    from mr.cli.handler import tell

    with opened() as parts:
        plan = parts.sync.plan(workflow_name, Path(path), force=force)
        if plan.is_good and not simulate_only:
            plan = parts.sync.apply(plan)
    return tell(plan, dry_run=simulate_only)


@script("workflow_name", "handler_name", example="test_workflow map_split")
def mr_kv_handler_get(workflow_name: str, handler_name: str) -> None:
    """Print a handler."""
    with opened() as parts:
        found = parts.registry.get_handler(workflow_name, handler_name)
    entity("handler", {"workflow_name": workflow_name, "handler_name": handler_name}, found)


@script("workflow_name", example="test_workflow")
def mr_kv_handler_list(workflow_name: str) -> None:
    """Print all handlers, without their code."""
    with opened() as parts:
        found = parts.registry.list_handlers(workflow_name)
    listing(found, without="source_code")


@script(
    "workflow_name", "step_name", "description", "map_handler_name", "combine_handler_name", "reduce_handler_name",
    example="test_workflow count 'Count the words' map_split '' reduce_sum",
)  # fmt: skip
def mr_kv_step_create(
    workflow_name: str,
    step_name: str,
    description: str,
    map_handler_name: str,
    combine_handler_name: str,
    reduce_handler_name: str,
) -> int | None:
    """Create a step; '' is no combiner. Exits with 1, 2 or 3 for a bad mapper, combiner or reducer."""
    with opened() as parts:
        try:
            made = parts.registry.create_step(
                workflow_name, step_name, description, map_handler_name, combine_handler_name, reduce_handler_name
            )
        except InvalidStep as error:
            if error.role not in BAD_HANDLER:
                raise
            click.echo(error.message, err=True)
            click.echo(f"  {error.hint}", err=True)
            return BAD_HANDLER[error.role]
    entity("step", {"workflow_name": workflow_name, "step_name": step_name}, made)
    return None


@script("workflow_name", "step_name", example="test_workflow count")
def mr_kv_step_get(workflow_name: str, step_name: str) -> None:
    """Print a step."""
    with opened() as parts:
        found = parts.registry.get_step(workflow_name, step_name)
    entity("step", {"workflow_name": workflow_name, "step_name": step_name}, found)


@script("workflow_name", example="test_workflow")
def mr_kv_step_list(workflow_name: str) -> None:
    """Print all steps as four tables: by step, by mapper, by combiner, by reducer."""
    from mr.cli.output import table

    with opened() as parts:
        found = parts.registry.list_steps(workflow_name)
    columns = ["Step", "Mapper", "Combiner", "Reducer"]
    rows = [
        [name, one.map_handler_name, one.combine_handler_name or "", one.reduce_handler_name]
        for name, one in found.items()
    ]
    for first, title in enumerate(columns):
        order = [first, *(column for column in range(len(columns)) if column != first)]
        click.echo(f"By {title.lower()}:")
        click.echo()
        table([columns[column] for column in order], sorted([row[column] for column in order] for row in rows))
        click.echo()


@script(
    "workflow_name", "job_name", "description", "initial_step_name",
    example="test_workflow wordcount 'Count the words' count",
)  # fmt: skip
def mr_kv_job_create(workflow_name: str, job_name: str, description: str, initial_step_name: str) -> None:
    """Create a job."""
    with opened() as parts:
        made = parts.registry.create_job(workflow_name, job_name, description, initial_step_name)
    entity("job", {"workflow_name": workflow_name, "job_name": job_name}, made)


@script("workflow_name", "job_name", example="test_workflow wordcount")
def mr_kv_job_get(workflow_name: str, job_name: str) -> None:
    """Print a job."""
    with opened() as parts:
        found = parts.registry.get_job(workflow_name, job_name)
    entity("job", {"workflow_name": workflow_name, "job_name": job_name}, found)


@script("workflow_name", example="test_workflow")
def mr_kv_job_list(workflow_name: str) -> None:
    """Print all jobs."""
    with opened() as parts:
        found = parts.registry.list_jobs(workflow_name)
    listing(found)


@script("workflow_name", "request_id", example="test_workflow c1ef1a0d645e9a01fae9de1b7eca412fb14372c3")
def mr_kv_request_get(workflow_name: str, request_id: str) -> None:
    """Print a request."""
    with opened() as parts:
        w, r = parts.tracing.find(f"{workflow_name}/{request_id}")
        found = parts.results.request(w, r)
    entity("request", {"workflow_name": w, "request_id": r}, found)


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
    click.echo(write(f"request-{r}.dot", found.encode()))


@script(example="| grep ERROR")
def mr_http_notification_listen() -> None:
    """Print the notifications that workers send by HTTP (MR_LOG_HTTP_HOOK=1), until Ctrl-C; times are UTC.

    Listens at HTTP_LISTEN_HOSTNAME (localhost) and HTTP_LISTEN_PORT (3333).
    """
    import os
    import signal

    from mr.cli.listening import listening

    host, port = os.environ.get("HTTP_LISTEN_HOSTNAME") or "localhost", os.environ.get("HTTP_LISTEN_PORT") or "3333"
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError([f"HTTP_LISTEN_PORT: expected a port, got: {port!r}"])
    try:
        server = listening(host, int(port), click.echo)
    except OSError as error:
        raise ConfigError(
            [f"HTTP_LISTEN_PORT: expected a free port at {host}, got: {port} ({error.strerror})"]
        ) from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say(f"listening on http://{host}:{server.server_address[1]}; Ctrl-C ends it")
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()


def mr_start_gunicorn_dev() -> None:
    """Start the front end and, unless MR_CONSUME=0, a worker: `mr dev`."""
    from mr.cli.dev import dev

    dev.main(prog_name="mr_start_gunicorn_dev")
