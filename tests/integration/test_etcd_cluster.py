"""Three members of etcd, of which one dies or hangs under load, the leader too: clients go on with another one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mr.adapters.stores.etcd3 import Etcd3Store
from mr.errors import StoreUnavailable
from mr.ports.store import Absent, Put, Transaction, Watch
from tests.servers import EtcdCluster, EtcdServer

pytestmark = [pytest.mark.kills, pytest.mark.slow]

DEADLINE_S = 30.0
WRITERS = 4


@pytest.fixture
def cluster() -> Iterator[EtcdCluster]:
    with EtcdCluster() as cluster:
        yield cluster


def endpoints(cluster: EtcdCluster, first: EtcdServer) -> list[str]:
    """All of them, and this one is asked first."""
    return [first.endpoint, *(server.endpoint for server in cluster.servers if server is not first)]


def follower(cluster: EtcdCluster) -> EtcdServer:
    leader = cluster.leader()
    return next(server for server in cluster.servers if server is not leader)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(0.01)


class Writers:
    """Threads that create keys, one after the other, and repeat what is in doubt, as all of mr does."""

    def __init__(self, store: Etcd3Store) -> None:
        self._store = store
        self.written: list[str] = []
        self.longest_s = 0.0
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(name,), daemon=True) for name in range(WRITERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, name: int) -> None:
        number = 0
        while not self._stopped.is_set():
            key = f"load/{name}/{number:06}"
            started = time.monotonic()
            self._create(key)
            self.longest_s = max(self.longest_s, time.monotonic() - started)
            self.written.append(key)
            number += 1

    def _create(self, key: str) -> None:
        wanted = Transaction(conditions=[Absent(key)], operations=[Put(key, b"v")], reads=[key])
        while not self._stopped.is_set():
            try:
                outcome = self._store.commit(wanted)
            except StoreUnavailable:
                continue
            assert outcome.succeeded or outcome.entries[key] is not None
            return

    def write_more(self, count: int) -> None:
        """Return when so many more keys are there."""
        goal = len(self.written) + count
        until(lambda: len(self.written) >= goal, f"{count} more keys are written")

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)


def keys_of(store: Etcd3Store) -> list[str]:
    found: list[str] = []
    while True:
        page = store.range("load/", after=found[-1] if found else "", keys_only=True)
        found += [entry.key for entry in page.entries]
        if not page.more:
            return found


def seen(watch: Watch, stop: Callable[[], bool]) -> list[str]:
    """The keys that a watch tells of, in their order, until it is silent and `stop` holds."""
    found: list[str] = []
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            changes = watch.next(0.5)
        except StoreUnavailable:
            continue
        found += [change.key for change in changes]
        if not changes and stop():
            return found
    raise AssertionError("the watch does not come to an end")


@pytest.mark.parametrize("who", ["leader", "follower"])
@pytest.mark.parametrize("how", ["kill", "pause"])
def test_writes_and_watches_go_on_when_a_member_is_lost_under_load(cluster: EtcdCluster, who: str, how: str) -> None:
    victim = cluster.leader() if who == "leader" else follower(cluster)
    store = Etcd3Store(endpoints(cluster, victim))
    found: list[str] = []
    with store.watch("load/", store.revision()) as watch:
        writers = Writers(store)
        try:
            done = threading.Event()
            watcher = threading.Thread(target=lambda: found.extend(seen(watch, done.is_set)), daemon=True)
            watcher.start()
            writers.write_more(100)
            getattr(victim, how)()
            writers.write_more(200)
            if how == "kill":
                victim.start()
            else:
                victim.resume()
            writers.write_more(100)
        finally:
            writers.stop()
        done.set()
        watcher.join(DEADLINE_S)
    written = keys_of(store)
    assert set(writers.written) <= set(written)
    assert len(found) == len(set(found)), "a watch may repeat itself, but ours has no reason to"
    assert set(found) == set(written)
    # One patience for the member that is lost, and the time of an election.
    assert writers.longest_s < 10.0
    store.close()


def test_a_watch_on_a_member_that_hangs_moves_on_when_others_had_to(cluster: EtcdCluster) -> None:
    victim = follower(cluster)
    store = Etcd3Store(endpoints(cluster, victim))
    with store.watch("a/", store.revision()) as watch:
        watch.next(0.5)
        victim.pause()
        found: list[str] = []
        waiter = threading.Thread(target=lambda: found.extend(change.key for change in watch.next(DEADLINE_S)))
        waiter.start()
        with pytest.raises(StoreUnavailable):
            store.commit(Transaction(operations=[Put("b", b"in doubt")]))
        store.commit(Transaction(operations=[Put("a/1", b"v")]))
        waiter.join(DEADLINE_S / 2)
        assert found == ["a/1"]
    victim.resume()
    store.close()


def test_a_watch_on_a_member_that_hangs_moves_on_although_nobody_else_asks_it(
    cluster: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mr.adapters.stores.etcd3.watch.QUIET_S", 0.5)
    victim = follower(cluster)
    other = Etcd3Store([cluster.leader().endpoint])
    alone = Etcd3Store(endpoints(cluster, victim))
    with alone.watch("a/", other.revision()) as watch:
        other.commit(Transaction(operations=[Put("a/1", b"v")]))
        assert seen(watch, lambda: True) == ["a/1"]
        victim.pause()
        other.commit(Transaction(operations=[Put("a/2", b"v")]))
        found: list[str] = []

        def hears() -> bool:
            with contextlib.suppress(StoreUnavailable):
                found.extend(change.key for change in watch.next(1.0))
            return bool(found)

        until(hears, "the watch hears of it elsewhere")
        assert found == ["a/2"]
    victim.resume()
    alone.close()
    other.close()


def test_without_most_members_nothing_is_promised_and_with_them_all_goes_on(cluster: EtcdCluster) -> None:
    first, second, _ = cluster.servers
    store = Etcd3Store(cluster.endpoints, timeout_s=0.5)
    first.kill()
    second.kill()
    with pytest.raises(StoreUnavailable) as raised:
        store.commit(Transaction(operations=[Put("k", b"v")]))
    assert raised.value.unknown
    with pytest.raises(StoreUnavailable):
        store.get("k")
    second.launch()
    second.wait_until_healthy()

    def is_writable() -> bool:
        try:
            return store.commit(Transaction(operations=[Put("k", b"w")])).succeeded
        except StoreUnavailable:
            return False

    until(is_writable, "two of three members take writes")
    found = store.get("k")
    assert found is not None
    assert found.value == b"w"
    store.close()
