"""`mr web` and `mr worker`: read the settings, start the process."""

from __future__ import annotations

import logging
import os

import click

from mr.cli.binding import is_inherited, wait_until_free
from mr.cli.command import Command
from mr.cli.session import settings

_log = logging.getLogger(__name__)

development_option = click.option("--development", is_flag=True, hidden=True)
"""Said by `mr dev` to the processes that it starts: its defaults and its rules are theirs."""


@click.command("web", cls=Command, examples=["mr web", "mr web --bind 0.0.0.0:8080", "mr web --bind unix:/run/mr.sock"])
@click.option("--bind", metavar="HOST:PORT", help="Where to listen; instead of MR_WEB_BIND.")
@development_option
def web(bind: str | None, development: bool) -> int:
    """Run the front end. It never runs handlers."""
    found = settings({"MR_WEB_BIND": bind}, development=development, listens=True)
    from mr.cli.logs import set_up
    from mr.http.server import serve

    set_up(found)
    if not is_inherited(os.environ):
        wait_until_free(found.http.bind, "mr web", _log.warning)
    return serve(found, on_ready=lambda addresses: _log.info("listening at %s", ", ".join(addresses)))


@click.command("worker", cls=Command, examples=["mr worker", "mr worker --capabilities general,gpu=2"])
@click.option("--capabilities", metavar="A,B=2", help="What it offers; instead of MR_SYSTEM_CAPABILITIES.")
@development_option
def worker(capabilities: str | None, development: bool) -> int:
    """Run a worker: a supervisor and its executors. One of all workers sweeps and cleans."""
    found = settings({"MR_SYSTEM_CAPABILITIES": capabilities}, development=development)
    from mr.cli.logs import set_up
    from mr.worker.process import run

    set_up(found)
    return run(found, os.environ)
