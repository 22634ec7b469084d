"""JobX's scripts for steps. A handler that cannot have its role ends them with 1, 2 or 3: mapper, combiner, reducer."""

from __future__ import annotations

from typing import get_args

import click

from mr.cli.exits import FAILED
from mr.cli.jobx.script import entity, script, simulation
from mr.cli.output import echo, say
from mr.cli.session import opened
from mr.errors import InvalidStep
from mr.model.handler import HandlerType

BAD_HANDLER = {"mapper": 1, "combiner": 2, "reducer": 3}
"""Exit codes by the role whose handler is wrong."""
BAD_TYPE, BAD_TARGET = 1, 2
"""Exit codes of a mass rename."""


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
            return _bad_handler(error)
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
        echo(f"By {title.lower()}:")
        echo()
        table([columns[column] for column in order], sorted([row[column] for column in order] for row in rows))
        echo()


@script("workflow_name", "step_name", example="test_workflow count")
def mr_kv_step_delete(workflow_name: str, step_name: str) -> None:
    """Delete a step that no job starts with."""
    with opened() as parts:
        parts.registry.delete_step(workflow_name, step_name)


@script("workflow_name", "step_name", example="test_workflow count -m map_split -r reduce_sum")
@click.option("-m", "--map-handler-name", help="Another mapper.")
@click.option("-c", "--combine-handler-name", help="Another combiner; '' takes it away.")
@click.option("-r", "--reduce-handler-name", help="Another reducer.")
def mr_kv_step_set_handler(
    workflow_name: str,
    step_name: str,
    map_handler_name: str | None,
    combine_handler_name: str | None,
    reduce_handler_name: str | None,
) -> int | None:
    """Put other handlers into a step. Exits with 1, 2 or 3 for a bad mapper, combiner or reducer."""
    with opened() as parts:
        parts.registry.get_step(workflow_name, step_name)
        if map_handler_name is None and combine_handler_name is None and reduce_handler_name is None:
            echo("No handler updates requested.")
            return None
        try:
            made = parts.registry.update_step(
                workflow_name,
                step_name,
                mapper=map_handler_name,
                combiner=combine_handler_name,
                reducer=reduce_handler_name,
            )
        except InvalidStep as error:
            return _bad_handler(error)
    entity("step", {"workflow_name": workflow_name, "step_name": step_name}, made)
    return None


@script("workflow_name", "handler_type", "if_name", "to_name", example="test_workflow mapper map_split map_split_2 -s")
@click.option("-s", "--simulate-only", is_flag=True, help="Only say which steps would change.")
def mr_kv_step_update_handlers(
    workflow_name: str, handler_type: str, if_name: str, to_name: str, simulate_only: bool
) -> int | None:
    """Put one handler in the place of another in all steps that name it as mapper, combiner or reducer."""
    types = get_args(HandlerType)
    if handler_type not in types:
        say(f"Handler type [{handler_type}] is not valid. Valid types: {', '.join(types)}")
        return BAD_TYPE
    if simulate_only:
        simulation()
    with opened() as parts:
        _, _, now = parts.registry.current(workflow_name)
        if to_name not in now.handlers:
            say(f"'to' handler is not valid: [{to_name}]")
            return BAD_TARGET
        if (kind := now.handlers[to_name].handler_type) != handler_type:
            say(f"'to' handler exists, but is the wrong type: [{kind}]")
            return FAILED
        matched = parts.registry.replace_in_steps(workflow_name, handler_type, if_name, to_name, simulate=simulate_only)
        steps = parts.registry.list_steps(workflow_name)
    for name in matched:
        echo(f"Step match: [{name}] [{steps[name].description}]")
    return None


def _bad_handler(error: InvalidStep) -> int:
    """Say which handler is wrong; the exit code."""
    if error.role not in BAD_HANDLER:
        raise error
    say(error.message)
    say(f"  {error.hint}")
    return BAD_HANDLER[error.role]
