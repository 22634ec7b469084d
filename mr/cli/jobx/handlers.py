"""JobX's scripts for handlers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from mr.cli.exits import FAILED
from mr.cli.jobx.script import entity, listing, script
from mr.cli.output import say
from mr.cli.session import opened
from mr.errors import InvalidHandler

NO_CAST = ("null", "none", "")
"""How a shell spells that an argument is not cast."""


@script(
    "workflow_name", "handler_name", "description", "source_type", "handler_type",
    example="test_workflow map_split 'Split it' python mapper -a arguments list < split.py",
)  # fmt: skip
@click.option(
    "-a", "--argument", "arguments", nargs=2, multiple=True, required=True, metavar="NAME TYPE",
    help="An argument and its type (list, dict, str, int, float, bool, tuple, or null for no cast).",
)  # fmt: skip
@click.option("-r", "--required-capability", default="none", metavar="CAP", help="What a worker must offer.")
def mr_kv_handler_create(
    workflow_name: str,
    handler_name: str,
    description: str,
    source_type: str,
    handler_type: str,
    arguments: tuple[tuple[str, str], ...],
    required_capability: str,
) -> int | None:
    """Create a handler whose code comes on stdin; a folder of them is better kept by mr_kv_handler_store."""
    from mr.model.handler import Handler

    try:
        source = "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InvalidHandler(f"{handler_name}: the code is no UTF-8: {error.reason} at byte {error.start}") from error
    if not source.strip():
        say("Please provide code via STDIN.")
        return FAILED
    given: dict[str, Any] = {"source_type": source_type, "handler_type": handler_type}  # checked by the registry
    handler = Handler(
        description=description,
        argument_spec=[(name, None if kind in NO_CAST else kind) for name, kind in arguments],
        source_code=source,
        required_capability=required_capability,
        **given,
    )
    with opened() as parts:
        made = parts.registry.create_handler(workflow_name, handler_name, handler)
    entity("handler", {"workflow_name": workflow_name, "handler_name": handler_name}, made)
    return None


@script("workflow_name", "path", example="test_workflow handlers")
@click.option("-s", "--simulate_only", is_flag=True, help="Check everything, write nothing.")
@click.option("-f", "--force", is_flag=True, help="Write also what is the same.")
def mr_kv_handler_store(workflow_name: str, path: str, simulate_only: bool, force: bool) -> int | None:
    """Make the files below a folder the handlers of a workflow."""
    from mr.cli.handler import next_of, tell

    with opened() as parts:
        plan = parts.sync.plan(workflow_name, Path(path), force=force)
        if plan.is_good and not simulate_only:
            plan = parts.sync.apply(plan)
        following = next_of(parts, plan)
    return tell(plan, following, dry_run=simulate_only)


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


@script("workflow_name", "handler_name", example="test_workflow map_split")
def mr_kv_handler_delete(workflow_name: str, handler_name: str) -> None:
    """Delete a handler that no step names."""
    with opened() as parts:
        parts.registry.delete_handler(workflow_name, handler_name)
