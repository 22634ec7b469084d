"""Blobs as files of any file system of fsspec, below the directory or bucket of a URL.

The hard part is "never seen in part". An object store shows a file once it is closed. Where files grow in sight, but
can be renamed, a blob is written aside and renamed. On a disk of this machine it is also made durable first, for the
record that will name it is.

What has to be there is never made: a directory that went away with its mount would come back empty, and blobs would be
written beside those that the others read.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mr.adapters import fsspec_driver
from mr.addresses import FileSystemUrl
from mr.errors import BlobStoreUnavailable, ConfigError, PathRefused
from mr.ports.blob_store import Blob, BlobStore
from mr.rules import paths

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

VARIABLE = "MR_BLOB_URL"
ROUNDS = 5
"""Looks whether a prefix is gone; another process may remove the same, and drivers stumble over what is gone."""
_TIMES = ("LastModified", "mtime", "modified", "last_modified", "created", "ctime")


def open_blob_store(url: FileSystemUrl) -> FileBlobStore:
    """The blob store of a URL; nothing is asked of it yet."""
    return LocalBlobStore(url) if _is_local(url) else FileBlobStore(url)


def check(url: FileSystemUrl) -> None:
    """See whether there is a driver for the URL and, on this machine, its directory. Raises: ConfigError."""
    fsspec_driver.check(url, VARIABLE)
    if _is_local(url):
        _, base = fsspec_driver.open_driver(url, VARIABLE)
        if not os.path.isdir(base):
            raise ConfigError([f"{VARIABLE}: expected a directory that is there, made or mounted, got: {url}"])


class FileBlobStore(BlobStore):
    """Blobs below what the URL names, which has to be there."""

    def __init__(self, url: FileSystemUrl) -> None:
        self._url, self.place = url, str(url)
        # Not every driver bears several threads, and fsspec keeps one for each where that is so.
        self._drivers = threading.local()

    def put(self, name: str, data: bytes) -> None:
        steps = paths.plain(name)
        with self._driver() as (backend, base):
            place = "/".join((base, *steps))
            try:
                self._write(backend, place, data)
            except OSError as error:
                if error.errno != errno.ENOENT and not isinstance(error, FileNotFoundError):
                    raise
                _need(backend, base)
                for count in range(1, len(steps)):
                    self._make(backend, "/".join((base, *steps[:count])))
                self._write(backend, place, data)

    def get(self, name: str) -> bytes | None:
        steps = paths.plain(name)
        with self._driver() as (backend, base):
            try:
                return bytes(backend.cat_file("/".join((base, *steps))))
            except FileNotFoundError:
                _need(backend, base)
                return None

    def remove(self, prefix: str) -> None:
        steps = paths.plain(prefix)
        with self._driver() as (backend, base):
            place = "/".join((base, *steps))
            for _ in range(ROUNDS):
                if not _is_there(backend, place):
                    _need(backend, base)
                    return
                try:
                    backend.rm(place, recursive=True)
                except FileNotFoundError:
                    continue
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), prefix)

    def list(self, prefix: str = "") -> Iterator[Blob]:
        steps = paths.plain(prefix) if prefix else ()
        with self._driver() as (backend, base):
            _need(backend, base)
            backend.invalidate_cache()
            try:
                found = backend.find("/".join((base, *steps)), detail=True)
            except FileNotFoundError:
                found = {}
        beginning = base.strip("/")
        for place, info in found.items():
            name = place.strip("/").removeprefix(beginning).lstrip("/")
            try:
                paths.plain(name)
            except PathRefused:
                continue  # somebody else's
            yield Blob(name, int(info.get("size") or 0), _written_at(info))

    def _write(self, backend: AbstractFileSystem, place: str, data: bytes) -> None:
        from fsspec import AbstractFileSystem

        if type(backend).mv is AbstractFileSystem.mv:  # it would be copied: nothing would be won
            backend.pipe_file(place, data)
            return
        aside = _aside(place)
        backend.pipe_file(aside, data)
        backend.mv(aside, place)

    def _make(self, backend: AbstractFileSystem, place: str) -> None:
        """Make a directory; one that is there is well."""
        try:
            backend.mkdir(place, create_parents=False)
        except FileExistsError:
            pass

    @contextmanager
    def _driver(self) -> Iterator[tuple[AbstractFileSystem, str]]:
        """This thread's driver and the place of the URL; whatever it raises becomes an error of ours."""
        try:
            if not hasattr(self._drivers, "opened"):
                backend, base = fsspec_driver.open_driver(self._url, VARIABLE)
                self._drivers.opened = backend, base.rstrip("/")
            yield self._drivers.opened
        except PathRefused:
            raise
        except Exception as error:  # any driver may be behind it, and each has exceptions of its own
            text = f"the blob store at {self.place} does not do its part: {type(error).__name__}: {error}"
            raise BlobStoreUnavailable(text, hint=f"mend {VARIABLE}, or start its server; see: mr doctor") from error


class LocalBlobStore(FileBlobStore):
    """Blobs below a directory of this machine, each on the disk before it counts as written."""

    def _write(self, backend: AbstractFileSystem, place: str, data: bytes) -> None:
        aside = _aside(place)
        with open(aside, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, place)
        _keep_folder(place)

    def _make(self, backend: AbstractFileSystem, place: str) -> None:
        try:
            os.mkdir(place)
        except FileExistsError:
            return
        _keep_folder(place)


def _is_local(url: FileSystemUrl) -> bool:
    return url.scheme in ("file", "local")


def _aside(place: str) -> str:
    return f"{place}.new-{secrets.token_hex(4)}"


def _keep_folder(place: str) -> None:
    """Have the disk keep the name of what was made there."""
    descriptor = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _need(backend: AbstractFileSystem, base: str) -> None:
    """What the URL names has to be there, else nobody knows what is. Raises: FileNotFoundError."""
    # Of an object store's base only the bucket has to be there.
    top = base if base.startswith("/") else base.partition("/")[0]
    if not _is_there(backend, top):
        raise FileNotFoundError(errno.ENOENT, "it has to be there, made or mounted", top)


def _is_there(backend: AbstractFileSystem, place: str) -> bool:
    backend.invalidate_cache()
    try:
        backend.info(place)
    except FileNotFoundError:
        return False
    return True


def _written_at(info: dict[str, Any]) -> float | None:
    for key in _TIMES:
        if isinstance(found := info.get(key), datetime):
            return found.timestamp()
        if isinstance(found, (int, float)):
            return float(found)
    return None
