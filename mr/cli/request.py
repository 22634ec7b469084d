"""`mr request`: look at accepted requests, wait for them, end them."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from mr.cli.command import Noun
from mr.cli.drawing import headline, seconds_between
from mr.cli.live import follow
from mr.cli.names import request_argument
from mr.cli.output import (
    ask,
    did,
    document,
    duration,
    fields,
    json_option,
    next_step,
    plain_option,
    short_time,
    table,
    yes_option,
)
from mr.cli.results import tell, tell_error
from mr.cli.session import opened
from mr.errors import ResultTimeout
from mr.model.request import Request, RequestState


@click.group("request", cls=Noun, examples=["mr request list words", "mr request wait 3f2a"])
def request() -> None:
    """Accepted postings of jobs.

    REQUEST is an id, its first digits (4 or more), or WORKFLOW/ID.
    """


def _record(r: str, found: Request) -> dict[str, Any]:
    built: dict[str, Any] = msgspec.to_builtins(found)
    return {"id": r, **built}


@request.command("list", examples=["mr request list", "mr request list words --state failed --json"])
@click.argument("workflow", required=False)
@click.option("--state", type=click.Choice([state.value for state in RequestState]), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many.")
@json_option
@plain_option
def list_(workflow: str | None, state: str | None, limit: int, as_json: bool, plain: bool) -> None:
    """List the requests of one workflow, or of all; the newest last."""
    with opened() as parts:
        if workflow is not None:
            parts.registry.get_workflow(workflow)
        workflows = [workflow] if workflow is not None else list(parts.registry.list_workflows())
        most = limit if state is None else 1_000_000
        found = [pair for w in workflows for pair in parts.results.requests(w, limit=most)]
    wanted = [(r, one) for r, one in found if state is None or one.state.value == state]
    newest = sorted(wanted, key=lambda pair: pair[1].created_at)[-limit:]
    if as_json:
        document([_record(r, one) for r, one in newest])
        return
    rows = [
        [
            r if plain else r[:12],
            f"{one.workflow_name}/{one.job_name}",
            one.state.value,
            short_time(one.created_at),
            duration(seconds_between(one.created_at, one.finished_at)) if one.finished_at else "",
        ]
        for r, one in newest
    ]
    table(["id", "job", "state", "created (utc)", "took"], rows, plain=plain)


@request.command("show", examples=["mr request show 3f2a", "mr request show words/3f2a --json"])
@request_argument
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the record of a request."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        found = parts.results.request(w, r)
    if as_json:
        document(_record(r, found))
        return
    fields(
        [
            ("id", r),
            ("job", f"{w}/{found.job_name}"),
            ("state", found.state.value),
            ("created", short_time(found.created_at)),
            ("finished", short_time(found.finished_at)),
            ("removed after", short_time(found.due_at)),
            ("definitions", found.set),
            ("life", str(found.epoch)),
        ]
    )
    if found.error:
        tell_error(r, found)


@request.command("wait", examples=["mr request wait 3f2a", "mr request wait 3f2a --timeout 60"])
@request_argument
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting then (exit code 5).")
def wait(name: str, timeout: float | None) -> int:
    """Wait for the end of a request and print its result, as `mr run` does."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        return tell(parts, w, r, follow(parts, w, r, timeout))


@request.command("result", examples=["mr request result 3f2a > result.json"])
@request_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON document, as always.")
def result(name: str, as_json: bool) -> int:
    """Print the result of a request that is over, as {"pairs": [[key, value], …]}."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        found = parts.results.request(w, r)
        if not found.state.is_final:
            raise ResultTimeout(f"request {r} is still {found.state.value}", hint=f"wait for it: mr request wait {r}")
        return tell(parts, w, r, found)


@request.command("cancel", examples=["mr request cancel 3f2a"])
@request_argument
@json_option
def cancel(name: str, as_json: bool) -> None:
    """End a running request; what runs for it is killed."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        ended = parts.submission.cancel(w, r)
    if as_json:
        document(_record(r, ended))
    did(headline(ended, w, r))
    next_step(f"mr request resume {r[:12]}")


@request.command("resume", examples=["mr request resume 3f2a"])
@request_argument
@json_option
def resume(name: str, as_json: bool) -> None:
    """Run again what failed or never ran of a failed or cancelled request, with the handlers it began with."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        again = parts.submission.resume(w, r)
    if as_json:
        document(_record(r, again))
    did(headline(again, w, r))
    next_step(f"mr request wait {r[:12]}")


@request.command("rm", examples=["mr request rm 3f2a --yes"])
@request_argument
@yes_option
def rm(name: str, yes: bool) -> None:
    """Remove a request that is over, with its result and everything below it."""
    with opened() as parts:
        w, r = parts.tracing.find(name)
        ask(f"Remove request {w}/{r} and its result?", yes)
        parts.cleaner.remove(w, r)
    did(f"removed request {w}/{r}")
