"""What only the adapter of etcd v3 has: crashes, cuts, bad endpoints, compaction, quota, logins, limits."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mr.adapters.stores.etcd3 import Etcd3Store, Maintenance
from mr.errors import NotFound, StoreFull, StoreUnavailable, ValueRefused, WatchLost
from mr.model.condition import Health
from mr.ports.store import Absent, At, Change, Delete, Entry, Equals, Put, Transaction, Watch
from tests.servers import EtcdServer, free_ports, program

DEADLINE_S = 20.0


class Proxy:
    """Stands before a server and cuts: at most `answer_bytes` of the answers pass on one connection, None for all.

    A cut comes after the server has answered, so that what was asked has happened. One that is `plain` lets HTTP/1
    pass and nothing else.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.answer_bytes: int | None = None
        self.plain = False
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.plain and data.startswith(b"PRI * HTTP/2.0"):
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    break
                server.sendall(data)
        close(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        passed = 0
        is_http2 = False
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                is_http2 = is_http2 if passed else data.startswith(b"\0")
                allowed = self.answer_bytes
                passing = data if allowed is None else data[: max(0, allowed - passed)]
                client.sendall(passing)
                passed += len(passing)
                if allowed is not None and passed >= allowed:
                    # HTTP/2 says this and that before it answers; the answer ends with fields that end the stream.
                    while data and is_http2 and not re.search(rb"\0\0.\x01\x05\0", data, re.DOTALL):
                        data = server.recv(65536)
                    break
        close(client)
        close(server)

    def close(self) -> None:
        self._listener.close()


def close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.fixture
def server() -> Iterator[EtcdServer]:
    """A server that the test may kill."""
    with EtcdServer() as server:
        yield server


@pytest.fixture(params=["grpc", "gateway"])
def open_store(request: pytest.FixtureRequest) -> Iterator[Callable[..., Etcd3Store]]:
    with contextlib.ExitStack() as stack:

        def build(*endpoints: str, **options) -> Etcd3Store:
            store = Etcd3Store(endpoints, grpc=request.param == "grpc", **options)
            stack.callback(store.close)
            return store

        yield build


@pytest.fixture
def proxy(shared: EtcdServer) -> Iterator[Proxy]:
    proxy = Proxy(shared.port)
    yield proxy
    proxy.close()


@pytest.fixture
def store(shared: EtcdServer, open_store) -> Etcd3Store:
    """A store on the shared server, empty."""
    store: Etcd3Store = open_store(shared.endpoint)
    while store.delete_prefix(""):
        pass
    return store


def put(store: Etcd3Store, key: str, value: bytes = b"") -> int:
    return store.commit(Transaction(operations=[Put(key, value)])).revision


def collect(watch: Watch, count: int) -> list[Change]:
    """At least so many changes; outages are waited out."""
    deadline = time.monotonic() + DEADLINE_S
    found: list[Change] = []
    while len(found) < count and time.monotonic() < deadline:
        with contextlib.suppress(StoreUnavailable):
            found += watch.next(0.5)
    return found


# Crashes and cuts


@pytest.mark.kills
def test_a_watch_misses_no_change_when_etcd_crashes_and_comes_back(server: EtcdServer, open_store):
    store = open_store(server.endpoint)
    start = store.revision()
    with store.watch("a/", start) as watch:
        revisions = [put(store, f"a/{number}", b"before") for number in range(3)]
        assert [change.revision for change in collect(watch, 3)] == revisions
        for round_ in range(2):
            server.restart()
            put(store, "other", b"")
            revisions = [put(store, f"a/{number}", f"after {round_}".encode()) for number in range(3)]
            changes = collect(watch, 3)
            assert [change.revision for change in changes] == revisions
            assert [change.entry.value for change in changes if change.entry] == [f"after {round_}".encode()] * 3


@pytest.mark.kills
def test_the_first_commit_after_a_restart_is_neither_lost_nor_doubtful(server: EtcdServer, open_store):
    store = open_store(server.endpoint)
    put(store, "a", b"1")
    server.restart()
    put(store, "a", b"2")
    entry = store.get("a")
    assert entry is not None
    assert entry.value == b"2"


@pytest.mark.kills
def test_a_watch_says_that_etcd_is_away_and_goes_on_when_it_is_back_at_little_cost(server: EtcdServer, open_store):
    store = open_store(server.endpoint)
    watch = store.watch("a/", store.revision())
    server.kill()
    cpu, start = time.process_time(), time.monotonic()
    with pytest.raises(StoreUnavailable) as raised:
        watch.next(2.0)
    assert not raised.value.unknown
    assert 2.0 <= time.monotonic() - start < 3.5
    assert time.process_time() - cpu < 0.05 * (time.monotonic() - start)
    server.start()
    revision = put(store, "a/1")
    assert [change.revision for change in collect(watch, 1)] == [revision]
    watch.close()


def test_nothing_was_sent_to_an_etcd_that_is_not_there(open_store):
    (port,) = free_ports(1)
    store = open_store(f"127.0.0.1:{port}")
    with pytest.raises(StoreUnavailable) as raised:
        put(store, "a")
    assert not raised.value.unknown
    with pytest.raises(StoreUnavailable):
        store.get("a")
    with store.watch("a", 0) as watch, pytest.raises(StoreUnavailable):
        watch.next(0.2)


def test_a_lost_answer_makes_the_outcome_unknown_and_a_repeat_shows_it(
    proxy: Proxy, shared: EtcdServer, store: Etcd3Store, open_store
):
    # With a second endpoint at hand the adapter must still not send a write twice by itself.
    through = open_store(proxy.endpoint, shared.endpoint)
    assert through.get("k") is None  # so that a connection stands
    create = Transaction(conditions=[Absent("k")], operations=[Put("k", b"mine")], counts=["k"], reads=["k"])
    proxy.answer_bytes = 0
    with pytest.raises(StoreUnavailable) as raised:
        through.commit(create)
    assert raised.value.unknown
    assert proxy.connections == 1
    outcome = through.commit(create)
    assert not outcome.succeeded
    assert outcome.counts == {"k": 1}
    found = outcome.entries["k"]
    assert found is not None
    assert (found.value, found.version) == (b"mine", found.created)


def test_an_answer_cut_in_its_middle_makes_the_outcome_unknown(proxy: Proxy, store: Etcd3Store, open_store):
    through = open_store(proxy.endpoint)
    assert through.get("k") is None
    proxy.answer_bytes = 250
    with pytest.raises(StoreUnavailable) as raised:
        put(through, "k")
    assert raised.value.unknown
    assert store.get("k") is not None


def test_a_read_whose_answer_is_lost_is_asked_of_the_next_endpoint(proxy: Proxy, shared, store: Etcd3Store, open_store):
    put(store, "k", b"v")
    through = open_store(proxy.endpoint, shared.endpoint)
    assert through.count("k") == 1
    proxy.answer_bytes = 0
    found = through.get("k")
    assert found is not None
    assert found.value == b"v"


@pytest.mark.parametrize("answer_bytes", [10, 700, 1000, 5000])
def test_a_watch_cut_in_the_middle_of_a_message_misses_nothing(
    answer_bytes: int, proxy: Proxy, shared, store: Etcd3Store, open_store
):
    start = store.revision()
    through = open_store(proxy.endpoint, shared.endpoint)
    proxy.answer_bytes = answer_bytes
    revisions = []
    with through.watch("a/", start) as watch:
        found: list[Change] = []
        for number in range(20):
            revisions.append(put(store, f"a/{number}", b"x" * 100 * number))
            found += collect(watch, 1)
        found += collect(watch, len(revisions) - len(found))
    assert [change.revision for change in found] == revisions


def test_a_watch_of_a_big_value_sees_it_whole(store: Etcd3Store):
    value = os.urandom(1_000_000)
    with store.watch("a/", store.revision()) as watch:
        put(store, "a/1", value)
        (change,) = collect(watch, 1)
    assert change.entry is not None
    assert change.entry.value == value


def test_a_proxy_that_passes_plain_http_only_is_no_obstacle(proxy: Proxy, caplog: pytest.LogCaptureFixture):
    proxy.plain = True
    with contextlib.closing(Etcd3Store([proxy.endpoint])) as through:
        with through.watch("plain/", through.revision()) as watch:
            revisions = [put(through, f"plain/{number}") for number in range(3)]
            assert [change.revision for change in collect(watch, 3)] == revisions
        assert through.count("plain/") == 3
    (said,) = (record.getMessage() for record in caplog.records)
    assert "JSON gateway" in said


def test_commits_and_pages_of_megabytes_pass_both_ways(store: Etcd3Store):
    values = [os.urandom(1_200_000) for _ in range(4)]
    for number, value in enumerate(values):
        put(store, f"big/{number}", value)
    many = {f"many/{number:03}": os.urandom(11_000) for number in range(120)}
    assert store.commit(Transaction(operations=[Put(key, value) for key, value in many.items()])).succeeded
    assert [entry.value for entry in store.range("big/").entries] == values
    assert {entry.key: entry.value for entry in store.range("many/").entries} == many


# Endpoints


def test_a_dead_endpoint_in_the_list_is_passed_over(shared: EtcdServer, store: Etcd3Store, open_store):
    (dead,) = free_ports(1)
    both = open_store(f"127.0.0.1:{dead}", shared.endpoint)
    put(both, "k", b"v")
    assert both.count("k") == 1
    with both.watch("k", 0) as watch:
        assert collect(watch, 1)[-1].key == "k"


@pytest.mark.kills
def test_a_hanging_endpoint_delays_a_read_and_makes_a_write_doubtful(
    server: EtcdServer, shared: EtcdServer, store: Etcd3Store, open_store
):
    first = open_store(server.endpoint, shared.endpoint, timeout_s=0.5)
    put(first, "k", b"first")
    put(store, "k", b"second")
    server.pause()
    with pytest.raises(StoreUnavailable) as raised:
        put(first, "k", b"third")
    assert raised.value.unknown
    found = first.get("k")  # The next endpoint, at once.
    assert found is not None
    assert found.value == b"second"


@pytest.mark.kills
def test_a_watch_on_a_hanging_endpoint_moves_to_the_next(server: EtcdServer, shared, store: Etcd3Store, open_store):
    start = store.revision()
    put(store, "k", b"v")
    server.pause()
    with open_store(server.endpoint, shared.endpoint, timeout_s=0.5).watch("k", start) as watch:
        assert [change.key for change in collect(watch, 1)] == ["k"]


@pytest.mark.parametrize("endpoint", ["localhost", "localhost:", ":2379", "host:port"])
def test_an_endpoint_without_host_or_port_is_refused(endpoint: str):
    with pytest.raises(ValueError, match="host:port"):
        Etcd3Store([endpoint])


# Compaction


def test_a_watch_from_before_a_compaction_is_lost(store: Etcd3Store):
    start = store.revision()
    for number in range(3):
        put(store, "a/1", str(number).encode())
    watch = store.watch("a/", start)
    store.compact(store.revision())
    for _ in range(2):
        with pytest.raises(WatchLost, match="compacted"):
            collect(watch, 1)
    watch.close()


def test_a_watch_that_is_up_to_date_does_not_mind_compaction(store: Etcd3Store):
    with store.watch("a/", store.revision()) as watch:
        put(store, "a/1")
        assert len(collect(watch, 1)) == 1
        store.compact(store.revision())
        put(store, "a/2")
        assert [change.key for change in collect(watch, 1)] == ["a/2"]


@pytest.mark.kills
def test_a_watch_is_lost_when_its_place_was_compacted_while_it_was_cut_off(server: EtcdServer, open_store):
    store = open_store(server.endpoint)
    with store.watch("a/", store.revision()) as watch:
        put(store, "a/1")
        assert len(collect(watch, 1)) == 1
        server.restart()
        for number in range(3):
            put(store, "a/2", str(number).encode())
        store.compact(store.revision())
        with pytest.raises(WatchLost):
            collect(watch, 4)


def test_compaction_of_what_is_gone_or_yet_to_come_is_left_alone(store: Etcd3Store):
    put(store, "a")
    store.compact(store.revision())
    store.compact(1)
    store.compact(store.revision() + 1000)
    assert store.count("a") == 1


def test_maintenance_forgets_what_is_old_enough_and_disturbs_nobody(store: Etcd3Store):
    maintain = Maintenance(store, keep_s=0.2)
    start = put(store, "a/1", b"old")
    put(store, "a/1", b"new")
    with store.watch("a/", store.revision()) as busy, store.watch("idle/", store.revision()) as idle:
        assert idle.next(0.1) == []
        maintain()
        last = put(store, "a/1", b"newest")
        assert len(collect(busy, 1)) == 1
        with store.watch("a/", start - 1) as watch:
            assert len(collect(watch, 3)) == 3  # nothing is forgotten yet

        def is_forgotten() -> bool:
            maintain()
            with store.watch("a/", start - 1) as watch:
                try:
                    watch.next(0.1)
                except WatchLost:
                    return True
            return False

        deadline = time.monotonic() + DEADLINE_S
        while not is_forgotten():
            assert time.monotonic() < deadline, "nothing is forgotten"
        assert store.get("a/1") == Entry("a/1", b"newest", last, start)
        assert store.commit(Transaction(conditions=[At("a/1", last)], operations=[Put("a/1", b"more")])).succeeded
        put(store, "idle/1")
        assert [change.key for change in collect(busy, 1)] == ["a/1"]
        assert [change.key for change in collect(idle, 1)] == ["idle/1"]


@pytest.mark.kills
def test_maintenance_goes_on_after_etcd_was_away_and_lost_its_past(server: EtcdServer, open_store):
    store = open_store(server.endpoint)
    maintain = Maintenance(store, keep_s=0.0)
    for number in range(5):
        put(store, "a", str(number).encode())
    maintain()
    server.kill()
    with pytest.raises(StoreUnavailable):
        maintain()
    server.wipe()
    server.start()
    maintain()
    first = put(store, "a", b"anew")
    put(store, "a", b"again")
    maintain()
    maintain()
    with store.watch("a", first - 1) as watch, pytest.raises(WatchLost):
        collect(watch, 3)


@pytest.mark.kills
def test_a_watch_is_lost_when_etcd_comes_back_with_an_older_state(server: EtcdServer, open_store):
    store = open_store(server.endpoint)
    with store.watch("a/", store.revision()) as watch:
        for number in range(5):
            put(store, f"a/{number}")
        collect(watch, 5)
        server.kill()
        server.wipe()
        server.start()
        with pytest.raises(WatchLost, match="has seen"):
            collect(watch, 1)


# Watches, threads, processes


def test_closing_a_watch_wakes_the_thread_that_waits_on_it(store: Etcd3Store):
    watch = store.watch("a/", store.revision())
    watch.next(0.0)
    found: list[list[Change]] = []
    waiter = threading.Thread(target=lambda: found.append(watch.next(DEADLINE_S)))
    waiter.start()
    watch.close()
    waiter.join(DEADLINE_S / 2)
    assert found == [[]]
    watch.close()


def test_an_idle_watch_costs_nothing(store: Etcd3Store):
    with store.watch("a/", store.revision()) as watch:
        watch.next(0.2)
        cpu = time.process_time()
        assert watch.next(1.0) == []
        assert time.process_time() - cpu < 0.02


def test_many_threads_share_one_store(store: Etcd3Store):
    def work(name: int) -> None:
        for number in range(25):
            put(store, f"t/{name}/{number}", b"x")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert store.count("t/") == 200


def test_a_forked_process_opens_its_own_connections(proxy: Proxy, store: Etcd3Store, open_store):
    through = open_store(proxy.endpoint)
    put(through, "k", b"parent")
    child = os.fork()
    if child == 0:
        # _exit, so that nothing of the test runner runs twice.
        try:
            put(through, "k", b"child")
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert proxy.connections == 2
    found = through.get("k")
    assert found is not None
    assert found.value == b"child"
    assert proxy.connections == 2, "the parent has lost its connection"


def test_a_closed_store_says_so(store: Etcd3Store):
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.get("k")


# Leases


def test_a_lease_that_nobody_keeps_takes_its_entries_with_it(store: Etcd3Store):
    lease = store.grant(0.1)
    assert lease.ttl_s >= 1.0
    store.commit(Transaction(operations=[Put("w/1", b"", lease)]))
    with store.watch("w/", store.revision()) as watch:
        (change,) = collect(watch, 1)
    assert (change.key, change.entry) == ("w/1", None)
    assert store.keep(lease) is False
    store.revoke(lease)


def test_a_dead_lease_refuses_the_whole_transaction(store: Etcd3Store):
    lease = store.grant(5.0)
    store.revoke(lease)
    with pytest.raises(NotFound, match="lease"):
        store.commit(Transaction(operations=[Put("a", b""), Put("b", b"", lease)]))
    assert store.get("a") is None


# Limits, both sides of each


def test_operations_up_to_the_limit_are_taken_and_one_more_is_refused(store: Etcd3Store):
    puts = [Put(f"p/{number}", b"") for number in range(126)]
    full = Transaction(
        conditions=[Absent(f"p/{number}") for number in range(128)], operations=puts, counts=["p/"], reads=["p/0"]
    )
    assert store.commit(full).counts == {"p/": 126}
    with pytest.raises(ValueRefused, match="128"):
        store.commit(Transaction(operations=[*puts, Put("p/126", b""), Put("p/127", b"")], counts=["p/"]))
    with pytest.raises(ValueRefused, match="128"):
        store.commit(Transaction(conditions=[Absent(f"p/{number}") for number in range(129)]))


def test_bytes_up_to_the_limit_are_taken_and_one_more_is_refused(store: Etcd3Store):
    # Many operations make the largest overhead, so this is also where etcd's own limit would be met.
    key = "b/" + "k" * 60
    names = [f"{key}{number:03d}" for number in range(120)]
    lease = store.grant(60.0)
    room = store.limits.transaction_bytes - 2 * sum(len(name) for name in names) - 4 * len("b/")
    share = room // len(names)
    values = [b"x" * share] * (len(names) - 1) + [b"x" * (room - share * (len(names) - 1))]

    def transaction(*last: bytes) -> Transaction:
        return Transaction(
            conditions=[Absent(name) for name in names],
            operations=[Put(name, value, lease) for name, value in zip(names, [*values[:-1], *last], strict=True)],
            counts=["b/"],
        )

    with pytest.raises(ValueRefused, match="over the limit"):
        store.commit(transaction(values[-1] + b"x"))
    assert store.commit(transaction(values[-1])).counts == {"b/": 120}


def test_one_value_up_to_its_limit_is_taken_and_one_byte_more_is_refused(store: Etcd3Store):
    put(store, "v", b"x" * store.limits.value_bytes)
    with pytest.raises(ValueRefused, match="v has"):
        put(store, "v", b"x" * (store.limits.value_bytes + 1))


@pytest.mark.parametrize(
    "transaction",
    [
        Transaction(operations=[Put("a", b"1"), Put("a", b"2")]),
        Transaction(operations=[Put("a", b"1"), Delete("a")]),
        Transaction(operations=[Delete("a"), Delete("a")]),
        Transaction(operations=[Put("", b"")]),
        Transaction(operations=[Put("\ud800", b"")]),
    ],
)
def test_what_etcd_would_refuse_is_refused_before(transaction: Transaction, open_store):
    (port,) = free_ports(1)
    with pytest.raises(ValueRefused):
        open_store(f"127.0.0.1:{port}").commit(transaction)


def test_more_than_etcd_takes_is_refused_and_not_doubtful(server_with_small_requests: EtcdServer, open_store):
    # A site may have lowered --max-request-bytes below what this adapter checks.
    store = open_store(server_with_small_requests.endpoint)
    with pytest.raises(ValueRefused, match="too large"):
        put(store, "k", b"x" * 20_000)
    put(store, "k", b"x" * 2_000)


@pytest.fixture
def server_with_small_requests() -> Iterator[EtcdServer]:
    with EtcdServer(["--max-request-bytes=10000"]) as server:
        yield server


def test_a_page_may_be_bigger_than_one_message_of_grpc(store: Etcd3Store):
    for number in range(8):
        put(store, f"big/{number}", b"x" * 1_000_000)
    page = store.range("big/")
    assert [len(entry.value) for entry in page.entries] == [1_000_000] * 8


# Conditions and keys


def test_a_version_of_zero_never_holds(store: Etcd3Store):
    assert not store.commit(Transaction(conditions=[At("none", 0)], operations=[Put("none", b"")])).succeeded


def test_an_empty_value_is_equal_to_itself_and_not_to_an_absent_key(store: Etcd3Store):
    assert not store.commit(Transaction(conditions=[Equals("e", b"")], operations=[Put("e", b"")])).succeeded
    put(store, "e", b"")
    assert store.commit(Transaction(conditions=[Equals("e", b"")], operations=[Delete("e")])).succeeded


def test_keys_of_any_text_are_found_by_prefix_and_page(store: Etcd3Store):
    keys = ["ключ/a", "ключ/я", "ключ/\U0001f600", "ключ/\uffff", 'ключ/"\\\n\0', "ключ0", "ключ"]
    for key in keys:
        put(store, key, key.encode())
    inside = sorted((key for key in keys if key.startswith("ключ/")), key=str.encode)
    page = store.range("ключ/")
    assert [(entry.key, entry.value) for entry in page.entries] == [(key, key.encode()) for key in inside]
    assert [entry.key for entry in store.range("ключ/", after=inside[1], limit=2).entries] == inside[2:4]
    assert store.count("ключ/") == 5
    outcome = store.commit(Transaction(counts=["ключ/", "ключ/", "ключ"], reads=["ключ", "нет"]))
    assert outcome.counts == {"ключ/": 5, "ключ": 7}
    assert outcome.entries["ключ"] == store.get("ключ")
    assert outcome.entries["нет"] is None


def test_etcdctl_prints_the_value_as_it_is(shared: EtcdServer, store: Etcd3Store):
    value = '{"name": "Überall"}'.encode()
    put(store, "entities/request/w/ü", value)
    command = [
        program("etcdctl"),
        f"--endpoints={shared.endpoint}",
        "get",
        "--print-value-only",
        "entities/request/w/ü",
    ]
    printed = subprocess.run(
        command, env={**os.environ, "ETCDCTL_API": "3"}, capture_output=True, check=True, timeout=DEADLINE_S
    )
    assert printed.stdout.removesuffix(b"\n") == value


def test_a_key_of_others_that_is_no_text_is_listed_and_deleted(shared: EtcdServer, store: Etcd3Store):
    start = store.revision()
    command = [program("etcdctl").encode(), f"--endpoints={shared.endpoint}".encode(), b"put", b"odd/\xff", b"x"]
    subprocess.run(command, env={**os.environ, "ETCDCTL_API": "3"}, check=True, timeout=DEADLINE_S, capture_output=True)
    assert [entry.key for entry in store.range("odd/").entries] == ["odd/\ufffd"]
    with store.watch("odd/", start) as watch:
        assert [change.key for change in collect(watch, 1)] == ["odd/\ufffd"]
    assert store.delete_prefix("odd/") == 1
    assert store.count("odd/") == 0


# Quota


def test_a_full_etcd_refuses_writes_but_deletes_and_works_again_after_reclaim(open_store):
    with EtcdServer(["--quota-backend-bytes=16777216"]) as server:
        store = open_store(server.endpoint, timeout_s=10.0)

        def fill() -> None:
            for number in range(100):
                put(store, f"fill/{number}", b"x" * 400_000)

        with pytest.raises(StoreFull):
            fill()
        with pytest.raises(StoreFull):
            store.grant(5.0)
        assert store.count("fill/") > 10
        while store.delete_prefix("fill/", limit=10):
            pass
        assert store.count("fill/") == 0
        assert store.status().size_bytes > 12_000_000
        store.compact(store.revision())
        store.reclaim()
        put(store, "again", b"x")
        assert store.status().size_bytes < 4_000_000


# Conditions


def healths(store: Etcd3Store) -> dict[str, Health]:
    return {one.subject: one.health for one in store.conditions()}


def test_a_good_etcd_has_nothing_to_be_done(store: Etcd3Store, shared: EtcdServer):
    name = f"etcd {shared.endpoint}"
    assert healths(store) == dict.fromkeys(
        (name, f"{name} space", f"{name} compaction", f"{name} clock", "etcd alarms"), Health.OK
    )


def test_an_etcd_that_fills_up_is_told_before_and_after_it_refuses(open_store):
    with EtcdServer(["--quota-backend-bytes=16777216"]) as server:
        store = open_store(server.endpoint, timeout_s=10.0)
        space = f"etcd {server.endpoint} space"
        seen = set()

        def fill() -> None:
            for number in range(100):
                put(store, f"fill/{number}", b"x" * 400_000)
                seen.add(healths(store)[space])

        with pytest.raises(StoreFull):
            fill()
        assert seen - {Health.OK}  # a warning, or a failure where it fills up faster than etcd looks
        found = healths(store)
        assert found[space] is Health.FAIL
        assert found["etcd alarms"] is Health.FAIL


def test_one_member_that_is_away_is_a_warning_and_all_a_failure(open_store, shared: EtcdServer):
    (port,) = free_ports(1)
    away = f"127.0.0.1:{port}"
    found = healths(open_store(away, shared.endpoint))
    assert found[f"etcd {away}"] is Health.WARN
    assert found[f"etcd {shared.endpoint}"] is Health.OK
    assert healths(open_store(away)) == {f"etcd {away}": Health.FAIL}


# Login


def etcdctl(server: EtcdServer, *arguments: str) -> None:
    subprocess.run(
        [program("etcdctl"), f"--endpoints={server.endpoint}", *arguments],
        env={**os.environ, "ETCDCTL_API": "3"},
        capture_output=True,
        check=True,
        timeout=DEADLINE_S,
    )


@pytest.fixture
def guarded() -> Iterator[EtcdServer]:
    """A server that wants a login: `root` may do all, `reader` nothing."""
    with EtcdServer() as server:
        etcdctl(server, "user", "add", "root:secret")
        etcdctl(server, "user", "add", "reader:secret")
        etcdctl(server, "user", "grant-role", "root", "root")
        etcdctl(server, "auth", "enable")
        yield server


@pytest.mark.kills
def test_a_login_that_ran_out_is_renewed_for_calls_and_watches(guarded: EtcdServer, open_store):
    store = open_store(guarded.endpoint, username="root", password="secret")
    with store.watch("a/", store.revision()) as watch:
        put(store, "a/1")
        assert len(collect(watch, 1)) == 1
        guarded.restart()  # It forgets its tokens.
        put(store, "a/2")
        assert [change.key for change in collect(watch, 1)] == ["a/2"]


def test_who_may_not_is_told_so(guarded: EtcdServer, open_store):
    for options in ({}, {"username": "root", "password": "wrong"}, {"username": "reader", "password": "secret"}):
        store = open_store(guarded.endpoint, **options)
        with pytest.raises(StoreUnavailable, match="password") as raised:
            put(store, "a")
        assert not raised.value.unknown
        with store.watch("a", 0) as watch, pytest.raises(StoreUnavailable):
            watch.next(0.3)


def test_a_password_for_an_etcd_without_logins_does_no_harm(shared: EtcdServer, store: Etcd3Store, open_store):
    put(open_store(shared.endpoint, username="root", password="secret"), "a")
    assert store.count("a") == 1
