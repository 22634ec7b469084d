"""JobX's scripts for workflows."""

from __future__ import annotations

from mr.cli.jobx.script import entity, script
from mr.cli.session import opened


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


@script("workflow_name", example="test_workflow")
def mr_kv_workflow_delete(workflow_name: str) -> None:
    """Delete a workflow that defines nothing any more. With all that it defines: mr workflow rm NAME --force."""
    with opened() as parts:
        parts.registry.delete_workflow(workflow_name)
