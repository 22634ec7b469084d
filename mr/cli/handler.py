"""`mr handler`: the code of mappers, combiners and reducers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from mr.cli.command import Noun
from mr.cli.exits import FAILED, complain
from mr.cli.names import handler_argument, workflow_argument
from mr.cli.output import (
    ask,
    did,
    document,
    echo,
    fields,
    json_option,
    next_step,
    plain_option,
    say,
    style,
    table,
    yes_option,
)
from mr.cli.session import opened

if TYPE_CHECKING:
    from mr.services.sync import Plan
    from mr.wiring import Parts

COLOURS = {"+": "green", "~": "yellow", "-": "red", "!": "yellow", "=": "bright_black"}


@click.group("handler", cls=Noun, examples=["mr handler sync words handlers", "mr handler list words"])
def handler() -> None:
    """The code of mappers, combiners and reducers."""


@handler.command(
    "sync",
    examples=["mr handler sync words handlers", "mr handler sync words handlers --dry-run"],
)
@workflow_argument
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--dry-run", "-n", is_flag=True, help="Check everything and say what would be done.")
@click.option("--force", is_flag=True, help="Write also what is the same.")
@json_option
def sync(workflow: str, folder: Path, dry_run: bool, force: bool, as_json: bool) -> int | None:
    """Make the files below FOLDER the handlers of WORKFLOW: all of them, or with any mistake none.

    Marks: + new, ~ changed, - removed, = the same, ! kept although its file is gone, because a step names it.
    """
    with opened() as parts:
        plan = parts.sync.plan(workflow, folder, force=force)
        if plan.is_good and not dry_run:
            plan = parts.sync.apply(plan)
        following = next_of(parts, plan)
    if as_json:
        document(
            {
                "workflow": workflow,
                "folder": str(folder),
                "applied": plan.is_good and not dry_run,
                "entries": [msgspec.to_builtins(entry) for entry in plan.entries],
                "warnings": plan.warnings,
                "errors": plan.errors,
            }
        )
    return tell(plan, following, dry_run=dry_run, on_stdout=not as_json)


def next_of(parts: Parts, plan: Plan) -> str:
    """What to do once the handlers of a plan are stored: to bind those that are new, else to run a job with them."""
    w = plan.workflow
    _, _, now = parts.registry.current(w)
    bound = {name for step in now.steps.values() for name in (step.mapper, step.combiner, step.reducer)}
    if not now.steps or any(entry.mark == "+" and entry.name not in bound for entry in plan.entries):
        return f"mr step create {w} NAME DESCRIPTION MAP COMBINE REDUCE"
    if not now.jobs:
        return f"mr job create {w} NAME DESCRIPTION {min(now.steps)}"
    return f"mr run {w}/{min(now.jobs)} key=value"


def tell(plan: Plan, following: str, *, dry_run: bool, on_stdout: bool = True) -> int | None:
    """Show what a sync does, did, or why it did nothing; the exit code."""
    if on_stdout:
        for entry in plan.entries:
            mark = style(entry.mark, fg=COLOURS[entry.mark])
            version = plan.handlers[entry.name].version if entry.name in plan.handlers else ""
            detail = f"kept: {_steps(entry.steps)} it" if entry.steps else version
            echo(f" {mark} {entry.name}  {detail}".rstrip())
    for warning in plan.warnings:
        say(f"mr: {warning}")
    if plan.errors:
        for error in plan.errors:
            complain(error)
        say(f"  nothing was changed: {len(plan.errors)} problem{'s' if len(plan.errors) > 1 else ''}")
        return FAILED
    counts = [
        f"{sum(entry.mark == mark for entry in plan.entries)} {word}"
        for mark, word in (("+", "new"), ("~", "changed"), ("-", "removed"), ("=", "the same"))
    ]
    if dry_run:
        say(f"{', '.join(counts)}; nothing was written (--dry-run)")
    else:
        did(", ".join(counts))
        next_step(following)
    return None


def _steps(steps: list[str]) -> str:
    return f"step {steps[0]} names" if len(steps) == 1 else f"steps {', '.join(steps)} name"


@handler.command("list", examples=["mr handler list words"])
@workflow_argument
@json_option
@plain_option
def list_(workflow: str, as_json: bool, plain: bool) -> None:
    """List the handlers of a workflow."""
    with opened() as parts:
        found = parts.registry.list_handlers(workflow)
    if as_json:
        records = [{"name": name, **msgspec.to_builtins(one)} for name, one in found.items()]
        document([{key: value for key, value in one.items() if key != "source_code"} for one in records])
        return
    rows = [
        [name, one.handler_type, one.required_capability, one.version, (one.description or "").partition("\n")[0]]
        for name, one in found.items()
    ]
    table(["name", "type", "capability", "version", "description"], rows, plain=plain)
    if not found:
        next_step(f"mr handler sync {workflow} FOLDER")
    else:
        next_step(f"mr handler show {workflow} {next(iter(found))}", told=False)


@handler.command("show", examples=["mr handler show words split"])
@workflow_argument
@handler_argument
@json_option
def show(workflow: str, name: str, as_json: bool) -> None:
    """Show a handler and its source."""
    with opened() as parts:
        one = parts.registry.get_handler(workflow, name)
    if as_json:
        document({"name": name, **msgspec.to_builtins(one)})
        return
    limits = [("timeout_s", one.timeout_s), ("memory_mb", one.memory_mb), ("attempts", one.attempts)]
    fields(
        [
            ("name", name),
            ("workflow", workflow),
            ("type", one.handler_type),
            ("capability", one.required_capability),
            ("version", one.version),
            ("language", one.source_type),
            *((limit, str(value)) for limit, value in limits if value is not None),
        ]
    )
    echo()
    echo(one.source_code.rstrip("\n"))
    next_step(f"mr step list {workflow}", told=False)


@handler.command("rm", examples=["mr handler rm words split --yes"])
@workflow_argument
@handler_argument
@click.option("--force", is_flag=True, help="Also the steps that name it, and the jobs that start with those.")
@yes_option
def rm(workflow: str, name: str, force: bool, yes: bool) -> None:
    """Remove a handler that no step names."""
    ask(f"Remove handler {workflow}/{name}{' and the steps and jobs that need it' if force else ''}?", yes)
    with opened() as parts:
        gone = parts.registry.delete_handler(workflow, name, force=force)
    did(f"removed handler {workflow}/{name}" + (f", with {', '.join(gone)}" if gone else ""))
    next_step(f"mr handler list {workflow}", told=False)
