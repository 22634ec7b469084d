"""The waiting room: clients that wait for the end of their requests, and the one thread that calls them out.

A blocking POST is accepted with `reply_to` naming this process; whoever ends the request writes
`replies/<process>/<request>` in the same transaction. One native thread watches that prefix for all who wait.

The hard part: a watch is only a hint. It stands on a revision that was read before, so that nothing falls between;
the whole prefix is read again every few seconds and whenever the watch is lost. A client is entered before its
request is submitted, so a reply can never be earlier than the one who waits for it; a reply that nobody waits for
belongs to a client that has gone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gevent.event import Event
from gevent.hub import get_hub

from mr import codec
from mr.errors import BackendError, CorruptEntry, WatchLost
from mr.http.threads import wake
from mr.model.request import Reply
from mr.ports.store import Entry, Store, Watch
from mr.rules import keys

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
"""How often all replies are looked at, whatever the watch says."""
PAUSE_S = 0.5
"""Before the store is asked again that did not answer."""


class Waiter:
    """One client that waits. Used by one greenlet."""

    def __init__(self) -> None:
        self.loop: Any = get_hub().loop
        self._reply: Reply | None = None
        self._called = Event()

    def wait(self, timeout_s: float) -> Reply | None:
        """The reply; None if there is none in time, or if the room closes."""
        self._called.wait(timeout_s)
        return self._reply

    def call(self, reply: Reply) -> None:
        """End the wait with a reply. Called in the loop of the waiter only."""
        self._reply = reply
        self._called.set()

    def leave(self) -> None:
        """End the wait, without a reply unless there is one already. Called in the loop of the waiter only."""
        self._called.set()


class WaitingRoom:
    """Those who wait for replies to `front_end`. `on_stray(workflow, request)` hears of replies for nobody.

    It is called in a native thread and must be quick.
    """

    def __init__(
        self,
        store: Store,
        front_end: str,
        on_stray: Callable[[str, str], None],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._store, self._on_stray, self._look_every_s = store, on_stray, look_every_s
        self._prefix = keys.replies(front_end)
        self._waiters: dict[str, Waiter] = {}
        self._thread: threading.Thread | None = None
        self._watch: Watch | None = None
        self._closed = threading.Event()
        self.is_draining = False

    def __len__(self) -> int:
        return len(self._waiters)

    @contextmanager
    def expect(self, r: str) -> Iterator[Waiter]:
        """Enter the room, before the request is submitted."""
        waiter = self._waiters[r] = Waiter()
        if self._thread is None:
            self._thread = threading.Thread(target=self._attend, name="replies", daemon=True)
            self._thread.start()
        try:
            yield waiter
        finally:
            del self._waiters[r]

    def drain(self) -> None:
        """Send everybody home, and those who come from now on. Called in the event loop."""
        self.is_draining = True
        for waiter in list(self._waiters.values()):
            waiter.leave()

    def close(self) -> None:
        """Stop watching. Twice is harmless."""
        self._closed.set()
        if (watch := self._watch) is not None:
            watch.close()
        if self._thread is not None:
            self._thread.join(timeout=self._look_every_s + PAUSE_S)

    # From here on in the native thread

    def _attend(self) -> None:
        while not self._closed.is_set():
            try:
                with self._store.watch(self._prefix, self._look()) as self._watch:
                    self._follow(self._watch)
            except WatchLost as error:
                _log.info("looking at all replies again: %s", error)
            except BackendError as error:
                if not self._closed.is_set():
                    _log.warning("replies cannot be watched: %s", error)
                self._closed.wait(PAUSE_S)
            except Exception:
                # Without this thread nobody is ever called: whatever it is, it must not end it.
                _log.exception("replies cannot be watched")
                self._closed.wait(PAUSE_S)

    def _follow(self, watch: Watch) -> None:
        look_at = time.monotonic() + self._look_every_s
        while not self._closed.is_set():
            left_s = look_at - time.monotonic()
            if left_s > 0:
                changes = watch.next(left_s)
                self._hand_out(change.entry for change in changes if change.entry is not None)
            else:
                if self._waiters:
                    self._look()
                look_at = time.monotonic() + self._look_every_s

    def _look(self) -> int:
        """Hand out all replies there are; the revision to watch from."""
        page = self._store.range(self._prefix)
        revision = page.revision
        self._hand_out(page.entries)
        while page.more:
            page = self._store.range(self._prefix, after=page.entries[-1].key)
            self._hand_out(page.entries)
        return revision

    def _hand_out(self, entries: Iterable[Entry]) -> None:
        calls: dict[Any, list[tuple[Waiter, Reply]]] = defaultdict(list)
        for entry in entries:
            r = entry.key[len(self._prefix) :]
            try:
                reply = codec.decode(entry.value, Reply, where=entry.key)
            except CorruptEntry as error:
                _log.error("%s", error)  # its waiter looks at the request's own record in time
                continue
            waiter = self._waiters.get(r)
            if waiter is None:
                self._on_stray(reply.workflow_name, r)
            else:
                calls[waiter.loop].append((waiter, reply))
        for loop, called in calls.items():
            wake(loop, _call_all, called)


def _call_all(called: list[tuple[Waiter, Reply]]) -> None:
    for waiter, reply in called:
        waiter.call(reply)
