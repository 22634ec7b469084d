"""One workflow's directory on any file system of fsspec.

fsspec speaks to everything, but what a call means differs: some drivers make missing parents silently, some replace
directories, some say "there is nothing" when the server does not answer, and an object store has no directory without
a file in it. So only the smallest calls are used, each after a look at what is there, and a directory that an object
store would not keep gets a marker, which nobody sees. Listings are not kept: other processes write here too.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import IO, Any, NoReturn

from fsspec import AbstractFileSystem

from mr.errors import MrError, PathRefused
from mr.ports.file_system import FileSystem, FileType, Stat
from mr.rules import paths

MARKER = ".mr-directory"
"""An empty file that keeps a directory where only files are kept."""
_TIMES = ("created", "ctime", "LastModified", "mtime", "modified", "last_modified")

Steps = tuple[str, ...]


class Volume(FileSystem):
    """The directory `working/<workflow>` below `base`, which has to be there."""

    def __init__(self, backend: AbstractFileSystem, base: str, workflow: str) -> None:
        self._backend = backend
        self._base, self._levels = base.rstrip("/"), ("working", workflow)
        self._root = "/".join((self._base, *self._levels))
        self._is_made = False

    def mkdir(self, path: str, recursive: bool = False) -> None:
        with self._use(path) as steps:
            if recursive:
                for length in range(1, len(steps) + 1):
                    place = self._place(steps[:length])
                    found = self._type(place)
                    if found is None:
                        self._make(place)
                    elif found != "directory":
                        _fail(errno.ENOTDIR, path)
                return
            if not steps or self._type(place := self._place(steps, follow=False)) is not None:
                _fail(errno.EEXIST, path)
            self._need_parent(steps, path)
            if not self._make(place):
                _fail(errno.EEXIST, path)

    def ls(self, path: str = "") -> Iterator[tuple[str, Stat]]:
        with self._use(path) as steps:
            place = self._place(steps)
            self._need(place, "directory", path)
            return iter([(name, self._stat(name, info)) for name, info in self._entries(place)])

    def cp(self, source: str, target: str) -> None:
        with self._use(source) as ours, self._use(target) as theirs:
            origin = self._place(ours)
            self._need(origin, "file", source)
            goal = self._place(theirs)
            self._need_room(goal, theirs, target)
            if goal != origin:
                self._copy(origin, goal)

    def cpr(self, source: str, target: str) -> None:
        with self._use(source) as ours, self._use(target) as theirs:
            origin = self._place(ours)
            self._need(origin, "directory", source)
            goal = self._place(theirs, follow=False)
            if not theirs or self._type(goal) is not None:
                _fail(errno.EEXIST, target)
            self._need_outside(ours, theirs, source, target)
            self._need_parent(theirs, target)
            self._copy_tree(origin, goal)

    def rm(self, path: str) -> None:
        with self._use(path) as steps:
            place = self._place(steps, follow=False)
            found = self._type(place)
            if found is None:
                _fail(errno.ENOENT, path)
            if found == "directory":
                _fail(errno.EISDIR, path)
            self._backend.rm_file(place)

    def rmdir(self, path: str, force: bool = False) -> None:
        with self._use(path) as steps:
            if not steps:
                raise PathRefused("the root of a workflow cannot be removed")
            place = self._place(steps, follow=False)
            self._need(place, "directory", path)
            if not force and any(self._entries(place)):
                _fail(errno.ENOTEMPTY, path)
            self._remove_tree(place)

    def mv(self, source: str, target: str) -> None:
        with self._use(source) as ours, self._use(target) as theirs:
            if not ours or not theirs:
                raise PathRefused("the root of a workflow cannot be moved, or replaced")
            origin, goal = self._place(ours, follow=False), self._place(theirs, follow=False)
            found = self._type(origin)
            if found is None:
                _fail(errno.ENOENT, source)
            if origin == goal:
                return
            self._need_outside(ours, theirs, source, target)
            there = self._type(goal)
            if there == "directory" or (there is not None and found == "directory"):
                _fail(errno.EEXIST, target)
            self._need_parent(theirs, target)
            self._move(origin, goal, found)

    def get_stat(self, path: str) -> Stat:
        with self._use(path) as steps:
            return self._stat(steps[-1] if steps else "", self._info(self._place(steps), path))

    def get_filesize(self, path: str) -> int:
        with self._use(path) as steps:
            place = self._place(steps)
            self._need(place, "file", path)
            return int(self._info(place, path)["size"])

    def exists(self, path: str) -> bool:
        with self._use(path) as steps:
            return self._type(self._place(steps)) is not None

    def isfile(self, path: str) -> bool:
        with self._use(path) as steps:
            return self._type(self._place(steps)) == "file"

    def isdir(self, path: str) -> bool:
        with self._use(path) as steps:
            return self._type(self._place(steps)) == "directory"

    def open(
        self,
        path: str,
        mode: str = "r",
        encoding: str = "utf-8",
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        kind, is_binary = _parsed(mode)
        codecs.lookup(encoding)  # before a file is made
        with self._use(path) as steps:
            place = self._place(steps)
            if kind == "r":
                self._need(place, "file", path)
            else:
                self._need_room(place, steps, path)
                if kind == "x" and self._type(place) is not None:
                    _fail(errno.EEXIST, path)
            raw = self._open(place, kind + "b")
        return raw if is_binary else io.TextIOWrapper(raw, encoding, errors, newline)

    def reach(self) -> None:
        """See whether the backend answers and has what has to be there; nothing is made. Raises: OSError."""
        # Of an object store's base only the bucket has to be there.
        top = self._base if self._base.startswith("/") else self._base.partition("/")[0]
        with self._translated():
            self._info(top, top)

    # What a backend may do in a better way.

    def _prepare(self) -> None:
        place = self._base
        for level in self._levels:
            place = f"{place}/{level}"
            if self._type(place) is None:
                self._make(place)

    def _place(self, steps: Steps, *, follow: bool = True) -> str:
        """Where the backend has a path. Not `follow`: a link at its end is meant itself."""
        return "/".join((self._root, *steps))

    def _open(self, place: str, mode: str) -> IO[Any]:
        opened: IO[Any] = self._backend.open(place, mode)
        return opened

    def _move(self, origin: str, goal: str, found: FileType) -> None:
        if type(self._backend).mv is not AbstractFileSystem.mv:
            self._backend.mv(origin, goal)
        elif found == "directory":
            self._copy_tree(origin, goal)
            self._remove_tree(origin)
        else:
            self._copy(origin, goal)
            self._backend.rm_file(origin)

    def _remove_tree(self, place: str) -> None:
        for name, info in list(self._entries(place, hidden=True)):
            if _type(info) == "directory":
                self._remove_tree(f"{place}/{name}")
            else:
                self._backend.rm_file(f"{place}/{name}")
        self._backend.invalidate_cache()
        if self._type(place) is not None:  # an object store's has gone with its last file
            self._backend.rmdir(place)

    def _details(self, place: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._backend.info(place)
        return found

    # The rest is the same for all.

    @contextmanager
    def _use(self, path: str) -> Iterator[Steps]:
        """The steps of a path, with the root made and no listing kept; what a driver raises becomes an OSError."""
        steps = paths.steps(path)
        with self._translated():
            self._backend.invalidate_cache()
            if not self._is_made:
                self._prepare()
                self._is_made = True
            yield steps

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, MrError):
            raise
        except Exception as error:  # any driver may be behind it, and each has exceptions of its own
            raise OSError(f"the shared file system failed: {type(error).__name__}: {error}") from error

    def _type(self, place: str) -> FileType | None:
        try:
            return _type(self._details(place))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _info(self, place: str, path: str) -> Mapping[str, Any]:
        try:
            return self._details(place)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error

    def _need(self, place: str, wanted: FileType, path: str) -> None:
        found = self._type(place)
        if found == wanted:
            return
        if found is None:
            _fail(errno.ENOENT, path)
        if wanted == "directory":
            _fail(errno.ENOTDIR, path)
        _fail(errno.EISDIR if found == "directory" else errno.EINVAL, path)

    def _need_room(self, place: str, steps: Steps, path: str) -> None:
        """A file can be written there: nothing stands there, or a file."""
        if self._type(place) is None:
            self._need_parent(steps, path)
        else:
            self._need(place, "file", path)

    def _need_parent(self, steps: Steps, path: str) -> None:
        if len(steps) > 1:
            self._need(self._place(steps[:-1]), "directory", path)

    def _need_outside(self, ours: Steps, theirs: Steps, source: str, target: str) -> None:
        if theirs[: len(ours)] == ours:
            raise PathRefused(f"{source!r} cannot go into itself, to {target!r}")

    def _make(self, place: str) -> bool:
        """Make a directory; False if another process was first, where the backend can tell."""
        try:
            self._backend.mkdir(place, create_parents=False)
        except FileExistsError:
            return False
        self._backend.invalidate_cache()
        if self._type(place) is None:
            with self._backend.open(f"{place}/{MARKER}", "wb"):
                pass
        return True

    def _entries(self, place: str, *, hidden: bool = False) -> Iterator[tuple[str, Mapping[str, Any]]]:
        found = {info["name"].rstrip("/"): info for info in self._backend.ls(place, detail=True)}
        for full in sorted(found):
            name = full.rpartition("/")[2]
            # Some stores list a directory as an entry of itself. And where names are free, one that means another
            # place to whoever takes it apart again (an HTTP client, a disk) is not shown.
            is_entry = full.strip("/") != place.strip("/") and name not in ("", ".", "..")
            if is_entry and (hidden or name != MARKER):
                yield name, found[full]

    def _copy(self, origin: str, goal: str) -> None:
        try:
            self._backend.cp_file(origin, goal)
        except NotImplementedError:  # a driver that has to carry the bytes
            with self._backend.open(origin, "rb") as source, self._backend.open(goal, "wb") as target:
                while piece := source.read(1024 * 1024):
                    target.write(piece)

    def _copy_tree(self, origin: str, goal: str) -> None:
        self._make(goal)
        for name, info in self._entries(origin):
            if _type(info) == "directory":
                self._copy_tree(f"{origin}/{name}", f"{goal}/{name}")
            elif _type(info) == "file":
                self._copy(f"{origin}/{name}", f"{goal}/{name}")
            else:
                raise PathRefused(f"{name!r} is a link, or no plain file, and is not copied with its directory")

    def _stat(self, name: str, info: Mapping[str, Any]) -> Stat:
        kind = _type(info)
        usual = stat.S_IFDIR | 0o755 if kind == "directory" else stat.S_IFREG | 0o644
        return Stat(
            ctime=next((_seconds(info[key]) for key in _TIMES if info.get(key)), None),
            name=name,
            size=int(info.get("size") or 0) if kind == "file" else 0,
            st_mode=info.get("mode") or usual,
            type=kind,
            uri=info.get("uri") or self._backend.unstrip_protocol(info["name"]),
        )


def _type(info: Mapping[str, Any]) -> FileType:
    if info.get("islink"):
        return "link"
    found = info["type"]
    return found if found in ("file", "directory") else "other"


def _seconds(time: Any) -> float | None:
    if isinstance(time, datetime):
        return time.timestamp()
    return float(time) if isinstance(time, (int, float)) else None


def _parsed(mode: str) -> tuple[str, bool]:
    kind = mode.replace("b", "", 1).replace("t", "", 1)
    if kind not in ("r", "w", "a", "x") or ("b" in mode and "t" in mode):
        raise ValueError(f"expected one of the modes r, w, a and x, with b for bytes, got: {mode!r}")
    return kind, "b" in mode


def _fail(number: int, path: str) -> NoReturn:
    raise OSError(number, os.strerror(number), path)
