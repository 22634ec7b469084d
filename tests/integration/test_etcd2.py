"""What only the adapter of etcd v2 has: directories, odd names, a short history, and an etcd that has no v2 at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mr import codec
from mr.errors import ConfigError, CorruptEntry, StoreUnavailable, ValueRefused, WatchLost
from mr.model.condition import Health
from mr.ports.store import Absent, At, Delete, Equals, Put, Transaction
from mr.settings import Settings
from mr.wiring import Parts
from tests.contract.store_contract import delete, gather, keys, put, until, value
from tests.integration.test_etcd3 import Proxy
from tests.servers import EtcdCluster, EtcdServer, free_ports, program

pytest.importorskip("etcd")

from mr.adapters.stores.etcd2 import Etcd2Store

ROOT = Path(__file__).resolve().parents[2]
V2 = ["--enable-v2"]

Open = Callable[..., Etcd2Store]


@pytest.fixture(scope="module")
def shared() -> Iterator[EtcdServer]:
    """For tests that leave it as it is."""
    with EtcdServer(V2) as server:
        yield server


@pytest.fixture
def server() -> Iterator[EtcdServer]:
    """For tests that hurt it."""
    with EtcdServer(V2) as server:
        yield server


@pytest.fixture
def open_store() -> Iterator[Open]:
    opened: list[Etcd2Store] = []

    def make(*endpoints: str, timeout_s: float = 2.0) -> Etcd2Store:
        opened.append(Etcd2Store(endpoints, timeout_s=timeout_s))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(shared: EtcdServer, open_store: Open) -> Etcd2Store:
    """Empty."""
    store = open_store(*shared.endpoints)
    while store.delete_prefix(""):
        pass
    return store


@pytest.fixture
def proxy(shared: EtcdServer) -> Iterator[Proxy]:
    proxy = Proxy(shared.port)
    yield proxy
    proxy.close()


def etcdctl(server: EtcdServer, *arguments: str) -> str:
    """What the v2 client of etcd prints."""
    command = [program("etcdctl"), "--endpoints", f"http://{server.endpoint}", *arguments]
    environ = {"PATH": os.environ["PATH"], "ETCDCTL_API": "2"}
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True, timeout=30).stdout


# What people see with etcdctl


def test_etcdctl_prints_the_json_that_was_written(shared: EtcdServer, store: Etcd2Store):
    record = {"state": "running", "note": 'ä "quoted" \n <&> \u2028', "numbers": [1, 2.5, None]}
    put(store, "entities/request/words/0a1b", codec.encode(record))
    printed = etcdctl(shared, "get", "entities/request/words/0a1b")
    assert printed == codec.encode(record).decode() + "\n"
    assert etcdctl(shared, "ls", "--recursive", "/entities").split() == [
        "/entities/request",
        "/entities/request/words",
        "/entities/request/words/0a1b",
    ]


def test_what_a_person_sets_by_hand_is_read_watched_and_removed(shared: EtcdServer, store: Etcd2Store):
    with store.watch("pinned/", store.revision()) as watch:
        etcdctl(shared, "set", "/pinned/w/r", '{"by":"me"}')
        (change,) = gather(watch, lambda seen: len(seen) == 1)
    assert (change.key, change.entry and change.entry.value) == ("pinned/w/r", b'{"by":"me"}')
    assert value(store, "pinned/w/r") == b'{"by":"me"}'
    assert store.delete_prefix("pinned/") == 1


@pytest.mark.parametrize("data", [b"\xff\xfe", b"\0\x80", b"", b"base64:", b"base64:aGk=", "\ufffd\0".encode()])
def test_a_value_that_v2_would_change_comes_back_as_it_was(store: Etcd2Store, data: bytes):
    put(store, "a", data)
    assert value(store, "a") == data
    assert store.commit(Transaction(conditions=[Equals("a", data)], operations=[Delete("a")])).succeeded


def test_what_somebody_wrote_behind_the_mark_is_refused_by_its_name(shared: EtcdServer, store: Etcd2Store):
    etcdctl(shared, "set", "/a", "base64:this is none")
    with pytest.raises(CorruptEntry, match="/a of etcd begins with base64:"):
        store.get("a")


def test_names_that_v2_hides_or_folds_are_listed(store: Etcd2Store):
    names = sorted(["_w/_r", "a/./b", "a/../b", "a//b", "~", "~5F", ".", "a/_", "z/"])
    for name in names:
        put(store, name, name.encode())
    assert keys(store, "") == names
    assert {entry.key: entry.value for entry in store.range("").entries} == {name: name.encode() for name in names}
    assert keys(store, "a/") == [name for name in names if name.startswith("a/")]
    assert keys(store, "a//") == ["a//b"]
    assert keys(store, "_w/") == ["_w/_r"]


def test_no_directory_remains_when_its_last_key_goes(shared: EtcdServer, store: Etcd2Store):
    put(store, "due/1/w/a")
    put(store, "due/2/w/b")
    delete(store, "due/1/w/a")
    assert etcdctl(shared, "ls", "--recursive", "-p").split() == ["/due/", "/due/2/", "/due/2/w/", "/due/2/w/b"]
    put(store, "a/b/c/d/e")
    put(store, "a/b/f")
    assert store.delete_prefix("a/") == 2
    assert store.delete_prefix("due/") == 1
    assert etcdctl(shared, "ls", "-p") == ""


def test_a_new_key_is_never_lost_with_the_directory_that_was_empty_a_moment_ago(store: Etcd2Store):
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            put(store, "d/e/other")
            delete(store, "d/e/other")

    thread = threading.Thread(target=come_and_go)
    thread.start()
    for number in range(100):
        put(store, f"d/e/{number}")
    stop.set()
    thread.join()
    assert store.count("d/e/") == 100


def test_an_index_of_zero_is_a_condition_that_fails(store: Etcd2Store):
    put(store, "a", b"one")
    for version in (0, -1):
        assert not store.commit(Transaction(conditions=[At("a", version)], operations=[Put("a", b"two")])).succeeded
        assert not store.commit(Transaction(conditions=[At("a", version)], operations=[Delete("a")])).succeeded
    assert value(store, "a") == b"one"


def test_more_than_one_key_at_a_time_is_refused(store: Etcd2Store):
    for transaction in (
        Transaction(operations=[Put("a", b"1"), Put("b", b"2")]),
        Transaction(conditions=[Absent("a")], operations=[Put("b", b"2")]),
    ):
        with pytest.raises(ValueRefused, match="one key at a time"):
            store.commit(transaction)
    assert keys(store, "") == []


@pytest.mark.parametrize("letter", ['"', "\u00e4", "\xff"])
def test_a_value_at_the_limit_is_stored_whatever_it_is_made_of(store: Etcd2Store, letter: str):
    one = letter.encode("latin-1" if letter == "\xff" else "utf-8")
    most = one * (store.limits.value_bytes // len(one))
    put(store, "a", most)
    assert value(store, "a") == most
    with pytest.raises(ValueRefused, match="1200000 are accepted"):
        put(store, "b", most + one)


# Servers that come and go


def test_a_server_that_goes_away_is_missed_and_all_goes_on_when_it_is_back(server: EtcdServer, open_store: Open):
    store = open_store(*server.endpoints, timeout_s=0.5)
    put(store, "a", b"before")
    server.kill()
    with pytest.raises(StoreUnavailable, match=server.endpoint) as refused:
        put(store, "a", b"during")
    assert not refused.value.unknown  # nothing was sent
    with pytest.raises(StoreUnavailable):
        store.get("a")
    server.start()
    assert value(store, "a") == b"before"
    server.pause()
    with pytest.raises(StoreUnavailable) as refused:
        put(store, "a", b"doubtful")
    assert refused.value.unknown
    server.resume()
    put(store, "a", b"after")
    assert value(store, "a") == b"after"


def test_a_write_whose_answer_is_lost_is_not_sent_again(proxy: Proxy, store: Etcd2Store, open_store: Open):
    behind = open_store(proxy.endpoint)
    before = put(store, "a")
    proxy.answer_bytes = 0
    with pytest.raises(StoreUnavailable) as refused:
        behind.commit(Transaction(conditions=[Absent("b")], operations=[Put("b", b"x")]))
    assert refused.value.unknown
    assert (proxy.connections, store.revision()) == (1, before + 1)
    proxy.answer_bytes = None
    again = behind.commit(Transaction(conditions=[Absent("b")], operations=[Put("b", b"x")], reads=["b"]))
    assert not again.succeeded
    assert again.entries["b"] is not None


def test_any_of_several_endpoints_serves(shared: EtcdServer, store: Etcd2Store, open_store: Open):
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    several = open_store(nobody, shared.endpoint)
    put(several, "a", b"x")
    assert value(several, "a") == b"x"
    health = {one.subject: one.health for one in several.conditions()}
    assert health[f"etcd {nobody}"] is Health.WARN
    assert Health.FAIL not in health.values()


def test_of_three_members_any_may_hang_or_die(open_store: Open):
    with EtcdCluster(V2) as cluster:
        store = open_store(*cluster.endpoints, timeout_s=0.7)
        put(store, "a/1")
        lease = store.grant(30)
        put(store, "workers/me", b"{}", lease)
        with store.watch("a/", store.revision()) as watch:
            cluster.servers[0].pause()

            def write() -> bool:
                try:
                    return bool(put(store, "a/2"))
                except StoreUnavailable:
                    return False

            until(write, 30.0)
            assert gather(watch, lambda seen: bool(seen))[0].key == "a/2"
            cluster.servers[0].resume()
        assert value(store, "a/2") == b"x"
        until(lambda: _answers(lambda: store.keep(lease)), 30.0)
        cluster.servers[1].kill()
        until(write, 30.0)


def _answers(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except StoreUnavailable:
        return False


# Watches


def test_a_watch_loses_its_place_when_much_happens_beside_it(store: Etcd2Store):
    put(store, "a/1")
    with store.watch("a/", store.revision()) as watch:
        assert watch.next(0.1) == []
        for number in range(1001):
            put(store, f"b/{number % 3}")
        with pytest.raises(WatchLost, match="has forgotten what the watch on 'a/' wants"):
            gather(watch, lambda seen: False)
    # The reader reads again, and goes on from there.
    page = store.range("a/")
    with store.watch("a/", page.revision) as watch:
        put(store, "a/2")
        assert [change.key for change in gather(watch, lambda seen: bool(seen))] == ["a/2"]


def test_a_watch_is_lost_when_etcd_comes_back_without_its_past(server: EtcdServer, open_store: Open):
    store = open_store(*server.endpoints, timeout_s=0.5)
    for _ in range(50):
        put(store, "a")
    with store.watch("a", store.revision()) as watch:
        server.kill()
        server.wipe()
        server.start()

        def is_lost() -> bool:
            try:
                watch.next(1.0)
            except WatchLost:
                return True
            except StoreUnavailable:
                pass
            return False

        until(is_lost)


def test_a_hanging_server_is_no_silent_watch(server: EtcdServer, open_store: Open):
    store = open_store(*server.endpoints, timeout_s=0.5)
    put(store, "a")
    with store.watch("a", store.revision()) as watch:
        assert watch.next(0.1) == []
        server.pause()
        with pytest.raises(StoreUnavailable):
            watch.next(2.0)
        server.resume()
        revision = put(store, "a", b"new")
        assert gather(watch, lambda seen: bool(seen))[-1].revision == revision


def test_keeping_a_lease_shows_nothing_to_watches(store: Etcd2Store):
    lease = store.grant(5)
    put(store, "workers/me", b"{}", lease)
    with store.watch("workers/", store.revision()) as watch:
        assert store.keep(lease)
        assert watch.next(0.3) == []


def test_a_lease_whose_answers_get_lost_is_still_kept(proxy: Proxy, store: Etcd2Store, open_store: Open):
    behind = open_store(proxy.endpoint)
    lease = behind.grant(3)
    put(behind, "workers/me", b"{}", lease)
    since = time.monotonic()
    proxy.answer_bytes = 0
    with pytest.raises(StoreUnavailable):
        behind.keep(lease)
    proxy.answer_bytes = None
    until(lambda: time.monotonic() - since > 1.5)
    assert behind.keep(lease)
    until(lambda: time.monotonic() - since > 4.0)
    assert store.get("workers/me") is not None


# What is missing


def test_an_etcd_without_v2_says_what_to_do(open_store: Open):
    with EtcdServer(["--enable-v2=false"]) as server:
        store = open_store(*server.endpoints)
        with pytest.raises(StoreUnavailable) as refused:
            store.get("a")
        assert str(refused.value) == (
            f"etcd at {server.endpoint} does not serve the v2 API (start it with --enable-v2, or use etcd3://)"
        )
        with pytest.raises(StoreUnavailable, match="--enable-v2"):
            store.watch("a", 1).next(1.0)
        (found,) = (one for one in store.conditions() if one.health is Health.FAIL)
        assert (found.subject, found.advice) == (f"etcd {server.endpoint} v2", refused.value.hint)
        for command in ("worker", "status"):
            environ = {**os.environ, "MR_STORE": f"etcd2://{server.endpoint}", "MR_BROKER": "nsq://127.0.0.1:1"}
            ended = subprocess.run(
                [sys.executable, "-m", "mr.cli.main", command],
                cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert ended.returncode != 0
            assert "does not serve the v2 API" in ended.stderr
            assert "--enable-v2" in ended.stderr
            assert "Traceback" not in ended.stderr


def test_without_python_etcd_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "etcd", None)
    for name in [name for name in sys.modules if name.startswith("mr.adapters.stores.etcd2")]:
        monkeypatch.delitem(sys.modules, name)
    parts = Parts(Settings.from_env({"MR_STORE": "etcd2://127.0.0.1:1", "HOME": "/tmp"}))
    with pytest.raises(ConfigError, match=r"MR_STORE: etcd2 needs python-etcd.*pip install 'mr-jobs\[etcd2\]'"):
        _ = parts.store
