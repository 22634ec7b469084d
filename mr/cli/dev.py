"""`mr dev`: the front end and a worker as two children of one parent, for trying things on one machine."""

from __future__ import annotations

from collections.abc import Collection

import click

from mr import __version__
from mr.addresses import Bind
from mr.cli.binding import free
from mr.cli.command import Command
from mr.cli.output import say
from mr.cli.parent import Child, Parent
from mr.cli.session import opened, settings
from mr.settings import Settings


@click.command("dev", cls=Command, examples=["mr dev", "mr dev --bind 127.0.0.1:8081", "MR_EXECUTORS=4 mr dev"])
@click.option("--bind", metavar="HOST:PORT", help="Where to listen, on this machine only (127.0.0.1:8080).")
def dev(bind: str | None) -> int:
    """Run the front end and a worker together, on one SQLite file or whatever is configured. Not for production."""
    return start(bind)


def start(bind: str | None = None) -> int:
    """Do so until a signal ends it; the exit code."""
    found = settings({"MR_WEB_BIND": bind}, development=True)
    place = free(found.http.bind, "mr dev")
    say(f"mr {__version__} · development · starting")
    known = whats_known(found)
    children = [Child("front end", ["web", "--development", "--bind", str(place)])]
    if found.worker.consume:
        children.append(Child("worker", ["worker", "--development"]))
    return Parent(children, found.worker.drain_s + 5.0).run(lambda: banner(found, place, known), place.endpoint)


def whats_known(found: Settings) -> list[str]:
    """What stands in the store already, a line for each workflow, and the first thing to do."""
    with opened(found) as parts:
        workflows = list(parts.registry.list_workflows())
        lines = missing(found, workflows)
        job = ""
        for name in workflows[:5]:
            _, _, now = parts.registry.current(name)
            jobs = ", ".join(sorted(now.jobs)) or "none"
            lines.append(f"  workflow  {name}: {len(now.handlers)} handlers, {len(now.steps)} steps, jobs: {jobs}")
            job = job or next((f"{name}/{one}" for one in sorted(now.jobs)), "")
        if job:
            lines.append(f"  next: mr run {job} key=value")
        elif lines:
            lines.append("  next: mr handler sync WORKFLOW FOLDER, mr step create …, mr job create …")
        else:
            lines.append("  next: mr workflow create NAME DESCRIPTION, then mr handler sync NAME FOLDER")
        return lines


def missing(found: Settings, workflows: Collection[str]) -> list[str]:
    """A line for each workflow that the settings name and that does not exist; it is served once it does."""
    return [
        f"  workflow  {name}: does not exist; create it: mr workflow create {name} DESCRIPTION"
        for name in found.worker.workflows or ()
        if name not in workflows
    ]


def banner(found: Settings, place: Bind, known: list[str]) -> None:
    """Say what runs, and what to do next."""
    offered = ", ".join(found.worker.capabilities)
    executors = f"{found.worker.executors} executor{'s' if found.worker.executors > 1 else ''}"
    say(f"  web       {f'http://{place}' if place.endpoint else place}")
    say(f"  worker    {f'{executors}, capabilities: {offered}' if found.worker.consume else 'none (MR_CONSUME=0)'}")
    say(f"  store     {found.store.url}")
    if found.broker.url.kind != "sqlite":
        say(f"  broker    {found.broker.url}")
    for line in known:
        say(line)
    say("  Ctrl-C ends it. Not for production: mr help web, mr help worker")
