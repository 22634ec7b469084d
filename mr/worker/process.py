"""The worker as a process: signals in, exit code out."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Mapping

from mr.settings import Settings
from mr.systemd import Manager
from mr.wiring import Parts
from mr.worker.supervisor import Supervisor

GARBAGE_EVERY = 20_000
"""Little here is cyclic, so the collector need not look as often as it does by itself."""


def run(settings: Settings, environ: Mapping[str, str]) -> int:
    """Be a worker until SIGTERM or SIGINT; the exit code.

    Raises: ConfigError; StoreUnavailable if the store is away at the start.
    """
    parts = Parts(settings)
    parts.check_file_system()
    parts.check_blob_store()
    parts.share_commits(takes=True)
    gc.freeze()
    gc.set_threshold(GARBAGE_EVERY)

    manager = Manager(environ)

    async def serve() -> int:
        supervisor = Supervisor(parts, environ)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            manager.ending()
            supervisor.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        beating = asyncio.create_task(_beat(manager))
        try:
            return await supervisor.run(lambda: manager.ready(f"worker {supervisor.name} serves"))
        finally:
            beating.cancel()

    try:
        return asyncio.run(serve())
    finally:
        parts.close()


async def _beat(manager: Manager) -> None:
    """Say that the event loop turns, as long as it does."""
    while manager.beat_s is not None:
        manager.alive()
        await asyncio.sleep(manager.beat_s)
