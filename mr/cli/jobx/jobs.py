"""JobX's scripts for jobs."""

from __future__ import annotations

from mr.cli.jobx.script import entity, listing, script
from mr.cli.session import opened


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


@script("workflow_name", "job_name", example="test_workflow wordcount")
def mr_kv_job_delete(workflow_name: str, job_name: str) -> None:
    """Delete a job; its running requests go on."""
    with opened() as parts:
        parts.registry.delete_job(workflow_name, job_name)
