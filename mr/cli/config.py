"""`mr config`: the settings and where they come from."""

from __future__ import annotations

import click

from mr.cli.command import Noun
from mr.cli.output import document, json_option, next_step, plain_option, table
from mr.cli.session import settings


@click.group("config", cls=Noun, examples=["mr config show"])
def config() -> None:
    """The settings and where they come from."""


@config.command("show", examples=["mr config show", "MR_STORE=etcd3://127.0.0.1:2379 mr config show --json"])
@json_option
@plain_option
def show(as_json: bool, plain: bool) -> None:
    """Show every setting, its value, and who gave it. Secrets are hidden."""
    rows = settings().shown()
    if as_json:
        document(rows)
        return
    table(
        ["name", "value", "origin", "meaning"],
        [[row.name, row.value, row.origin, row.meaning] for row in rows],
        plain=plain,
    )
    next_step("mr doctor", told=False)
