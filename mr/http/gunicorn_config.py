"""Settings of gunicorn, used by `mr web` and by deployments that start gunicorn themselves:

gunicorn -c python:mr.http.gunicorn_config -b 127.0.0.1:8080 'mr.http.server:application()'
"""

from __future__ import annotations

from typing import Any

worker_class = "mr.http.gunicorn_worker.Worker"
workers = 1
"""A second one brings nothing on two cores; a big machine may have more, they share nothing but the store."""
worker_connections = 12_000
"""Each waiting client is one connection, and so is each idle keep-alive. With 10,000 of them there is still room for
those who ask how we are."""
keepalive = 15
"""Seconds for the next request on a connection, and for sending its headers."""
graceful_timeout = 10
timeout = 30
"""Without a beat of its event loop for so long, a worker process is replaced. No limit for requests."""
control_socket_disable = True
"""Newer gunicorn would open one in the home directory."""
accesslog = None
loglevel = "warning"
proc_name = "mr-web"


def worker_exit(server: Any, worker: Any) -> None:
    """Let go of what a worker process holds; there is nothing when it could not start."""
    from mr.http.app import EXTENSION

    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.extensions[EXTENSION].close()
