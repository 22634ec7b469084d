"""`mr invocation`: one invocation of a request."""

from __future__ import annotations

import click

from mr.cli.command import Noun
from mr.cli.output import document, duration, fields, json_option, short_time
from mr.cli.session import opened
from mr.errors import NotFound


def split(name: str) -> tuple[str, str]:
    """Request and path of `[WORKFLOW/]REQUEST.PATH`.

    Raises: NotFound if there is no path.
    """
    workflow, slash, rest = name.rpartition("/")
    r, dot, path = rest.partition(".")
    if not dot:
        raise NotFound(f"{name[:120]!r} is no invocation", hint="expected REQUEST.PATH, such as 3f2a.0.17")
    return f"{workflow}{slash}{r}", path


@click.group("invocation", cls=Noun, examples=["mr invocation show 3f2a.0.17"])
def invocation() -> None:
    """One unit of map or reduce work of a request."""


@invocation.command("show", examples=["mr invocation show 3f2a.0.17", "mr invocation show 3f2a.0.r --json"])
@click.argument("name", metavar="REQUEST.PATH")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show an invocation, its failed attempts, and what it printed."""
    request, path = split(name)
    with opened() as parts:
        w, r = parts.tracing.find(request)
        found = parts.tracing.invocation(w, r, path)
    if as_json:
        document({"id": f"{r}.{path}", "invocation": found})
        return
    mapped = "" if found.mapped_count is None else f"{found.mapped_count} children, {found.mapped_waiting} not done"
    rows = [
        ("id", f"{r}.{path}"),
        ("step", f"{found.step_name} ({found.direction})"),
        ("handler", found.handler_name),
        ("state", found.state),
        ("mapped", mapped),
        ("worker", found.worker),
        ("ended", short_time(found.finished_timestamp)),
        ("took", "" if found.seconds is None else duration(found.seconds)),
    ]
    fields([(key, value) for key, value in rows if value])
    for report in found.attempts:
        click.echo()
        click.echo(click.style(f"attempt {report.attempt}: {report.type}: {report.message}", fg="red"))
        click.echo(report.traceback.rstrip())
    if found.output:
        click.echo()
        click.echo(found.output.rstrip())
