"""A watch on etcd that outlives the connection it runs on.

`next` reads the stream in the caller's thread; there is no thread of its own, so a watch that nobody asks costs
nothing. When the stream ends, another is opened from the revision after the last one seen.

The hard part is what counts as seen. Only the revisions of changes that were handed over do, and those of progress
notices, which etcd sends once a watch has everything. The revision in the header of other messages is that of the
store, while older changes may still be on their way. If the wanted revision was compacted meanwhile, nobody can
say whether something was missed: WatchLost.

And silence says nothing: a member that hangs keeps its connections, and the kernel acknowledges for it. Others of this
process find out by their calls (`Cluster.was_left`); where there are none, the watch asks the member itself.
"""

from __future__ import annotations

import threading
import time

import msgspec

from mr.adapters.stores.etcd3 import json
from mr.adapters.stores.etcd3.cluster import Cluster
from mr.adapters.stores.etcd3.http import Stream
from mr.adapters.stores.etcd3.messages import span
from mr.errors import StoreUnavailable, WatchLost
from mr.ports.store import Change, Watch

RECONNECT_FIRST_S = 0.05
RECONNECT_MAX_S = 1.0
LOOK_ROUND_S = 1.0
"""How often a watch that hears nothing asks whether others had to leave its member of etcd."""
QUIET_S = 5.0
"""After so long without a word from it, to anybody, the member is asked whether it still answers."""


class Etcd3Watch(Watch):
    """Changes below a prefix, from a revision on. `next` for one thread, `close` for any."""

    def __init__(self, cluster: Cluster, prefix: str, after_revision: int, *, timeout_s: float) -> None:
        self._cluster = cluster
        self._prefix = prefix
        self._seen = after_revision
        self._timeout_s = timeout_s
        self._stream: Stream | None = None
        self._standing = False
        self._stood_before = False
        self._opened_at = self._give_up_at = self._heard_at = 0.0
        self._pause_s = RECONNECT_FIRST_S
        self._try_at = 0.0
        self._ready: list[Change] = []
        self._problem: Exception | None = None
        self._lost = ""
        self._closed = threading.Event()

    def next(self, timeout_s: float) -> list[Change]:
        deadline = time.monotonic() + timeout_s
        while not self._closed.is_set():
            if self._ready:
                changes, self._ready = self._ready, []
                return changes
            if self._lost:
                raise WatchLost(self._lost)
            pause_s = self._try_at - time.monotonic() if self._stream is None else 0.0
            if pause_s > 0.0:
                self._closed.wait(min(pause_s, max(0.0, deadline - time.monotonic())))
            else:
                self._listen(deadline)
            if time.monotonic() >= deadline and not self._ready and not self._lost:
                if self._problem is None:
                    return []
                name = self._prefix or "all keys"
                raise StoreUnavailable(f"the watch on {name} has no etcd: {self._problem}") from self._problem
        return []

    def close(self) -> None:
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def _listen(self, deadline: float) -> None:
        try:
            self._read(self._stream or self._connect(), deadline)
        except (StoreUnavailable, OSError) as error:
            self._problem = error
            self._drop()

    def _connect(self) -> Stream:
        first, end = span(self._prefix)
        create = {"key": first, "range_end": end, "start_revision": self._seen + 1, "progress_notify": True}
        body = msgspec.json.encode({"create_request": create})
        self._stream = self._cluster.stream("/v3/watch", body, self._timeout_s)
        self._opened_at = time.monotonic()
        self._give_up_at = self._opened_at + self._timeout_s
        if self._closed.is_set():  # Closed while connecting: `close` may not have seen this stream.
            raise StoreUnavailable("the watch is closed")
        return self._stream

    def _drop(self) -> None:
        """Leave a failed stream and its endpoint; the longer etcd is away, the rarer the tries."""
        if self._stream is not None:
            self._stream.close()
            self._cluster.leave(self._stream.endpoint)
        if self._standing:
            self._pause_s = RECONNECT_FIRST_S
        self._stream, self._standing = None, False
        self._try_at = time.monotonic() + self._pause_s
        self._pause_s = min(RECONNECT_MAX_S, 2 * self._pause_s)

    def _read(self, stream: Stream, deadline: float) -> None:
        """Take in what comes until the deadline, or until something came."""
        now = time.monotonic()
        until = min(deadline, now + LOOK_ROUND_S if self._standing else self._give_up_at)
        lines = stream.lines(max(0.0, until - now))
        for line in lines:
            try:
                answer = json.read_watch(line)
            except msgspec.MsgspecError as error:
                raise StoreUnavailable(f"{stream.endpoint} sent no watch message: {error}") from error
            if answer.result is None:
                self._cluster.forget_login()
                raise StoreUnavailable(
                    f"{stream.endpoint} ended the watch: {answer.error.message if answer.error else line!r}"
                )
            self._take(answer.result)
        if lines:
            self._heard_at = time.monotonic()
        if not self._standing and time.monotonic() >= self._give_up_at:
            raise StoreUnavailable(f"{stream.endpoint} does not answer")
        if not self._ready and self._cluster.was_left(stream.endpoint, self._opened_at):
            raise StoreUnavailable(f"{stream.endpoint} does not answer others")
        if self._standing and not self._ready and time.monotonic() - self._heard_at >= QUIET_S:
            self._cluster.check(stream.endpoint, QUIET_S)

    def _take(self, result: json.WatchResult) -> None:
        revision = result.header.revision
        if result.canceled:
            if not result.compact_revision:
                self._cluster.forget_login()
                raise StoreUnavailable(f"etcd cancelled the watch: {result.cancel_reason}")
            wanted, compacted = self._seen + 1, result.compact_revision
            self._lost = f"the watch on {self._prefix} wants revision {wanted}; etcd was compacted to {compacted}"
        elif result.created:
            # A watch on the future of a store that lost its past would stay silent for ever.
            if self._stood_before and revision < self._seen:
                self._lost = f"etcd stands at revision {revision}, the watch on {self._prefix} has seen {self._seen}"
            self._standing = self._stood_before = True
            self._problem = None
        elif result.events:
            for event in result.events:
                entry = None if event.type == "DELETE" else event.kv.entry()
                self._ready.append(Change(event.kv.name, entry, event.kv.mod_revision))
            self._seen = self._ready[-1].revision
        else:
            self._seen = max(self._seen, revision)
