"""`mr fs`: the file system that the handlers of a workflow share, from outside."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mr.cli.command import Noun
from mr.cli.exits import FAILED, REFUSED, UNREACHABLE, USAGE, Refused
from mr.cli.names import place_argument
from mr.cli.output import (
    ask,
    did,
    document,
    is_watched,
    json_option,
    next_step,
    plain_option,
    say_over,
    table,
    yes_option,
)
from mr.cli.session import opened
from mr.clock import stamp
from mr.rules import paths

if TYPE_CHECKING:
    from mr.ports.file_system import FileSystem
    from mr.services.transfers import Transfer

BIG_BYTES = 8 * 1024 * 1024
"""From here on a transfer tells how far it is, to somebody at a terminal."""
TELL_EVERY_S = 0.2


@click.group("fs", cls=Noun, examples=["mr fs ls words", "mr fs put words.csv words:in/", "mr fs get words:out/a.csv"])
def fs() -> None:
    """The file system that the handlers of a workflow share.

    A path there is WORKFLOW:PATH, or WORKFLOW/PATH; it is MR_FS_URL that says where it all lies.
    """


@fs.command("ls", examples=["mr fs ls words", "mr fs ls words:in", "mr fs ls words/in --json"])
@place_argument("place")
@json_option
@plain_option
def ls(place: str, as_json: bool, plain: bool) -> None:
    """List a directory, or show one file."""
    with _reached(place) as (files, path):
        if files.isdir(path):
            found = [one for _, one in files.ls(path)]
        else:
            found = [files.get_stat(path)]
    times = [None if one.ctime is None else stamp(datetime.fromtimestamp(one.ctime, UTC)) for one in found]
    if as_json:
        document(
            [
                {"name": one.name, "type": one.type, "size_bytes": one.size, "created_at": time, "uri": one.uri}
                for one, time in zip(found, times, strict=True)
            ]
        )
        return
    rows = [
        [one.type, str(one.size) if plain else f"{one.size:,}", (time or "")[:19].replace("T", " "), one.name]
        for one, time in zip(found, times, strict=True)
    ]
    table(["type", "bytes", "created (utc)", "name"], rows, plain=plain)
    w, _ = _split(place)
    next_step(f"mr fs get {w}:PATH" if found else f"mr fs put FILE {w}:", told=False)


@fs.command(
    "get", examples=["mr fs get words:out/a.csv", "mr fs get words:out - | head", "mr fs get -r words:out here"]
)
@place_argument("place")
@click.argument("target", default=".")
@click.option("-r", "--recursive", is_flag=True, help="A directory, with all that is in it.")
@json_option
def get(place: str, target: str, recursive: bool, as_json: bool) -> None:
    """Copy a file from there to TARGET: a new name, a directory, or - for stdout. Without TARGET: to here."""
    from mr.services.transfers import carry, download

    with _reached(place) as (files, path), _telling() as told:
        steps = paths.steps(path)
        if target == "-":
            with files.open(path, "rb") as source:
                carry(source, sys.stdout.buffer, path, files.get_filesize(path), told)
            return
        if files.isdir(path) and not recursive:
            raise Refused(f"{place} is a directory", hint="add -r to copy it with all that is in it", exit_code=USAGE)
        goal = Path(target)
        if goal.is_dir():
            goal = goal / (steps[-1] if steps else _split(place)[0])
        done = list(download(files, "/".join(steps), goal, told))
    _conclude(done, as_json, str(goal))


@fs.command("put", examples=["mr fs put words.csv words:in/", "mr fs put -r in words:", "date | mr fs put - words:now"])
@click.argument("source")
@place_argument("place")
@click.option("-r", "--recursive", is_flag=True, help="A directory, with all that is in it.")
@json_option
def put(source: str, place: str, recursive: bool, as_json: bool) -> None:
    """Copy SOURCE, a file here or - for stdin, to there: a new name, or a directory."""
    from mr.services.transfers import Transfer, carry, upload

    w, _ = _split(place)
    ours = Path(source)
    if source != "-" and ours.is_dir() and not recursive:
        raise Refused(f"{source} is a directory", hint="add -r to copy it with all that is in it", exit_code=USAGE)
    if source != "-" and not ours.exists():
        raise Refused(f"there is no file {source}")
    with _reached(place) as (files, path), _telling() as told:
        goal = "/".join(paths.steps(path))
        if files.isdir(path) and source != "-":
            goal = f"{goal}/{ours.resolve().name}".lstrip("/")
        elif path.endswith("/"):
            raise Refused(f"there is no directory {place}", hint=f"mr fs mkdir -p {place}")
        if source == "-":
            with files.open(goal, "wb") as target:
                done = [Transfer(goal, "-", carry(sys.stdin.buffer, target, goal, 0, told))]
        else:
            done = list(upload(files, ours, goal, told))
    _conclude(done, as_json, f"{w}:{goal}")
    next_step(f"mr fs ls {w}:{goal.rpartition('/')[0]}".rstrip(":"), told=False)


@fs.command("rm", examples=["mr fs rm words:in/a.csv", "mr fs rm -r words:in --yes"])
@place_argument("place")
@click.option("-r", "--recursive", is_flag=True, help="A directory, with all that is in it.")
@yes_option
def rm(place: str, recursive: bool, yes: bool) -> None:
    """Remove a file, or with -r a directory."""
    with _reached(place) as (files, path):
        if recursive:
            if files.isdir(path):
                ask(f"Remove {place} and all that is in it?", yes)
                files.rmdir(path, force=True)
            else:
                files.rm(path)
        else:
            files.rm(path)
    did(f"removed {place}")
    next_step(f"mr fs ls {_split(place)[0]}", told=False)


@fs.command("mv", examples=["mr fs mv words:in/a.csv words:in/b.csv", "mr fs mv words:in words:old"])
@place_argument("place")
@place_argument("target")
def mv(place: str, target: str) -> None:
    """Move a file or directory within its workflow. A file that is there is replaced."""
    w, goal = _split(target)
    if w != _split(place)[0]:
        raise Refused("each workflow has a file system of its own: use get and put", exit_code=USAGE)
    with _reached(place) as (files, path):
        if files.isdir(goal):
            goal = f"{goal}/{paths.steps(path)[-1]}" if paths.steps(path) else goal
        files.mv(path, goal)
    did(f"moved {place} to {w}:{'/'.join(paths.steps(goal))}")
    next_step(f"mr fs ls {w}", told=False)


@fs.command("mkdir", examples=["mr fs mkdir words:in", "mr fs mkdir -p words:in/2024"])
@place_argument("place")
@click.option("-p", "--parents", is_flag=True, help="Its parents too; one that is there is well.")
def mkdir(place: str, parents: bool) -> None:
    """Make a directory."""
    with _reached(place) as (files, path):
        files.mkdir(path, recursive=parents)
    did(f"directory {place}")
    next_step(f"mr fs put FILE {place}", told=False)


def _split(place: str) -> tuple[str, str]:
    """Workflow and path. What divides them is the first `:` or `/`."""
    end = next((index for index, character in enumerate(place) if character in ":/"), len(place))
    return place[:end], place[end + 1 :]


@contextmanager
def _reached(place: str) -> Iterator[tuple[FileSystem, str]]:
    """The file system of the workflow that a place names, and the path.

    Raises: UnknownWorkflow, which must be there already; ConfigError; Refused for what the file system refuses.
    """
    w, path = _split(place)
    with opened() as parts:
        parts.registry.current(w)
        try:
            yield parts.file_system(w), path
        except (FileExistsError, PermissionError) as error:
            raise Refused(_told_error(error, place), exit_code=REFUSED) from error
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise Refused(_told_error(error, place), hint=_next(w, path), exit_code=FAILED) from error
        except BrokenPipeError:
            raise  # of stdout, whose reader has gone
        except OSError as error:
            # With a number it is about a path; without, the backend speaks for itself.
            code = FAILED if error.errno and not isinstance(error, ConnectionError) else UNREACHABLE
            raise Refused(_told_error(error, place), exit_code=code) from error


def _next(w: str, path: str) -> str:
    """What to do where something is not there."""
    return (
        f"see: mr fs ls {w}"
        if path.strip("/")
        else "MR_FS_URL names the directory of all workflows: see that it exists"
    )


def _told_error(error: OSError, place: str) -> str:
    if error.strerror:
        return f"{error.strerror}: {error.filename if error.filename is not None else place}"
    return str(error) or f"{type(error).__name__}: {place}"


@contextmanager
def _telling() -> Iterator[Callable[[str, int, int], None]]:
    """What is called while bytes move; shows how far big files are on a terminal, and clears that at the end."""
    last = time.monotonic()
    shown = False

    def told(path: str, done: int, total: int) -> None:
        nonlocal last, shown
        now = time.monotonic()
        if is_watched() and max(done, total) >= BIG_BYTES and now - last >= TELL_EVERY_S:
            part = f" of {total / 2**20:,.0f} MB, {done / total:4.0%}" if total else " MB"
            say_over(f"  {path}: {done / 2**20:,.0f}{part}")
            last, shown = now, True

    try:
        yield told
    finally:
        if shown:
            say_over()


def _conclude(done: list[Transfer], as_json: bool, goal: str) -> None:
    if as_json:
        document(done)
    size = sum(one.size_bytes for one in done)
    did(f"{goal}: {len(done)} {'file' if len(done) == 1 else 'files'}, {size:,} bytes")
