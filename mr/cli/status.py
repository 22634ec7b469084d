"""`mr status`: workers, what is waiting, and loudly what waits for nobody."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from mr.cli.command import Command
from mr.cli.exits import complain
from mr.cli.output import age, document, echo, json_option, next_step, table
from mr.cli.session import opened
from mr.services.fleet import Picture, Queue, Unserved, seconds_since

WRITER_ADVICE = "start one: MR_RESULT_WRITER=file mr worker (or with the writer that they should leave by)"


@click.command("status", cls=Command, examples=["mr status", "watch mr status", "mr status --json"])
@json_option
def status(as_json: bool) -> None:
    """Show the workers, the requests that run, and the messages that wait, by capability.

    OLDEST WAIT is how long the oldest message has waited at least. What is needed and offered by no worker is named
    at the end.
    """
    with opened() as parts:
        picture = parts.fleet.look()
    if as_json:
        document(_document(picture))
        return
    _capabilities(picture.queues)
    _topics(picture)
    _workflows(picture)
    _workers(picture)
    if picture.problem:
        complain(picture.problem, "what waits is not known; see: mr doctor")
    for one in picture.unserved:
        _loudly(one)
    for w, waits in picture.writes.items():
        if not waits.workers:
            complain(f"results of workflow {w} wait to be written, and no worker writes", WRITER_ADVICE)
    running = next((w for w, one in picture.running.items() if one.requests), None)
    step = f"mr request list {running} --state running" if running else "mr run WORKFLOW/JOB key=value"
    next_step(step, told=False)


def _document(picture: Picture) -> dict[str, Any]:
    return {
        "problem": picture.problem or None,
        "workers": [{"id": name, **msgspec.to_builtins(one)} for name, one in picture.workers.items()],
        "running": {w: one.requests for w, one in picture.running.items()},
        "oldest_running_s": {w: one.oldest_s for w, one in picture.running.items()},
        "writing": picture.writes,
        "queues": None if picture.problem else {queue.topic: queue for queue in picture.queues},
        "strays": picture.strays,
        "unserved": picture.unserved,
        "capabilities_missing": sorted({one.capability for one in picture.unserved}),
    }


def _capabilities(queues: list[Queue]) -> None:
    """One line for each capability, over all workflows and both directions."""
    rows = []
    for capability in sorted({queue.capability for queue in queues}):
        mine = [queue for queue in queues if queue.capability == capability]
        waits = [queue.oldest_wait_s for queue in mine if queue.oldest_wait_s is not None]
        most = max(mine, key=lambda queue: queue.workers)
        rows.append(
            [
                capability,
                *_numbers(mine),
                age(max(waits, default=None)),
                str(most.workers) if most.workers else "NONE",
                str(most.slots),
            ]
        )
    table(["capability", "waiting", "in flight", "delayed", "oldest wait", "workers", "slots"], rows)


def _numbers(queues: list[Queue]) -> list[str]:
    return [
        f"{sum(queue.waiting for queue in queues):,}",
        f"{sum(queue.in_flight for queue in queues):,}",
        f"{sum(queue.delayed for queue in queues):,}",
    ]


def _topics(picture: Picture) -> None:
    rows = [[queue.topic, *_numbers([queue]), age(queue.oldest_wait_s)] for queue in picture.queues if queue.total]
    rows += [
        [one.topic, f"{one.waiting:,}", f"{one.in_flight:,}", f"{one.delayed:,}", ""]
        for one in picture.writes.values()
        if one.waiting + one.in_flight + one.delayed
    ]
    rows += [
        [f"{topic} (of no workflow)", f"{lies.waiting:,}", f"{lies.in_flight:,}", f"{lies.delayed:,}", ""]
        for topic, lies in picture.strays.items()
    ]
    if rows:
        echo()
        table(["topic", "waiting", "in flight", "delayed", "oldest wait"], rows)


def _workflows(picture: Picture) -> None:
    echo()
    rows = []
    for w, one in picture.running.items():
        writing = picture.writes[w].requests if w in picture.writes else 0
        rows.append([w, f"{max(one.requests - writing, 0):,}", f"{writing:,}", age(one.oldest_s)])
    table(["workflow", "running requests", "writing", "oldest"], rows)


def _workers(picture: Picture) -> None:
    now = datetime.now(UTC)
    echo()
    rows = [
        [
            name,
            one.host,
            str(one.pid),
            str(one.slots),
            ",".join(one.capabilities),
            age(seconds_since(one.started_at, now)),
            _holds(one.holds),
        ]
        for name, one in picture.workers.items()
    ]
    table(["worker", "host", "pid", "slots", "capabilities", "up", "holds for over a second"], rows)


def _holds(holds: list[str]) -> str:
    """`words/3f2a59b1c2d4 0.17`, and how many more."""
    if not holds:
        return ""
    w, r, path = holds[0].split("/", 2)
    more = f" and {len(holds) - 1:,} more" if len(holds) > 1 else ""
    return f"{w}/{r[:12]} {path}{more}"


def _loudly(one: Unserved) -> None:
    """What waits for nobody, with the worker that could most easily be told to take it."""
    waited = f" (for {age(one.oldest_wait_s)})" if one.oldest_wait_s is not None else ""
    waits = f"{one.messages:,} message{'s' if one.messages != 1 else ''} of workflow {one.workflow} wait{waited}"
    what = waits if one.messages else f"handlers of workflow {one.workflow} ask"
    complain(
        f"{what} for capability {one.capability}; nobody offers {one.capability}{one.near}",
        f"start one: {one.help}",
    )
