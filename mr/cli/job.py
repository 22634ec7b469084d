"""`mr job`: what clients post to."""

from __future__ import annotations

import click
import msgspec

from mr.cli.command import Noun
from mr.cli.names import initial_step_argument, job_argument, workflow_argument
from mr.cli.output import ask, did, document, fields, json_option, next_step, plain_option, table, yes_option
from mr.cli.session import opened


@click.group("job", cls=Noun, examples=["mr job create words wordcount 'Count the words' count"])
def job() -> None:
    """What clients post to; it names the first step."""


@job.command("create", examples=["mr job create words wordcount 'Count the words' count"])
@workflow_argument
@click.argument("name", metavar="JOB")
@click.argument("description")
@initial_step_argument
@json_option
def create(workflow: str, name: str, description: str, initial_step: str, as_json: bool) -> None:
    """Create a job that starts with a step."""
    with opened() as parts:
        made = parts.registry.create_job(workflow, name, description, initial_step)
    if as_json:
        document({"name": name, **msgspec.to_builtins(made)})
    did(f"job {workflow}/{name}")
    next_step(f"mr run {workflow}/{name} key=value")


@job.command("list", examples=["mr job list words"])
@workflow_argument
@json_option
@plain_option
def list_(workflow: str, as_json: bool, plain: bool) -> None:
    """List the jobs of a workflow."""
    with opened() as parts:
        found = parts.registry.list_jobs(workflow)
    if as_json:
        document([{"name": name, **msgspec.to_builtins(one)} for name, one in found.items()])
        return
    rows = [[name, one.initial_step_name, one.description] for name, one in found.items()]
    table(["name", "initial step", "description"], rows, plain=plain)
    if found:
        next_step(f"mr run {workflow}/{next(iter(found))} key=value", told=False)
    else:
        next_step(f"mr job create {workflow} NAME DESCRIPTION STEP")


@job.command("show", examples=["mr job show words wordcount"])
@workflow_argument
@job_argument
@json_option
def show(workflow: str, name: str, as_json: bool) -> None:
    """Show a job."""
    with opened() as parts:
        one = parts.registry.get_job(workflow, name)
    if as_json:
        document({"name": name, **msgspec.to_builtins(one)})
        return
    fields(
        [
            ("name", name),
            ("workflow", workflow),
            ("description", one.description),
            ("initial step", one.initial_step_name),
        ]
    )
    next_step(f"mr run {workflow}/{name} key=value", told=False)


@job.command("rm", examples=["mr job rm words wordcount --yes"])
@workflow_argument
@job_argument
@yes_option
def rm(workflow: str, name: str, yes: bool) -> None:
    """Remove a job; its running requests go on."""
    ask(f"Remove job {workflow}/{name}?", yes)
    with opened() as parts:
        parts.registry.delete_job(workflow, name)
    did(f"removed job {workflow}/{name}")
    next_step(f"mr job list {workflow}", told=False)
