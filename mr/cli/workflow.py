"""`mr workflow`: containers of jobs, steps, handlers and requests."""

from __future__ import annotations

import click
import msgspec

from mr.cli.command import Noun
from mr.cli.names import workflow_name_argument
from mr.cli.output import ask, did, document, fields, json_option, next_step, plain_option, table, yes_option
from mr.cli.session import opened


@click.group("workflow", cls=Noun, examples=['mr workflow create words "Words of texts"', "mr workflow list"])
def workflow() -> None:
    """Containers of jobs, steps, handlers and requests, isolated from each other."""


@workflow.command("create", examples=['mr workflow create words "Words of texts"'])
@click.argument("name")
@click.argument("description")
@json_option
def create(name: str, description: str, as_json: bool) -> None:
    """Create a workflow."""
    with opened() as parts:
        made = parts.registry.create_workflow(name, description)
    if as_json:
        document({"name": name, **msgspec.to_builtins(made)})
    did(f"workflow {name}")
    next_step(f"mr handler sync {name} FOLDER")


@workflow.command("list", examples=["mr workflow list", "mr workflow list --json"])
@json_option
@plain_option
def list_(as_json: bool, plain: bool) -> None:
    """List all workflows."""
    with opened() as parts:
        found = parts.registry.list_workflows()
    if as_json:
        document([{"name": name, **msgspec.to_builtins(one)} for name, one in found.items()])
        return
    table(["name", "description"], [[name, one.description] for name, one in found.items()], plain=plain)
    if not found:
        next_step("mr workflow create NAME DESCRIPTION")
    else:
        next_step(f"mr workflow show {next(iter(found))}", told=False)


@workflow.command("show", examples=["mr workflow show words"])
@workflow_name_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a workflow and what it defines."""
    with opened() as parts:
        found, _, definitions = parts.registry.current(name)
    if as_json:
        document({"name": name, **msgspec.to_builtins(found), "definitions": definitions})
        return
    fields(
        [
            ("name", name),
            ("description", found.description),
            ("definitions", found.handlers_state),
            ("handlers", ", ".join(sorted(definitions.handlers))),
            ("steps", ", ".join(sorted(definitions.steps))),
            ("jobs", ", ".join(sorted(definitions.jobs))),
        ]
    )
    first = next(iter(sorted(definitions.jobs)), None)
    next_step(f"mr run {name}/{first} key=value" if first else f"mr handler sync {name} FOLDER", told=False)


@workflow.command("rm", examples=["mr workflow rm words", "mr workflow rm words --force --yes"])
@workflow_name_argument
@click.option("--force", is_flag=True, help="Also everything that it defines and its handlers share.")
@yes_option
def rm(name: str, force: bool, yes: bool) -> None:
    """Remove a workflow."""
    ask(f"Remove workflow {name}{' and all that is in it' if force else ''}?", yes)
    with opened() as parts:
        gone = parts.registry.delete_workflow(name, force=force)
    did(f"removed workflow {name}" + (f", with {', '.join(gone)}" if gone else ""))
    next_step("mr workflow list", told=False)
