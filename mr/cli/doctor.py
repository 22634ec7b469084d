"""`mr doctor`: whether everything is as it should be, and what is left over in the store."""

from __future__ import annotations

import os
import time

import click

from mr.cli.command import Command
from mr.cli.exits import DONE, FAILED
from mr.cli.output import ask, did, document, echo, json_option, next_step, say, short_time, style, table, yes_option
from mr.cli.session import opened
from mr.errors import ConfigError
from mr.model.condition import Condition, Health
from mr.settings import Settings

MARKS = {Health.OK: ("✔", "green"), Health.WARN: ("!", "yellow"), Health.FAIL: ("✖", "red")}


@click.command(
    "doctor",
    cls=Command,
    examples=["mr doctor", "mr doctor --json", "mr doctor --orphans", "mr doctor --orphans --remove --yes"],
)
@click.option("--orphans", is_flag=True, help="Look for keys and blobs whose request is gone, and for nothing else.")
@click.option("--remove", is_flag=True, help="With --orphans: remove those that are older than an hour.")
@yes_option
@json_option
def doctor(orphans: bool, remove: bool, yes: bool, as_json: bool) -> int:
    """Look at settings, this machine, the store, the broker and the workers, and say what to do.

    ✔ well, ! to be looked at, ✖ broken. Exit code 1 if anything is broken.
    """
    if remove and not orphans:
        raise click.UsageError("--remove goes with --orphans")
    if orphans:
        _orphans(remove, yes, as_json)
        return DONE
    from mr.services.checkup import wrong_settings

    found: list[Condition] = []
    try:
        settings = Settings.from_env(os.environ)
    except ConfigError as error:
        found = wrong_settings(error)
        for one in () if as_json else found:
            _show(one)
        return _conclude(found, as_json)
    return _conclude(_examine(settings, as_json), as_json)


def _examine(settings: Settings, as_json: bool) -> list[Condition]:
    """All conditions, shown as they come."""
    from mr.services.checkup import checkup, of_settings
    from mr.wiring import Parts

    if not as_json:
        say(f"store {settings.store.url}, broker {settings.broker.url}")
    found = []
    parts = Parts(settings)
    try:
        conditions = checkup(
            settings, lambda: parts.languages, parts.reach_file_system, lambda: parts.blob_store,
            lambda: parts.store, lambda: parts.publisher, lambda: parts.fleet,
        )  # fmt: skip
        for condition in (*of_settings([*settings.notices, *settings.exposure()]), *conditions):
            found.append(condition)
            if not as_json:
                _show(condition)
    finally:
        parts.close()
    return found


def _show(one: Condition) -> None:
    mark, colour = MARKS[one.health]
    echo(f"{style(mark, fg=colour)} {one.subject}: {one.found}")
    if one.advice:
        echo(f"    {one.advice}")


def _conclude(found: list[Condition], as_json: bool) -> int:
    counts = {health: sum(one.health is health for one in found) for health in Health}
    if as_json:
        document({"is_healthy": not counts[Health.FAIL], "conditions": found})
    else:
        say(f"{counts[Health.OK]} well, {counts[Health.WARN]} to be looked at, {counts[Health.FAIL]} broken")
        next_step("mr status", told=False)
    return FAILED if counts[Health.FAIL] else DONE


def _orphans(remove: bool, yes: bool, as_json: bool) -> None:
    from mr.services.orphans import LOOK_AGAIN_S, Orphan, Orphans

    def record(one: Orphan) -> dict[str, object]:
        return {"id": one.request_id, "workflow_name": one.workflow, "keys": one.kinds, "newest_at": one.newest_at,
                "is_young": one.is_young, "is_fenced": one.is_fenced}  # fmt: skip

    with opened() as parts:
        service = Orphans(parts.store, parts.clock, time.sleep, parts.blob_store)
        what = "keys" if parts.blob_store is None else f"keys, and all blobs at {parts.blob_store.place},"
        if remove:
            ask(f"Remove all {what} of requests that are not in this store, where they are older than an hour?", yes)
            say(f"looking twice, {LOOK_AGAIN_S:g} s apart")
            removal = service.remove()
            if as_json:
                document({"removed": [record(one) for one in removal.removed], "left": list(map(record, removal.left))})
            blobs = sum(one.kinds.get("blobs", 0) for one in removal.removed)
            removed = f"{sum(one.count for one in removal.removed) - blobs:,} keys"
            if blobs:
                removed += f" and {blobs:,} blobs"
            did(f"removed {removed} of {len(removal.removed)} requests")
            left = removal.left
            if left:
                say(f"  {len(left)} requests were left alone: younger than an hour, fenced, or written to just now")
            return
        found = service.find()
    if as_json:
        document([record(one) for one in found])
        return
    if not found:
        did("no orphans: every key belongs to a request that is there")
        return
    rows = [
        [
            one.workflow,
            one.request_id[:12],
            ", ".join(f"{count} {kind}" for kind, count in one.kinds.items()),
            short_time(one.newest_at),
            "young" if one.is_young else "fenced: the sweeper's" if one.is_fenced else "",
        ]
        for one in found
    ]
    table(["workflow", "request", "keys", "newest (utc)", ""], rows)
    next_step("mr doctor --orphans --remove")
