"""How the SQLite file is: where it lies, who may read it, room on its disk, its write-ahead log.

A log that keeps growing means that some process has had a read open all the time: SQLite cannot begin it anew then.
"""

from __future__ import annotations

import os

from mr.adapters import sqlite_schema as schema
from mr.adapters.sqlite_file import SqliteFile
from mr.errors import MrError
from mr.model.condition import Condition, broken, doubtful, fine
from mr.rules import condition

WAL_WARN_BYTES = 4 * schema.WAL_KEPT_BYTES


def conditions(file: SqliteFile) -> list[Condition]:
    """The conditions of an open file."""
    directory = os.path.dirname(file.path)
    try:
        (version,) = file.read(lambda db, now: db.execute("SELECT sqlite_version()").fetchone())
        found = [fine("store", f"{file.path} answers, SQLite {version}")]
    except MrError as error:
        found = [broken("store", error.message, error.hint or "see who holds it: fuser -v " + file.path)]
    # A file on a network is not opened at all; here is for who wonders where it lies.
    found.append(fine("store file system", schema.file_system(directory) or "unknown to the kernel"))
    if os.stat(file.path).st_mode & 0o077:
        advice = f"chmod 600 {file.path}; it holds the key that seals messages"
        found.append(doubtful("store permissions", "other users may open the file", advice))
    else:
        found.append(fine("store permissions", "only its owner may open the file"))
    disk = os.statvfs(directory)
    found.append(condition.free("store disk", disk.f_bavail * disk.f_frsize, directory))
    found.append(_log(file.path))
    return found


def _log(path: str) -> Condition:
    try:
        size = os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        size = 0
    text = f"its write-ahead log has {condition.size(size)}"
    if size <= WAL_WARN_BYTES:
        return fine("store log", text)
    advice = f"some process reads and never ends, so it grows: end those that show up in fuser -v {path}"
    return doubtful("store log", text, advice)
