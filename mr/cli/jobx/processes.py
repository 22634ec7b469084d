"""JobX's scripts that start the processes: front end and worker in one, in the foreground."""

from __future__ import annotations

import os

from mr.cli.jobx.script import script

PRODUCTION = {
    "MR_DO_STREAM_LOG": "0",
    "MR_LOG_FILEPATH": "/var/log/jobx.log",
    "MR_WEB_BIND": "unix:/tmp/mr.gunicorn.sock",
}
"""What `mr_start_gunicorn_prod` sets where the environment says nothing else."""


@script(example="")
def mr_start_gunicorn_dev() -> int:
    """Start the front end and, unless MR_CONSUME=0, a worker: `mr dev`."""
    from mr.cli.dev import start

    return start()


@script(example="")
def mr_start_gunicorn_prod() -> int:
    """Start the front end on /tmp/mr.gunicorn.sock, for an nginx, and, unless MR_CONSUME=0, a worker.

    Logs go to /var/log/jobx.log. MR_WEB_BIND, MR_LOG_FILEPATH and MR_DO_STREAM_LOG=1 say otherwise. In a cluster each
    process is better started by itself: mr web, mr worker.
    """
    from mr.cli.binding import wait_until_free
    from mr.cli.dev import missing
    from mr.cli.output import say
    from mr.cli.parent import Child, Parent
    from mr.cli.session import opened, settings

    for name, text in PRODUCTION.items():
        if not os.environ.get(name):
            os.environ[name] = text  # for the children, too
    found = settings()
    with opened(found) as parts:
        for line in missing(found, parts.registry.list_workflows()):
            say(line)
    wait_until_free(found.http.bind, "mr web", say)
    children = [Child("front end", ["web"])]
    if found.worker.consume:
        children.append(Child("worker", ["worker"]))

    def told() -> None:
        say(f"mr: at {found.http.bind}; the log is {found.log.path}")

    return Parent(children, found.worker.drain_s + 5.0).run(told, found.http.bind.endpoint)
