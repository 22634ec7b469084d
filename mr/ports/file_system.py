"""File system: what the handlers of one workflow share, and what `mr fs` looks into.

One object is one workflow's: its root is the directory `working/<workflow>` below the URL of the deployment, made when
it is first used, and no path leads out of it. Paths are relative, with `/` between names; `""` is the root.

The hard part is that backends are so different: one has directories, one has only keys; one renames, one copies and
deletes. What stands here holds on all of them; what only some can do (links, locks, changing a file in its middle) is
not offered. Mistakes are the exceptions of Python's own `open` and `os`, so that handlers need nothing of mr.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import IO, Any, Literal, NamedTuple

FileType = Literal["file", "directory", "link", "other"]


class Stat(NamedTuple):
    """What is known of an entry.

    `ctime` in seconds since 1970, None where the backend keeps no time. `size` in bytes, 0 for directories. `st_mode`
    as in `os.stat`. `uri` is where the entry lies, in the backend's own words: for Tahoe-LAFS its read capability.
    """

    ctime: float | None
    name: str
    size: int
    st_mode: int
    type: FileType
    uri: str


class FileSystem(ABC):
    """The file system of one workflow.

    Raises, all of them: PathRefused for a path that leads out; the subclass of OSError that fits (FileNotFoundError,
    FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError); OSError when the backend does not answer.
    """

    @abstractmethod
    def mkdir(self, path: str, recursive: bool = False) -> None:
        """Make a directory. `recursive`: its parents too, and one that is there is well."""

    @abstractmethod
    def ls(self, path: str = "") -> Iterator[tuple[str, Stat]]:
        """What is in a directory, as (name, stat), by name. Links are shown, not followed."""

    @abstractmethod
    def cp(self, source: str, target: str) -> None:
        """Copy a file; a file that is there is replaced."""

    @abstractmethod
    def cpr(self, source: str, target: str) -> None:
        """Copy a directory with all that is in it; the target may not be there yet. A link in it is refused."""

    @abstractmethod
    def rm(self, path: str) -> None:
        """Remove a file, or a link."""

    @abstractmethod
    def rmdir(self, path: str, force: bool = False) -> None:
        """Remove an empty directory; `force`: with all that is in it. Not the root."""

    @abstractmethod
    def mv(self, source: str, target: str) -> None:
        """Move a file, which replaces a file that is there, or a directory to where nothing is.

        Guarantee: in one step where the backend can rename; elsewhere it is copied, then removed.
        """

    @abstractmethod
    def get_stat(self, path: str) -> Stat:
        """What is known of an entry; of where it leads if it is a link."""

    @abstractmethod
    def get_filesize(self, path: str) -> int:
        """Bytes of a file."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is a file or directory."""

    @abstractmethod
    def isfile(self, path: str) -> bool:
        """Whether there is a file."""

    @abstractmethod
    def isdir(self, path: str) -> bool:
        """Whether there is a directory."""

    @abstractmethod
    def open(
        self,
        path: str,
        mode: str = "r",
        encoding: str = "utf-8",
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open a file; for use in `with`, which closes it whatever happens.

        `mode` is one of `r w a x`, with `b` for bytes. Its directory has to be there. On object stores and Tahoe-LAFS
        a written file is there once it is closed, whole.
        """
