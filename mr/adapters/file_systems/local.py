"""One workflow's directory on a disk, where links may lead anywhere.

A link may be followed as long as it stays in the directory. A path is resolved, and what comes out compared with the
root; a file is opened without following what has become a link since, and the kernel is asked where it was opened
before anything is written. A directory that another process swaps for a link just then can still cost an
empty file elsewhere, no more; who can do that may write there anyway.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Mapping
from typing import IO, Any

from mr.adapters.file_systems.volume import Steps, Volume
from mr.errors import PathRefused
from mr.ports.file_system import FileType
from mr.rules import paths

_FLAGS = {
    "r": os.O_RDONLY,
    "w": os.O_WRONLY | os.O_CREAT,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
}


class LocalVolume(Volume):
    """Like any volume; also its base is made."""

    def reach(self) -> None:
        """See whether the root could be made. Raises: OSError."""
        place = self._root
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), place)
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)

    def _prepare(self) -> None:
        os.makedirs(self._root, exist_ok=True)

    def _place(self, steps: Steps, *, follow: bool = True) -> str:
        whole = os.path.join(self._root, *steps)
        if follow or not steps:
            place = os.path.realpath(whole)
        else:
            place = os.path.join(os.path.realpath(os.path.dirname(whole)), steps[-1])
        return self._checked(place, "/".join(steps))

    def _checked(self, place: str, path: str) -> str:
        root = os.path.realpath(self._root)
        if place != root and not place.startswith(root + "/"):
            raise PathRefused(f"{paths.RULE} A link leads out: {path!r}")
        return place

    def _open(self, place: str, mode: str) -> IO[Any]:
        descriptor = os.open(place, _FLAGS[mode[0]] | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            self._checked(os.readlink(f"/proc/self/fd/{descriptor}"), os.path.basename(place))
            if mode[0] == "w":
                os.ftruncate(descriptor, 0)
            return os.fdopen(descriptor, "wb" if mode[0] == "x" else mode)
        except BaseException:
            os.close(descriptor)
            raise

    def _move(self, origin: str, goal: str, found: FileType) -> None:
        os.replace(origin, goal)

    def _remove_tree(self, place: str) -> None:
        shutil.rmtree(place)

    def _details(self, place: str) -> Mapping[str, Any]:
        # A place is resolved as far as it should be: what is still a link is meant itself.
        found = os.lstat(place)
        kind = "directory" if stat.S_ISDIR(found.st_mode) else "file" if stat.S_ISREG(found.st_mode) else "other"
        return {
            "name": place,
            "type": kind,
            "islink": stat.S_ISLNK(found.st_mode),
            "size": found.st_size,
            "mode": found.st_mode,
            "created": found.st_ctime,
        }
