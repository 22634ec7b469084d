"""Sync: a folder of handler files becomes the handlers of a workflow.

    map/wc/split.py   →  map_wc_split        the name: folders and file, joined with "_", up to the last dot
    _draft.py  .x.py  __pycache__/  Makefile    ignored
    notes.txt                                   skipped with a warning: no processor for "txt"

A plan says what would happen, `+` new, `~` changed, `=` same, `-` removed, `!` kept since a step names it, or what
is wrong, of all files at once. A plan with errors is never applied, not even in part: a push is all or nothing.
Applying compares once more against what is defined then, so a plan that has grown old does no harm.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from mr.errors import DefinitionError, InvalidHandler, InvalidName
from mr.model import names
from mr.model.handler import Handler
from mr.ports.processor import SOURCE_BYTES_MAX, Processor, named_language
from mr.rules import definitions as rule
from mr.rules.definitions import Changes
from mr.services.registry import Registry

Mark = Literal["+", "~", "=", "-", "!"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One handler of a plan. `path` is empty where there is no file; `steps` name the handler that is kept."""

    mark: Mark
    name: str
    path: str = ""
    steps: list[str] = []


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a sync does, or why it does nothing; entries are in the order of their names."""

    workflow: str
    folder: str
    entries: list[Entry]
    warnings: list[str] = []
    errors: list[str] = []
    handlers: dict[str, Handler] = {}
    paths: dict[str, str] = {}
    force: bool = False

    @property
    def is_good(self) -> bool:
        """Whether it may be applied."""
        return not self.errors


class Sync:
    """Plans and applies. Applying twice changes nothing more."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def plan(self, w: str, folder: Path, *, force: bool = False) -> Plan:
        """Read and check every file below the folder; nothing is written. `force` also rewrites what is the same.

        Raises: UnknownWorkflow; DefinitionError if there is no such folder; mistakes in files are in the plan.
        """
        self._registry.get_workflow(w)
        if not folder.is_dir():
            raise DefinitionError(f"{folder} is not a folder", hint="name the one that holds the files of the handlers")
        warnings: list[str] = []
        errors: list[str] = []
        found: dict[str, list[str]] = {}
        handlers: dict[str, Handler] = {}
        for path, processor in self._files(folder, warnings, errors):
            name = name_of(path)
            found.setdefault(name, []).append(path)
            try:
                names.check("handler", name)
                source = _read(folder / path, path)
                handler = self._processor(processor, path, source).check(path, source)
            except InvalidName as error:
                errors.append(f"{path}:1: {error}")
            except InvalidHandler as error:
                errors.append(str(error))
            else:
                problem = rule.routable(w, handler)
                if problem:
                    errors.append(f"{path}:1: {problem}")
                handlers[name] = handler
        errors += [
            f"{' and '.join(paths)} both make the handler name {name}" for name, paths in found.items() if paths[1:]
        ]
        changes, dangling = self._registry.compare_handlers(w, handlers, remove_others=True, force=force)
        if not errors:
            errors += dangling
        paths = {name: several[0] for name, several in found.items()}
        return Plan(
            workflow=w,
            folder=str(folder),
            # A handler whose file is wrong has a file all the same, and does not go.
            entries=[entry for entry in _entries(changes, paths) if entry.mark not in "-!" or entry.name not in found],
            warnings=warnings,
            errors=errors,
            handlers=handlers,
            paths=paths,
            force=force,
        )

    def apply(self, plan: Plan) -> Plan:
        """Do it, and say what was done.

        Guarantee: requests see all of it or nothing.
        Raises: InvalidHandler with all errors of the plan, a line each; InvalidStep if a step would dangle.
        """
        if plan.errors:
            raise InvalidHandler("\n".join(plan.errors))
        changes = self._registry.store_handlers(plan.workflow, plan.handlers, remove_others=True, force=plan.force)
        return msgspec.structs.replace(plan, entries=_entries(changes, plan.paths))

    def _processor(self, by_extension: Processor, path: str, source: str) -> Processor:
        """Who checks a file: what its header names, or else its extension."""
        named = named_language(source)
        if named is None:
            return by_extension
        processor = self._registry.language(named)
        if processor is None:
            problem = f"{path}:1: its header says source_type {named!r}, which no processor has"
            raise InvalidHandler(problem, hint=f"there are: {', '.join(self._registry.languages)}")
        return processor

    def _files(self, folder: Path, warnings: list[str], errors: list[str]) -> Iterator[tuple[str, Processor]]:
        """Paths of handler files relative to the folder, in order, with who checks them."""

        def unreadable(error: OSError) -> None:
            errors.append(f"{error.filename}: cannot be read: {error.strerror}")

        for place, folders, files in os.walk(folder, onerror=unreadable):
            folders[:] = sorted(name for name in folders if not _is_ignored(name))
            for name in [name for name in folders if os.path.islink(os.path.join(place, name))]:
                warnings.append(f"{os.path.relpath(os.path.join(place, name), folder)}: a link to a folder, skipped")
            for name in sorted(files):
                if _is_ignored(name) or "." not in name:
                    continue
                path = os.path.relpath(os.path.join(place, name), folder)
                if not path.isprintable():
                    errors.append(f"{path!a}:1: a path with characters that cannot be shown")
                    continue
                extension = name.rpartition(".")[2]
                processor = self._registry.processor(extension)
                if processor is None:
                    warnings.append(f"{path}: no processor for {extension!r}, skipped")
                else:
                    yield path, processor


def name_of(path: str) -> str:
    """The handler name that a path, relative to the folder that is synced, makes."""
    return path.rpartition(".")[0].replace(os.sep, "_")


def _is_ignored(name: str) -> bool:
    return name.startswith(("_", "."))


def _read(file: Path, path: str) -> str:
    """The text of a handler file. Raises: InvalidHandler."""
    try:
        status = file.stat()
        # A pipe or a device would block, or never end.
        if not stat.S_ISREG(status.st_mode):
            raise InvalidHandler(f"{path}:1: is no regular file")
        if status.st_size > SOURCE_BYTES_MAX:
            raise InvalidHandler(f"{path}:1: has {status.st_size} bytes; a handler has at most {SOURCE_BYTES_MAX}")
        data = file.read_bytes()
    except OSError as error:
        raise InvalidHandler(f"{path}:1: cannot be read: {error.strerror}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidHandler(f"{path}:{line}: is not UTF-8: byte {error.start}") from error


def _entries(changes: Changes, paths: Mapping[str, str]) -> list[Entry]:
    marked: list[tuple[Mark, list[str]]] = [
        ("+", changes.new),
        ("~", changes.changed),
        ("=", changes.same),
        ("-", changes.removed),
    ]
    entries = [Entry(mark=mark, name=name, path=paths.get(name, "")) for mark, found in marked for name in found]
    entries += [Entry(mark="!", name=name, steps=steps) for name, steps in changes.kept.items()]
    return sorted(entries, key=lambda entry: entry.name)
