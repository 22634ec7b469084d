"""`mr status`: workers, and what is waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from mr import codec
from mr.cli.command import Command
from mr.cli.output import document, json_option, say, short_time, table
from mr.cli.session import opened
from mr.errors import BrokerUnavailable
from mr.model.invocation import WorkerRecord
from mr.rules import keys, routing

if TYPE_CHECKING:
    from mr.ports.broker import Backlog
    from mr.wiring import Parts


@click.command("status", cls=Command, examples=["mr status", "mr status --json"])
@json_option
def status(as_json: bool) -> None:
    """Show the workers, the requests that run, and the messages that wait."""
    with opened() as parts:
        workers = {
            entry.key[len(keys.WORKERS) :]: codec.decode(entry.value, WorkerRecord, where=entry.key)
            for entry in parts.store.range(keys.WORKERS, limit=10_000).entries
        }
        running = {w: parts.store.count(keys.active(w, "")) for w in parts.registry.list_workflows()}
        needed = {w: _capabilities(parts, w) for w in running}
        queues = _queues(parts, needed)
    offered = {capability for one in workers.values() for capability in one.capabilities}
    missing = sorted({capability for some in needed.values() for capability in some} - offered)
    if as_json:
        waiting = None if queues is None else {name: msgspec.to_builtins(one) for name, one in queues.items()}
        lines: list[dict[str, Any]] = [{"id": name, **msgspec.to_builtins(one)} for name, one in workers.items()]
        document({"workers": lines, "running": running, "queues": waiting, "capabilities_missing": missing})
        return
    table(
        ["worker", "host", "pid", "slots", "capabilities", "since (utc)"],
        [
            [name, one.host, str(one.pid), str(one.slots), ",".join(one.capabilities), short_time(one.started_at)]
            for name, one in workers.items()
        ],
    )
    click.echo()
    table(["workflow", "running requests"], [[w, str(count)] for w, count in running.items()])
    if queues is not None:
        click.echo()
        rows = [[name, str(one.waiting), str(one.in_flight), str(one.delayed)] for name, one in queues.items()]
        table(["topic", "waiting", "in flight", "delayed"], [row for row in rows if row[1:] != ["0", "0", "0"]])
    for capability in missing:
        say(f"mr: no worker offers {capability}; start one: mr worker --capabilities {capability}")


def _capabilities(parts: Parts, w: str) -> list[str]:
    _, _, definitions = parts.registry.current(w)
    return sorted({one.capability for one in definitions.handlers.values()})


def _queues(parts: Parts, needed: dict[str, list[str]]) -> dict[str, Backlog] | None:
    """The backlog of every topic; None where the broker does not answer."""
    topics = [topic for w, capabilities in needed.items() for topic in routing.topics(w, capabilities)]
    try:
        return dict(parts.publisher.backlog(topics))
    except BrokerUnavailable as error:
        say(f"mr: {error}")
        return None
