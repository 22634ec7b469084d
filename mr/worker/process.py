"""The worker as a process: signals in, exit code out."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Mapping

from mr.settings import Settings
from mr.wiring import Parts
from mr.worker.supervisor import Supervisor

GARBAGE_EVERY = 20_000
"""Little here is cyclic, so the collector need not look as often as it does by itself."""


def run(settings: Settings, environ: Mapping[str, str]) -> int:
    """Be a worker until SIGTERM or SIGINT; the exit code.

    Raises: ConfigError; StoreUnavailable if the store is away at the start.
    """
    parts = Parts(settings)
    gc.freeze()
    gc.set_threshold(GARBAGE_EVERY)

    async def serve() -> int:
        supervisor = Supervisor(parts, environ)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        return await supervisor.run()

    try:
        return asyncio.run(serve())
    finally:
        parts.close()
