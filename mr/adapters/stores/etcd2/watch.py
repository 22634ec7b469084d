"""Changes below a prefix, by etcd v2's long polls: one question for each change.

etcd v2 remembers the last 1,000 changes of all keys together, and a watch must ask from where it stands. So when much
happens beside the prefix and nothing below it, it loses its place: WatchLost, and the state is to be read again. That
a question had no answer does not prove that nothing had changed, for the answer may have been on its way; so a place
is given up only for a change that was seen.

A question waits a second at most. Before one that follows on silence the revision is asked for, by way of most
members: a member that hangs or is cut off is silent, too, and is left then.

Directories that go are passed over: ours are empty. Who removes a full one by hand (`etcdctl rm -r`) is not seen.
"""

from __future__ import annotations

import threading
import time

import etcd

from mr.adapters.stores.etcd2 import tree
from mr.adapters.stores.etcd2.cluster import Cluster, Trouble, Unreached
from mr.errors import StoreUnavailable, WatchLost
from mr.ports.store import Change, Watch

POLL_S = 1.0
PAUSE_S = 0.1
_GONE = ("delete", "compareAndDelete", "expire")


class Etcd2Watch(Watch):
    """Asked by one thread; `close` is noticed within a second."""

    def __init__(self, cluster: Cluster, prefix: str, after_revision: int) -> None:
        self._cluster, self._prefix, self._seen = cluster, prefix, after_revision
        self._at = tree.directory(prefix)
        self._member = cluster.preferred
        self._is_silent = False
        self._closed = threading.Event()

    def next(self, timeout_s: float) -> list[Change]:
        """One change at most."""
        deadline = time.monotonic() + timeout_s
        problem: Exception | None = None
        while not self._closed.is_set() and (left_s := deadline - time.monotonic()) > 0:
            try:
                change = self._ask(min(left_s, POLL_S))
            except (Unreached, Trouble) as error:
                problem = error
                self._cluster.leave(self._member)
                self._member, self._is_silent = self._cluster.preferred, True
                self._closed.wait(min(PAUSE_S, left_s))
                continue
            problem = None
            if change is not None:
                return [change]
        if problem is not None and not self._closed.is_set():
            raise StoreUnavailable(f"etcd at {', '.join(self._cluster.names)} does not answer: {problem}") from problem
        return []

    def close(self) -> None:
        self._closed.set()

    def _ask(self, timeout_s: float) -> Change | None:
        """Wait for the next change. Raises: Unreached; Trouble; WatchLost; StoreUnavailable."""
        if self._is_silent:
            stands = int(self._cluster.call_one(self._member, lambda client: client.read("/", quorum=True)).etcd_index)
            if stands < self._seen:
                raise WatchLost(
                    f"etcd stands at revision {stands}, the watch on {self._prefix!r} has seen {self._seen}"
                )
        wanted = {"wait": True, "recursive": True, "waitIndex": self._seen + 1, "timeout": timeout_s}
        try:
            node = self._cluster.call_one(self._member, lambda client: client.read(self._at, **wanted))
        except etcd.EtcdWatchTimedOut:
            self._is_silent = True
            return None
        except (etcd.EtcdEventIndexCleared, etcd.EtcdWatcherCleared) as error:
            raise WatchLost(f"etcd v2 has forgotten what the watch on {self._prefix!r} wants: {error}") from error
        self._is_silent = False
        self._seen = int(node.modifiedIndex)
        key = tree.key_of(node.key)
        if node.dir or not key.startswith(self._prefix):
            return None
        return Change(key, None if node.action in _GONE else tree.entry_of(node), self._seen)
