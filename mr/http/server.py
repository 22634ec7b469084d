"""The server process: gunicorn, run in this process, with the application made in its workers.

Connections and threads do not survive a fork, so everything that has them is made after it, in the worker.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import AppImportError

from mr.errors import MrError
from mr.http import gunicorn_config
from mr.http.app import create_app
from mr.http.front_end import FrontEnd
from mr.settings import Settings
from mr.systemd import Manager
from mr.wiring import Parts


def application() -> Flask:
    """The application as the environment configures it, for a gunicorn that was started by somebody else.

    Raises: ConfigError; StoreUnavailable.
    """
    return create_app(FrontEnd(Parts(Settings.from_env(os.environ))))


def serve(settings: Settings, bind: str | None = None, *, on_ready: Callable[[list[str]], None] | None = None) -> int:
    """Run the front end until SIGTERM or SIGINT; returns its exit code.

    `bind` is `host:port` or `unix:/path` instead of what the settings say. `on_ready` gets the addresses that are
    listened on once they are open (port 0 has become a number).
    Raises: ConfigError.
    """
    Parts(settings).check_blob_store()  # what cannot be wired is said here, before anything is forked
    _allow_many_files()
    master = os.getpid()
    code = 0
    try:
        _Arbiter(_Server(settings, bind or str(settings.http.bind), on_ready), Manager(os.environ)).run()
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 1
    if os.getpid() != master:
        # A worker ends here: what our caller does after serving is the master's business alone.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn brings no types
    def __init__(self, settings: Settings, bind: str, on_ready: Callable[[list[str]], None] | None) -> None:
        self._settings, self._bind, self._on_ready = settings, bind, on_ready
        super().__init__()

    def load_config(self) -> None:
        for name, value in vars(gunicorn_config).items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)
        self.cfg.set("bind", self._bind)
        self.cfg.set("when_ready", self._ready)
        if self._settings.log.debug:
            self.cfg.set("loglevel", "info")

    def load(self) -> Flask:
        """The application of one worker process."""
        try:
            return create_app(FrontEnd(Parts(self._settings)))
        except MrError as error:
            raise AppImportError(f"mr: {error}") from error

    def _ready(self, arbiter: Any) -> None:
        if self._on_ready is not None:
            self._on_ready([str(listener) for listener in arbiter.LISTENERS])


class _Arbiter(Arbiter):  # type: ignore[misc]  # gunicorn brings no types
    def __init__(self, server: _Server, manager: Manager) -> None:
        super().__init__(server)
        self._manager = manager

    def murder_workers(self) -> None:
        """Called at each turn of the arbiter's loop, once a second at least: it lives, and sees to its workers."""
        super().murder_workers()
        if self._manager.beat_s is not None:
            self._manager.alive()

    def stop(self, graceful: bool = True) -> None:
        """End the workers."""
        self._manager.ending()
        super().stop(graceful)

    def handle_int(self) -> None:
        """SIGINT ends in order, as SIGTERM does; a second one is quick."""
        self.handle_term()


def _allow_many_files() -> None:
    """Each waiting client is an open file: take what the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * gunicorn_config.worker_connections
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
