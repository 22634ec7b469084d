"""How the SQLite file is opened: where it may lie, its pragmas, its tables, its errors.

    entries    the store: one row a key; `lease` is 0 for none; the value stands last, so that counting skips it
    leases     entries of an expired one are invisible at once, and removed by whoever writes next
    changes    the history for watches: what was written or removed at which revision
    messages   the broker: `consumer` is 0 while nobody has it; (id, attempts) names one delivery
    bodies     bodies of messages apart, so that claiming a message never rewrites its body
    consumers  who has messages, and until when that holds
    waiters    bells to ring when something of interest is committed
    meta       one row of counters

Moments in the file are `time.monotonic`, which all processes of a machine share and nobody can set. It starts
anew when the machine does, so the file remembers the boot: the first to open it under another one drops every
lease and claim, whose holders died with the machine.
"""

from __future__ import annotations

import os
import secrets
import sqlite3

from mr.errors import BackendError, ConfigError, CorruptEntry, StoreFull, StoreUnavailable, ValueRefused

VERSION = 1
APPLICATION = 0x6D722E31
WAL_KEPT_BYTES = 64 << 20
"""A WAL up to this size is kept: overwriting it is faster than growing it anew."""

_CHECKPOINT_PAGES = 4000
_SQLITE_MIN = (3, 38, 0)
_NETWORK = frozenset(
    "nfs nfs4 cifs smb smb2 smb3 smbfs 9p afs ceph lustre glusterfs gpfs beegfs ocfs2 gfs2 orangefs ncpfs coda "
    "fuse.sshfs fuse.glusterfs fuse.ceph fuse.s3fs fuse.rclone fuse.davfs davfs fuse.juicefs fuse.smbnetfs".split()
)

_TABLES = """
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL, trimmed INTEGER NOT NULL, generation INTEGER NOT NULL, next_message INTEGER NOT NULL,
    word TEXT NOT NULL, boot TEXT NOT NULL
);
CREATE TABLE entries (
    key TEXT PRIMARY KEY, version INTEGER NOT NULL, created INTEGER NOT NULL, lease INTEGER NOT NULL,
    value BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX entries_leased ON entries (lease) WHERE lease <> 0;
CREATE TABLE leases (id INTEGER PRIMARY KEY, ttl_s REAL NOT NULL, expires_at REAL NOT NULL);
CREATE TABLE changes (
    revision INTEGER NOT NULL, key TEXT NOT NULL, removed INTEGER NOT NULL, created INTEGER, value BLOB,
    PRIMARY KEY (revision, key)
) WITHOUT ROWID;
CREATE TABLE messages (
    id INTEGER PRIMARY KEY, consumer INTEGER NOT NULL, topic TEXT NOT NULL, visible_at REAL NOT NULL,
    attempts INTEGER NOT NULL
);
CREATE INDEX messages_queued ON messages (consumer, topic, visible_at);
CREATE TABLE bodies (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TRIGGER messages_gone AFTER DELETE ON messages BEGIN DELETE FROM bodies WHERE id = old.id; END;
CREATE TABLE consumers (id INTEGER PRIMARY KEY, expires_at REAL NOT NULL);
CREATE TABLE waiters (
    address TEXT NOT NULL, kind TEXT NOT NULL, pattern TEXT NOT NULL, PRIMARY KEY (address, kind, pattern)
) WITHOUT ROWID;
"""

_NEW_BOOT = """
DELETE FROM entries WHERE lease <> 0;
DELETE FROM leases;
UPDATE messages SET consumer = 0, visible_at = 0 WHERE consumer <> 0 OR visible_at <> 0;
DELETE FROM consumers;
DELETE FROM waiters;
UPDATE meta SET revision = revision + 1, trimmed = revision + 1, generation = generation + 1, boot = ?
"""


_NAME_ANOTHER = "MR_STORE and MR_BROKER name it: sqlite:////FOLDER/mr.db, where you may read and write"


def prepare(path: str) -> None:
    """Make the file and its directory, readable by their owner only, if they do not exist.

    Raises: ConfigError if the file lies on a network file system or SQLite is too old; StoreUnavailable.
    """
    if sqlite3.sqlite_version_info < _SQLITE_MIN:
        least = ".".join(map(str, _SQLITE_MIN))
        raise ConfigError([f"SQLite {sqlite3.sqlite_version} is too old; mr needs {least} or newer"])
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        kind = file_system(directory)
        if kind in _NETWORK:
            raise ConfigError(
                [f"{path} is on a network file system ({kind}), where SQLite loses data; choose a local directory"]
            )
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"cannot open {path}: {error.strerror}", hint=_NAME_ANOTHER) from error


def connect(path: str) -> sqlite3.Connection:
    """A connection with the pragmas that every one needs. Statements fail at once when the file is locked."""
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        if db.execute("PRAGMA page_count").fetchone() == (0,):
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # later it would change nothing, and take the lock
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
        db.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = OFF")
        db.execute("PRAGMA cache_size = -16000")
        db.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error:
        db.close()
        raise
    return db


def create(db: sqlite3.Connection, path: str) -> None:
    """Inside `BEGIN IMMEDIATE`: make the tables of a new file, check those of an old one.

    Raises: ConfigError if the file belongs to another program or a newer version.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    boot = _boot()
    if tables == 0:
        _run(db, _TABLES)
        db.execute("INSERT INTO meta VALUES (1, 0, 0, 0, 1, ?, ?)", (secrets.token_hex(8), boot))
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        return
    if application != APPLICATION:
        raise ConfigError([f"{path} is a SQLite file of another program; choose another path"])
    if version != VERSION:
        raise ConfigError([f"{path} has the form {version}; this version of mr knows form {VERSION}"])
    if db.execute("SELECT boot FROM meta").fetchone() != (boot,):
        _run(db, _NEW_BOOT, boot)


def is_busy(error: BaseException) -> bool:
    """Whether another connection holds the lock that was needed."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_full(error: BaseException) -> bool:
    """Whether there was no room."""
    return _code(error) == sqlite3.SQLITE_FULL


def translated(error: Exception, path: str, *, unknown: bool = False) -> Exception:
    """The error of ours for one of SQLite's; anything else as it is. `unknown`: it came while committing."""
    if isinstance(error, UnicodeEncodeError):
        return ValueRefused(f"a text holds a lone surrogate: {error}")
    if not isinstance(error, sqlite3.Error | OSError):
        return error
    code = _code(error)
    built: BackendError
    if code == sqlite3.SQLITE_FULL:
        built = StoreFull(f"no room for {path}: {error}", hint="free space on its disk, or delete requests")
    elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        built = CorruptEntry(f"{path} is damaged, or no database of mr: {error}", hint=_NAME_ANOTHER)
    elif code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        built = StoreUnavailable(f"{path} stayed locked by another process", unknown=unknown)
    else:
        built = StoreUnavailable(f"{path}: {error}", unknown=unknown)
    return built


def _code(error: BaseException) -> int:
    # Only errors that SQLite itself reports have a code; the low byte is the class of it.
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _run(db: sqlite3.Connection, script: str, *parameters: str) -> None:
    # Not `executescript`, which would commit the transaction that is open.
    buffer = ""
    for line in script.splitlines(keepends=True):
        buffer += line
        if sqlite3.complete_statement(buffer):
            db.execute(buffer)
            buffer = ""
    if buffer.strip():
        db.execute(buffer, parameters)


def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def file_system(directory: str, mounts: str = "/proc/self/mountinfo") -> str:
    """The type of the file system that holds the directory; empty where the kernel does not tell."""
    best, kind = "", ""
    directory = os.path.realpath(directory)
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                point = fields.split()[4].replace("\\040", " ")
                inside = directory == point or directory.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, rest.split()[0]
    except OSError:
        return ""
    return kind
