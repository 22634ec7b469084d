"""`mr invocation`: one invocation of a request."""

from __future__ import annotations

import click

from mr import codec
from mr.cli.command import Noun
from mr.cli.drawing import seconds_between
from mr.cli.output import document, duration, echo, fields, json_option, next_step, short_time, shortened, style
from mr.cli.session import opened
from mr.errors import NotFound
from mr.services.excerpts import PAIRS, Excerpt

LINE_MAX = 200
"""Characters of a pair that are shown; --json has all of it."""


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


@invocation.command(
    "show",
    examples=["mr invocation show 3f2a.0.17", "mr invocation show 3f2a.0 --all", "mr invocation show 3f2a.0.r --json"],
)
@click.argument("name", metavar="REQUEST.PATH")
@click.option("--all", "everything", is_flag=True, help="All that went in and came out, however much.")
@json_option
def show(name: str, everything: bool, as_json: bool) -> None:
    """Show an invocation: times, worker, what went in and came out, failed attempts, and what it printed."""
    request, path = split(name)
    limit = None if everything else PAIRS
    with opened() as parts:
        w, r = parts.tracing.find(request)
        found = parts.tracing.invocation(w, r, path)
        arguments = parts.excerpts.arguments(w, r, path, limit=limit)
        result = parts.excerpts.result(w, r, path, limit=limit)
    if as_json:
        document({"id": f"{r}.{path}", "invocation": found, "arguments": arguments, "result": result})
        return
    mapped = "" if found.mapped_count is None else f"{found.mapped_count} children, {found.mapped_waiting} not done"
    created, ended = found.created_timestamp, found.finished_timestamp
    rows = [
        ("id", f"{r}.{path}"),
        ("step", f"{found.step_name} ({found.direction})"),
        ("handler", found.handler_name),
        ("state", found.state),
        ("error", found.error or ""),
        ("mapped", mapped),
        ("worker", found.worker),
        ("created", short_time(created)),
        ("ended", short_time(ended)),
        ("took", "" if found.seconds is None else duration(found.seconds)),
        ("from created to end", duration(seconds_between(created, ended)) if created and ended else ""),
        ("attempts failed", str(len(found.attempts)) if found.attempts else ""),
    ]
    fields([(key, value) for key, value in rows if value])
    _section("results given" if found.direction == "reduce" else "arguments", arguments)
    _section("result", result)
    for report in found.attempts:
        echo()
        where = f" on worker {report.worker} at {short_time(report.at)}" if report.worker else ""
        echo(style(f"attempt {report.attempt}: {report.type}: {report.message}{where}", fg="red"))
        echo(report.traceback.rstrip())
        if report.output:
            echo("it printed:")
            echo(report.output.rstrip())
    if found.output and not (found.attempts and found.attempts[-1].output == found.output):
        echo()
        echo(style("printed", bold=True))
        echo(found.output.rstrip())
    next_step(f"mr logs {r[:12]} {path}" if found.output else f"mr tree {r[:12]}", told=False)


def _section(title: str, excerpt: Excerpt | None) -> None:
    """Pairs, one to a line."""
    if excerpt is None:
        return
    echo()
    echo(style(title, bold=True))
    for pair in excerpt.pairs:
        key, value = (codec.encode(part).decode() for part in pair)
        echo(shortened(f"  {key}: {value}", LINE_MAX))
    if excerpt.is_cut:
        echo("  … and more (--all)")
    elif not excerpt.pairs:
        echo("  (nothing)")
