"""What only SQLite has: several processes on one file, locks, power cuts, full disks, bells and where it may lie.

Other processes are real ones. Each test has a file of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mr.adapters import sqlite_schema
from mr.adapters.brokers.sqlite import SqliteConsumer, SqlitePublisher
from mr.adapters.sqlite_file import SqliteFile
from mr.adapters.sqlite_wake import Bell, Ringer
from mr.adapters.sqlite_writer import Batch
from mr.adapters.stores.sqlite import SqliteStore
from mr.errors import ConfigError, CorruptEntry, NotFound, StoreFull, StoreUnavailable
from mr.ports.broker import Backlog, Delivery, Publication
from mr.ports.store import Absent, Put, Transaction

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "mr.db")


@pytest.fixture
def file(path: str) -> Iterator[SqliteFile]:
    file = SqliteFile(path)
    yield file
    file.close()


@pytest.fixture
def store(file: SqliteFile) -> SqliteStore:
    return SqliteStore(file)


@pytest.fixture
def child(path: str) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Runs Python code in another process, with `path`, `file` and `store` at hand; ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        head = (
            "import asyncio, sys, time\n"
            "from mr.adapters.brokers.sqlite import SqliteConsumer, SqlitePublisher\n"
            "from mr.adapters.sqlite_file import SqliteFile\n"
            "from mr.adapters.stores.sqlite import SqliteStore\n"
            "from mr.ports.broker import Publication\n"
            "from mr.ports.store import Absent, At, Put, Transaction\n"
            f"file = SqliteFile({path!r}); store = SqliteStore(file)\n"
        )
        command = [sys.executable, "-c", head + code]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def put(store: SqliteStore, key: str, value: bytes = b"x") -> int:
    return store.commit(Transaction(operations=[Put(key, value)])).revision


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "not so in time"
        await asyncio.sleep(0.01)


# Several processes


def test_processes_that_count_up_one_key_lose_no_update(store, child):
    code = """
done = 0
while done < 50:
    entry = store.get("counter")
    done += store.commit(Transaction(conditions=[At("counter", entry.version)],
                                     operations=[Put("counter", b"%d" % (int(entry.value) + 1))])).succeeded
"""
    put(store, "counter", b"0")
    processes = [child(code) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    entry = store.get("counter")
    assert entry is not None
    assert entry.value == b"150"


def test_processes_may_open_a_new_file_at_the_same_time(path):
    code = f"from mr.adapters.stores.sqlite import SqliteStore; SqliteStore({path!r}).close()"
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(5)]
    assert [process.wait(60) for process in processes] == [0] * 5


def test_a_watch_is_woken_by_a_commit_of_another_process(store, child):
    writer = child("""
print("ready", flush=True)
for row in sys.stdin:
    at = time.monotonic()
    store.commit(Transaction(operations=[Put("a/1", b"%r" % at)]))
""")
    assert line(writer) == "ready"
    best = 1.0
    with store.watch("a/", store.revision()) as watch:
        for _ in range(5):
            writer.stdin.write("go\n")
            writer.stdin.flush()
            (change,) = watch.next(DEADLINE_S)
            best = min(best, time.monotonic() - float(change.entry.value))
    # The slow poll alone would take half a second on the average.
    assert best < 0.1


@pytest.mark.kills
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_messages_of_a_dead_or_stopped_process_come_back(file, child, how):
    publisher = SqlitePublisher(file)
    publisher.publish([Publication("t", b"x")])
    other = child("""
async def main():
    consumer = SqliteConsumer(file)
    await consumer.start(lambda delivery: print(delivery.attempts, flush=True))
    await consumer.subscribe(["t"])
    consumer.allow(1)
    await asyncio.sleep(60)
asyncio.run(main())
""")
    assert await asyncio.to_thread(line, other) == "1"
    got: list[Delivery] = []
    consumer = SqliteConsumer(file)
    await consumer.start(got.append)
    await consumer.subscribe(["t"])
    consumer.allow(1)
    other.send_signal(how)
    at = time.monotonic()
    await until(lambda: got)
    assert time.monotonic() - at < 3.5  # 2 s and a bit, and a busy machine
    assert got[0].attempts == 2
    got[0].finish()
    other.send_signal(signal.SIGCONT)
    await until(lambda: publisher.backlog(["t"])["t"] == Backlog())
    await consumer.close()


@pytest.mark.kills
def test_what_returned_before_a_kill_is_there_and_whole(path, child):
    for round_ in range(5):
        writer = child(f"""
number = 0
while True:
    store.commit(Transaction(operations=[Put(f"a/{round_}/{{number}}", b"x" * 500),
                                         Put(f"b/{round_}/{{number}}", b"x" * 500)]))
    print(number, flush=True)
    number += 1
""")
        last = 0
        while last < 20:
            last = int(line(writer))
        writer.kill()
        rest = writer.communicate()[0].split()
        last = int(rest[-1]) if rest else last
        store = SqliteStore(path)
        assert all(store.get(f"a/{round_}/{number}") for number in range(last + 1))
        assert store.count(f"a/{round_}/") == store.count(f"b/{round_}/")
        store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


# Writing


def test_units_handed_in_together_share_one_commit_and_fail_alone(file):
    go, batches, errors = threading.Event(), set(), []
    done = threading.Semaphore(0)

    def work(batch: Batch) -> None:
        batches.add(id(batch.db) and batch.now)

    def broken(batch: Batch) -> None:
        batch.advance()
        batch.db.execute("INSERT INTO entries (key, version, created, lease, value) VALUES ('half', 1, 1, 0, 'x')")
        raise ZeroDivisionError

    def then(result: object, error: Exception | None) -> None:
        errors.append(error)
        done.release()

    file.hand_in(lambda batch: go.wait(DEADLINE_S), then)
    for _ in range(10):
        file.hand_in(work, then)
    go.set()
    for _ in range(11):
        assert done.acquire(timeout=DEADLINE_S)
    assert len(batches) == 1
    assert errors == [None] * 11

    go.clear()
    file.hand_in(lambda batch: go.wait(DEADLINE_S), then)
    for unit in (work, broken, work):
        file.hand_in(unit, then)
    go.set()
    for _ in range(4):
        assert done.acquire(timeout=DEADLINE_S)
    assert [type(error) for error in errors[11:]] == [type(None), type(None), ZeroDivisionError, type(None)]
    store = SqliteStore(file)
    assert store.get("half") is None
    assert store.revision() == 0


def test_a_refused_transaction_does_not_hurt_those_in_its_batch(store):
    lease = store.grant(60)
    store.revoke(lease)

    def write(number: int) -> object:
        if number % 3 == 0:
            with pytest.raises(NotFound):
                store.commit(Transaction(operations=[Put(f"bad/{number}", b"x", lease)]))
            return None
        return store.commit(Transaction(conditions=[Absent(f"a/{number}")], operations=[Put(f"a/{number}", b"x")]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(90)))
    assert (store.count("a/"), store.count("bad/")) == (60, 0)


def test_messages_are_published_exactly_with_their_transaction(file, store):
    publisher = SqlitePublisher(file)
    assert publisher.joins_commit
    assert store.abilities.carries_messages
    create = Transaction(
        conditions=[Absent("a")], operations=[Put("a", b"x")], messages=[Publication("t", b"m"), Publication("u", b"n")]
    )
    assert store.commit(create).succeeded
    assert not store.commit(create).succeeded
    assert {topic: one.waiting for topic, one in publisher.backlog(["t", "u"]).items()} == {"t": 1, "u": 1}


async def test_a_consumer_in_the_same_process_gets_what_a_commit_carries(file, store):
    got: list[Delivery] = []
    consumer = SqliteConsumer(file)
    await consumer.start(got.append)
    await consumer.subscribe(["t"])
    consumer.allow(1)
    at = time.monotonic()
    store.commit(Transaction(operations=[Put("a", b"x")], messages=[Publication("t", b"m")]))
    await until(lambda: got)
    assert time.monotonic() - at < 0.5
    await consumer.close()


async def test_a_message_that_waits_for_a_free_hand_is_delivered_when_there_is_one(file):
    """Nothing may depend on another ring or on the slow poll."""
    got: list[Delivery] = []
    consumer = SqliteConsumer(file)
    await consumer.start(got.append)
    await consumer.subscribe(["t"])
    consumer.allow(1)
    publisher = SqlitePublisher(file)
    publisher.publish([Publication("t", b"%d" % number) for number in range(100)])
    at = time.monotonic()
    for number in range(100):
        await until(lambda: len(got) > number)  # noqa: B023 - awaited in its own round
        assert len(got) == number + 1
        got[-1].finish()
    assert time.monotonic() - at < 10
    await until(lambda: publisher.backlog(["t"])["t"] == Backlog())
    await consumer.close()


def test_a_file_that_stays_locked_is_unavailable_and_the_outcome_is_known(path):
    store = SqliteStore(SqliteFile(path, busy_s=0.2))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable) as caught:
        put(store, "a")
    assert not caught.value.unknown
    assert store.get("a") is None  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    put(store, "a")
    store.file.close()


def test_a_full_file_refuses_puts_and_still_deletes(store, file):
    for number in range(50):
        put(store, f"a/{number}", b"x" * 3000)
    file.write(lambda batch: None)
    limit_pages(file)

    def fill() -> None:
        for number in range(1000):
            put(store, f"b/{number}", b"x" * 3000)

    with pytest.raises(StoreFull):
        fill()
    assert store.count("a/") == 50
    while store.delete_prefix("a/", limit=10):
        pass
    assert store.count("a/") == 0
    put(store, "c", b"there is room again")


def limit_pages(file: SqliteFile) -> None:
    """Let the file not grow any more."""
    db = file._writer._db
    assert db is not None
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}").fetchone()


def test_an_error_of_the_disk_is_unavailable_and_the_next_call_starts_afresh(store, file):
    put(store, "a", b"one")

    def breaks(batch: Batch) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
        raise error

    with pytest.raises(StoreUnavailable) as caught:
        file.write(breaks)
    assert not caught.value.unknown
    put(store, "a", b"two")
    entry = store.get("a")
    assert entry is not None
    assert entry.value == b"two"


def test_history_is_bounded_and_the_file_stays_small(path):
    store = SqliteStore(SqliteFile(path, history=100))
    for number in range(500):
        put(store, "a", b"%d" % number)
    rows = store.file.read(lambda db, now: db.execute("SELECT count(*) FROM changes").fetchone()[0])
    assert 100 <= rows <= 111
    store.file.close()


def test_room_of_what_was_deleted_goes_back_to_the_disk(store, file):
    for number in range(100):
        put(store, f"a/{number}", b"x" * 100_000)

    def pages() -> int:
        return int(file.read(lambda db, now: db.execute("PRAGMA page_count").fetchone()[0]))

    full = pages()
    while store.delete_prefix("a/"):
        pass
    for _ in range(1000):
        file.write(lambda batch: None, durable=False)
    assert pages() < full / 2
    assert store.count("") == 0


def test_expired_leases_are_invisible_before_anybody_removes_them(store, file):
    lease = store.grant(0.1)
    store.commit(Transaction(operations=[Put("w/1", b"x", lease)]))
    deadline = time.monotonic() + DEADLINE_S
    while store.count("w/"):
        assert time.monotonic() < deadline
    assert store.get("w/1") is None
    assert store.range("w/").entries == []
    rows = file.read(lambda db, now: db.execute("SELECT count(*) FROM entries").fetchone()[0])
    assert rows == 1
    file.write(lambda batch: None)
    rows = file.read(lambda db, now: db.execute("SELECT count(*) FROM entries").fetchone()[0])
    assert rows == 0


def test_a_reboot_drops_leases_and_claims_but_nothing_else(path):
    store = SqliteStore(path)
    put(store, "stays")
    lease = store.grant(10_000)
    store.commit(Transaction(operations=[Put("goes", b"x", lease)], messages=[Publication("t", b"m", 10_000.0)]))
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET boot = 'another'")
    db.close()
    store = SqliteStore(path)
    assert [entry.key for entry in store.range("").entries] == ["stays"]
    assert not store.keep(lease)
    publisher = SqlitePublisher(store.file)
    assert publisher.backlog(["t"])["t"] == Backlog(waiting=1)
    store.close()


# Bells


def test_a_bell_wakes_and_a_dead_one_is_noticed(tmp_path):
    bell, ringer = Bell(str(tmp_path / "wake")), Ringer()
    assert not bell.wait(0.01)
    for _ in range(100):
        assert ringer.ring([bell.address]) == []  # also when its queue is full
    assert bell.wait(1)
    assert not bell.wait(0.01)
    bell.close()
    assert ringer.ring([bell.address]) == [bell.address]
    ringer.close()


def test_a_bell_below_a_long_path_is_rung_too(tmp_path):
    directory = tmp_path / ("x" * 100) / ("y" * 100)
    bell, ringer = Bell(str(directory)), Ringer()
    assert not directory.exists()
    assert ringer.ring([bell.address]) == []
    assert bell.wait(1)
    bell.close()
    assert ringer.ring([bell.address]) == [bell.address]
    ringer.close()


@pytest.mark.kills
def test_the_bell_of_a_killed_process_is_cleared_away(store, file, child):
    other = child('watch = store.watch("a/", 0); print("ready", flush=True); watch.next(60)')
    assert line(other) == "ready"
    assert len(os.listdir(f"{file.path}.wake")) == 1
    other.kill()
    other.wait()
    put(store, "b/1")
    assert len(os.listdir(f"{file.path}.wake")) == 1  # not concerned, so nobody noticed
    put(store, "a/1")
    put(store, "a/2")
    assert os.listdir(f"{file.path}.wake") == []
    rows = file.read(lambda db, now: db.execute("SELECT count(*) FROM waiters").fetchone()[0])
    assert rows == 0


async def test_waiting_leaves_no_socket_and_no_row_behind(file, store):
    with store.watch("a/", 0):
        pass
    consumer = SqliteConsumer(file)
    await consumer.start(lambda delivery: None)
    await consumer.subscribe(["t"])
    await consumer.close()
    file.write(lambda batch: None)
    assert os.listdir(f"{file.path}.wake") == []
    for table in ("waiters", "consumers"):
        assert file.read(lambda db, now, table=table: db.execute(f"SELECT count(*) FROM {table}").fetchone()) == (0,)


async def test_an_idle_consumer_looks_now_and_then_and_writes_nothing(file):
    looked = 0
    hand_in = file.hand_in

    def counted(work, then, *, durable=False):
        nonlocal looked
        looked += 1
        hand_in(work, then, durable=durable)

    consumer = SqliteConsumer(file)
    await consumer.start(lambda delivery: None)
    await consumer.subscribe(["t"])
    consumer.allow(10)
    file.hand_in = counted
    other = sqlite3.connect(file.path)
    before = other.execute("PRAGMA data_version").fetchone()  # changes when any other connection has written
    at = time.monotonic()
    await until(lambda: looked >= 3)
    assert time.monotonic() - at > 1
    assert other.execute("PRAGMA data_version").fetchone() == before
    other.close()
    file.hand_in = hand_in
    await consumer.close()


# The file


def test_the_file_is_made_with_its_directory_for_its_owner_only(tmp_path):
    path = tmp_path / "state" / "mr" / "mr.db"
    store = SqliteStore(path)
    put(store, "secret")
    for name in (path, path.with_name("mr.db-wal"), path.with_name("mr.db-shm")):
        assert name.stat().st_mode & 0o077 == 0
    store.close()


def test_the_file_is_in_wal_mode_and_can_shrink(file):
    def pragmas(db: sqlite3.Connection, now: float) -> list[object]:
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "auto_vacuum", "synchronous")]

    assert file.read(pragmas) == ["wal", 2, 2]


def test_a_file_of_another_program_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(ConfigError, match="another program"):
        SqliteStore(path)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    db.close()


def test_a_file_of_a_newer_version_is_refused(path):
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {sqlite_schema.VERSION + 1}")
    db.close()
    with pytest.raises(ConfigError, match="form"):
        SqliteStore(path)


def test_a_file_that_is_no_database_is_corrupt(path):
    Path(path).write_bytes(b"this is no database" * 1000)
    with pytest.raises(CorruptEntry):
        SqliteStore(path)


def test_a_path_that_cannot_be_opened_is_unavailable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path / "file" / "mr.db")
    with pytest.raises(StoreUnavailable):
        SqliteStore(tmp_path)


def test_a_networkfile_system_is_refused(tmp_path, monkeypatch):
    point = str(tmp_path / "my share").replace(" ", "\\040")
    (tmp_path / "my share").mkdir()
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 0:20 / / rw - ext4 /dev/root rw\n"
        f"36 22 0:30 / {point} rw,relatime shared:1 - nfs4 server:/export rw\n"
        f"37 22 0:31 / {point}2 rw - tmpfs tmpfs rw\n"
    )
    kind = sqlite_schema.file_system
    assert kind(str(tmp_path / "my share" / "a"), str(mounts)) == "nfs4"
    assert kind(str(tmp_path / "my share2"), str(mounts)) == "tmpfs"
    assert kind(str(tmp_path), str(mounts)) == "ext4"
    assert kind(str(tmp_path), str(tmp_path / "nothing")) == ""
    monkeypatch.setattr(sqlite_schema, "file_system", lambda directory: "nfs4")
    with pytest.raises(ConfigError, match="network file system"):
        SqliteStore(tmp_path / "mr.db")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_BUSY, StoreUnavailable),
        (sqlite3.SQLITE_LOCKED, StoreUnavailable),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreUnavailable),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreUnavailable),
        (sqlite3.SQLITE_CANTOPEN, StoreUnavailable),
        (sqlite3.SQLITE_CORRUPT, CorruptEntry),
        (sqlite3.SQLITE_NOTADB, CorruptEntry),
    ],
)
def test_each_error_of_sqlite_has_one_of_ours(code, expected):
    error = sqlite3.OperationalError("vendor's words")
    error.sqlite_errorcode = code
    assert type(sqlite_schema.translated(error, "mr.db")) is expected
    for kind in (sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InternalError):
        assert type(sqlite_schema.translated(kind("x"), "mr.db", unknown=True)) is StoreUnavailable


# gevent


def test_in_a_process_patched_by_gevent_others_run_while_one_waits_for_the_disk(path):
    """The writer is a native thread there too; the loop of gevent never stands still for a lock of the file."""
    code = f"""
import gevent.monkey; gevent.monkey.patch_all()
import gevent, sqlite3, time
from mr.adapters.stores.sqlite import SqliteStore
from mr.ports.store import Put, Transaction
store = SqliteStore({path!r})
other = sqlite3.connect({path!r}, isolation_level=None)
other.execute("BEGIN IMMEDIATE")
done, ticks = [], 0
def commit(number):
    store.commit(Transaction(operations=[Put(f"a/{{number}}", b"x")])); done.append(number)
def watch():
    with store.watch("a/", 0) as watch:
        seen = []
        while len(seen) < 20: seen += watch.next(10)
        return len(seen)
watching = gevent.spawn(watch)
committing = [gevent.spawn(commit, number) for number in range(20)]
for ticks in range(50): gevent.sleep(0.005)
assert not done, done
other.execute("ROLLBACK")
gevent.joinall(committing, timeout=10)
assert sorted(done) == list(range(20)), done
assert watching.get(timeout=10) == 20
store.close()
print("good")
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "good\n", ran.stderr
