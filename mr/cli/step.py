"""`mr step`: what binds a mapper, an optional combiner and a reducer."""

from __future__ import annotations

import click
import msgspec

from mr.cli.command import Noun
from mr.cli.names import role_argument, role_option, step_argument, workflow_argument
from mr.cli.output import ask, did, document, fields, json_option, next_step, plain_option, table, yes_option
from mr.cli.session import opened
from mr.model.step import Step


@click.group("step", cls=Noun, examples=["mr step create words count 'Count the words' split '' total"])
def step() -> None:
    """What binds a mapper, an optional combiner and a reducer."""


@step.command("create", examples=["mr step create words count 'Count the words' split '' total"])
@workflow_argument
@click.argument("name")
@click.argument("description")
@role_argument("mapper", "MAP")
@role_argument("combiner", "COMBINE")
@role_argument("reducer", "REDUCE")
@json_option
def create(workflow: str, name: str, description: str, mapper: str, combiner: str, reducer: str, as_json: bool) -> None:
    """Create a step of handlers that exist; '' as COMBINE stands for no combiner."""
    with opened() as parts:
        made = parts.registry.create_step(workflow, name, description, mapper, combiner, reducer)
    if as_json:
        document({"name": name, **msgspec.to_builtins(made)})
    did(f"step {workflow}/{name}")
    next_step(f"mr job create {workflow} NAME DESCRIPTION {name}")


@step.command(
    "update", examples=["mr step update words count --reducer total", "mr step update words count --combiner ''"]
)
@workflow_argument
@step_argument
@role_option("mapper", "Another mapper.")
@role_option("combiner", "Another combiner; '' takes it away.")
@role_option("reducer", "Another reducer.")
@click.option("--description", metavar="TEXT", help="Another description.")
@json_option
def update(workflow: str, name: str, as_json: bool, **given: str | None) -> None:
    """Change what is given of a step; requests under way end on what they began with."""
    if all(value is None for value in given.values()):
        raise click.UsageError("nothing to change was given: --mapper, --combiner, --reducer, --description")
    with opened() as parts:
        made = parts.registry.update_step(workflow, name, **given)
    if as_json:
        document({"name": name, **msgspec.to_builtins(made)})
    did(f"step {workflow}/{name}: {_bound(made)}")
    next_step(f"mr step show {workflow} {name}", told=False)


def _bound(made: Step) -> str:
    combiner = f" → {made.combine_handler_name}" if made.combine_handler_name else ""
    return f"{made.map_handler_name}{combiner} → {made.reduce_handler_name}"


@step.command("list", examples=["mr step list words"])
@workflow_argument
@json_option
@plain_option
def list_(workflow: str, as_json: bool, plain: bool) -> None:
    """List the steps of a workflow."""
    with opened() as parts:
        found = parts.registry.list_steps(workflow)
    if as_json:
        document([{"name": name, **msgspec.to_builtins(one)} for name, one in found.items()])
        return
    rows = [
        [name, one.map_handler_name, one.combine_handler_name or "", one.reduce_handler_name, one.description]
        for name, one in found.items()
    ]
    table(["name", "map", "combine", "reduce", "description"], rows, plain=plain)
    if found:
        next_step(f"mr step show {workflow} {next(iter(found))}", told=False)
    else:
        next_step(f"mr step create {workflow} NAME DESCRIPTION MAP COMBINE REDUCE")


@step.command("show", examples=["mr step show words count"])
@workflow_argument
@step_argument
@json_option
def show(workflow: str, name: str, as_json: bool) -> None:
    """Show a step."""
    with opened() as parts:
        one = parts.registry.get_step(workflow, name)
    if as_json:
        document({"name": name, **msgspec.to_builtins(one)})
        return
    fields(
        [
            ("name", name),
            ("workflow", workflow),
            ("description", one.description),
            ("map", one.map_handler_name),
            ("combine", one.combine_handler_name or "(none)"),
            ("reduce", one.reduce_handler_name),
        ]
    )
    next_step(f"mr handler show {workflow} {one.map_handler_name}", told=False)


@step.command("rm", examples=["mr step rm words count", "mr step rm words count --force --yes"])
@workflow_argument
@step_argument
@click.option("--force", is_flag=True, help="Also the jobs that start with it.")
@yes_option
def rm(workflow: str, name: str, force: bool, yes: bool) -> None:
    """Remove a step that no job starts with."""
    ask(f"Remove step {workflow}/{name}{' and the jobs that start with it' if force else ''}?", yes)
    with opened() as parts:
        gone = parts.registry.delete_step(workflow, name, force=force)
    did(f"removed step {workflow}/{name}" + (f", with {', '.join(gone)}" if gone else ""))
    next_step(f"mr step list {workflow}", told=False)
