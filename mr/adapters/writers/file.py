"""Results as files: one for each request, or a folder with a file for each pair.

What is not whole yet grows in a room of its own below `.partial`, and is then renamed: who looks finds a whole result
or none. A room belongs to who has locked its file `<room>.lock`; a lock dies with its process, so what is found
unlocked was left by one that is gone, and is removed.

A line is key, space, value, and ends in LF. Text without white space, quotes, backslashes and control characters
stands as it is, everything else as JSON; in a key the spaces are then written `\\u0020`, so that the first space of a
line always ends the key.

The names of a folder's files come from the keys, which anybody may have chosen. So each character that is not known
to be harmless is percent-encoded, long names end in a hash, and no file may be there before: of two pairs with one
key the second goes into `<key>~2`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import msgspec

from mr import codec
from mr.codec import Items
from mr.errors import ConfigError, ValueRefused
from mr.model import names
from mr.ports.result_writer import Origin, ResultWriter

PATH_VARIABLE = "MR_RESULT_FILE_WRITER_OUTPUT_PATH"
NAME_MAX = 180
"""Characters of a name that come from its key; file systems allow 255 bytes."""
_BARE = re.compile(r"[^\s\"'\\\x00-\x1f\x7f-\x9f]+")
_IN_THE_WAY = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR})


class FileWriter(ResultWriter):
    """Writes below `folder`, which is made if it is not there; `as_folders`: a folder for each request.

    Raises: ConfigError if nothing can be written there.
    """

    name = "file"

    def __init__(self, folder: str, *, as_folders: bool = False) -> None:
        self._folder, self._as_folders = Path(folder), as_folders
        self._rooms = self._folder / ".partial"
        try:
            with self._room():
                pass
        except OSError as error:
            expected = f"{PATH_VARIABLE}: expected a folder that this user can write"
            raise ConfigError([f"{expected}, got: {folder} ({error.strerror})"]) from error

    def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any]:
        """One file, or one folder, named by the id of the request."""
        r = origin.request_id
        if not names.is_request_id(r):
            raise ValueRefused(f"expected the id of a request, 40 hex digits, got: {r[:80]!r}")
        with self._room() as room:
            whole = room / "whole"
            if self._as_folders:
                whole.mkdir()
                _fill(whole, pairs)
            else:
                with open(whole, "xb") as file:
                    for items in pairs:
                        file.write(b"".join(map(line, items)))
                    _keep(file)
            _place(whole, self._folder / r, room)
            _keep_folder(self._folder)
        return {"path": str(self._folder / r)}

    # -- rooms ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _room(self) -> Iterator[Path]:
        """A place for one write, on the file system of the results."""
        self._rooms.mkdir(parents=True, exist_ok=True)
        self._clear()
        while True:
            room = self._rooms / secrets.token_hex(8)
            lock = room.with_suffix(".lock")
            with open(lock, "xb") as held:
                if not _locks(held, lock):
                    continue  # taken for a leftover, before it was locked
                try:
                    room.mkdir()
                    yield room
                finally:
                    _remove(room, lock)
                return

    def _clear(self) -> None:
        """Remove what killed processes have left."""
        for lock in self._rooms.glob("*.lock"):
            with suppress(OSError):  # gone meanwhile, or of another user, who clears it himself
                with open(lock, "r+b") as held:
                    if _locks(held, lock):
                        _remove(lock.with_suffix(""), lock)


def line(pair: bytes) -> bytes:
    """The line of a pair, which comes as the JSON of `[key, value]`."""
    key, value = codec.decode(pair, list[msgspec.Raw], where="a pair")
    return _word(key).replace(b" ", b"\\u0020") + b" " + _word(value) + b"\n"


def _word(raw: msgspec.Raw) -> bytes:
    data = bytes(raw)
    if data.startswith(b'"'):
        text = codec.decode(data, str)
        return text.encode() if _BARE.fullmatch(text) else json.dumps(text).encode()
    return msgspec.json.format(data, indent=-1)


def file_name(key: Any) -> str:
    """A harmless name for any key. `~` comes from no key: it marks a long one, an empty one, a second one."""
    text = key if isinstance(key, str) else codec.canonical(key).decode()
    name = quote(text, safe="").replace("~", "%7E")
    if name.startswith("."):
        name = "%2E" + name[1:]
    if len(name) > NAME_MAX:
        name = f"{name[:NAME_MAX]}~{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    return name or "~"


def _fill(folder: Path, pairs: Iterator[Items]) -> None:
    """A file for each pair, with the value as Python prints it."""
    seconds: dict[str, int] = {}
    for items in pairs:
        for pair in items:
            key, value = json.loads(pair)
            with _new(folder, file_name(key), seconds) as file:
                file.write(str(value).encode())
                _keep(file)
    _keep_folder(folder)


def _new(folder: Path, name: str, seconds: dict[str, int]) -> IO[bytes]:
    """A new file; `seconds` has the newest number of each name that came more than once."""
    if name not in seconds:
        try:
            return open(folder / name, "xb")
        except FileExistsError:
            seconds[name] = 1
    while True:
        seconds[name] += 1
        with suppress(FileExistsError):
            return open(folder / f"{name}~{seconds[name]}", "xb")


def _place(whole: Path, final: Path, room: Path) -> None:
    """Rename; what an earlier write has left there goes into the room, and with it."""
    while True:
        try:
            os.replace(whole, final)
            return
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
        with suppress(FileNotFoundError):
            os.replace(final, room / secrets.token_hex(8))


def _locks(file: IO[bytes], path: Path) -> bool:
    """Take the lock of a file; False if somebody has it, or has removed the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except (BlockingIOError, FileNotFoundError):
        return False


def _remove(room: Path, lock: Path) -> None:
    shutil.rmtree(room, ignore_errors=True)
    lock.unlink(missing_ok=True)


def _keep(file: IO[bytes]) -> None:
    """Return when the file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _keep_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
