"""Files between the shared file system and a disk here, one or a whole directory, with what is told while it goes on.

A file that comes from there grows under another name and is then renamed, so that an interrupted copy is not taken for
the file. What is on the way is never whole in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from mr.errors import PathRefused
from mr.ports.file_system import FileSystem

PIECE_BYTES = 1024 * 1024

Told = Callable[[str, int, int], None]
"""Called with the path there, the bytes so far, and all bytes, after each piece."""


class Transfer(msgspec.Struct, frozen=True):
    """One file that was copied: where it is there and here, and its size."""

    path: str
    local: str
    size_bytes: int


def download(fs: FileSystem, path: str, target: Path, told: Told) -> Iterator[Transfer]:
    """Copy a file, or a directory with all that is in it, to `target`, which is its new name; each when it is there.

    Links on the shared file system are refused. Raises: PathRefused, OSError.
    """
    stat = fs.get_stat(path)
    if stat.type != "directory":
        yield _download(fs, path, target, stat.size, told)
        return
    target.mkdir(exist_ok=True)
    for name, one in fs.ls(path):
        if one.type == "link":
            raise PathRefused(f"{path}/{name} is a link, and is not copied with its directory")
        yield from download(fs, f"{path}/{name}".lstrip("/"), target / name, told)


def upload(fs: FileSystem, source: Path, path: str, told: Told) -> Iterator[Transfer]:
    """Copy a file, or a directory with all that is in it, to `path`; each when it is there. Raises: OSError."""
    if source.is_dir():
        if not fs.isdir(path):
            fs.mkdir(path)
        for one in sorted(source.iterdir()):
            yield from upload(fs, one, f"{path}/{one.name}".lstrip("/"), told)
        return
    with source.open("rb") as ours, fs.open(path, "wb") as theirs:
        size = carry(ours, theirs, path, os.fstat(ours.fileno()).st_size, told)
    yield Transfer(path, str(source), size)


def carry(source: IO[bytes], target: IO[bytes], path: str, total: int, told: Told) -> int:
    """Copy bytes and tell about them; how many it were."""
    done = 0
    while piece := source.read(PIECE_BYTES):
        target.write(piece)
        done += len(piece)
        told(path, done, total)
    return done


def _download(fs: FileSystem, path: str, target: Path, total: int, told: Told) -> Transfer:
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with fs.open(path, "rb") as theirs, partial.open("wb") as ours:
            size = carry(theirs, ours, path, total, told)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return Transfer(path, str(target), size)
