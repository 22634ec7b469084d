"""Watching threads: what changes in the store and concerns a worker at once.

A watch is a hint. When it is lost, or the store is away, the state is read again; and every so often anyway.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from mr.errors import StoreUnavailable, WatchLost
from mr.ports.store import Change, Store

_log = logging.getLogger(__name__)


class Watching:
    """Calls `look` first and whenever changes may have been missed, and `on_changes` with what a watch says."""

    def __init__(
        self,
        name: str,
        store: Store,
        prefix: str,
        *,
        look: Callable[[], None],
        on_changes: Callable[[Sequence[Change]], None],
        every_s: float,
    ) -> None:
        self._store, self._prefix = store, prefix
        self._look, self._on_changes, self._every_s = look, on_changes, every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; the thread is not waited for."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                revision = self._store.revision()
                self._look()
                with self._store.watch(self._prefix, revision) as watch:
                    self._follow(watch.next)
            except WatchLost:
                continue
            except StoreUnavailable as error:
                _log.info("watching %s goes on later: %s", self._prefix, error)
                self._stopping.wait(1.0)
            except Exception:  # the thread has to outlive whatever one entry in the store may hold
                _log.exception("watching %s met something that should not be", self._prefix)
                self._stopping.wait(5.0)

    def _follow(self, next_changes: Callable[[float], list[Change]]) -> None:
        while not self._stopping.is_set():
            changes = next_changes(self._every_s)
            if changes:
                self._on_changes(changes)
            else:
                self._look()
