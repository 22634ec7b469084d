"""The file that describes languages: TOML, a table for each. Shipped ones stand in such a file, too.

Paths in commands are written with `{here}`, the folder of the file, so that it can be put anywhere with what it names.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mr.errors import ConfigError
from mr.model.language import HANDLER, INTERPRETER, MEMORY, Language

SHIPPED = Path(__file__).resolve().parent / "processors" / "languages" / "languages.toml"
VARIABLE = "MR_PROCESSORS"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}", re.ASCII)
_EXTENSION = re.compile(r"[a-z0-9_-]{1,16}", re.ASCII)
_PLACEHOLDER = re.compile(r"\{\w+\}")
_TAKEN = {"python": "py"}


def languages(path: str = "") -> dict[str, Language]:
    """All languages by name: the shipped ones, and those of the operator's file, which may replace them.

    Raises: ConfigError with every problem of the file.
    """
    found = _read(SHIPPED)
    if path:
        found |= _read(Path(path))
    owners: dict[str, str] = {extension: name for name, extension in _TAKEN.items()}
    # Last comes first: an operator's language takes an extension from a shipped one.
    kept: dict[str, Language] = {}
    for name, language in reversed(found.items()):
        free = tuple(extension for extension in language.extensions if extension not in owners)
        owners |= dict.fromkeys(free, name)
        kept[name] = msgspec.structs.replace(language, extensions=free)
    return dict(reversed(kept.items()))


def _read(path: Path) -> dict[str, Language]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{VARIABLE}: expected a file that can be read, got: {path} ({error.strerror})"]) from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise ConfigError([f"{VARIABLE}: {path}: no TOML: {error}"]) from error
    found: dict[str, Language] = {}
    problems: list[str] = []
    for name, table in tables.items():
        try:
            language = msgspec.convert({"name": name, **table} if isinstance(table, dict) else table, Language)
        except msgspec.ValidationError as error:
            problems.append(f"{VARIABLE}: {path}: [{name}]: {error}")
            continue
        problems += [f"{VARIABLE}: {path}: [{name}]: {problem}" for problem in _problems(language)]
        found[name] = _placed(language, str(path.resolve().parent))
    if problems:
        raise ConfigError(problems)
    return found


def _problems(language: Language) -> Iterable[str]:
    if not _NAME.fullmatch(language.name) or language.name in _TAKEN:
        yield f"expected a name of small letters and digits other than {', '.join(_TAKEN)}, got: {language.name}"
    if not language.command or not all(language.command):
        yield "command is empty; expected the words that start a process"
    if not 0 < len(language.comment) <= 4 or language.comment != language.comment.strip():
        yield f"expected comment to be a sign such as # or //, got: {language.comment!r}"
    for extension in language.extensions:
        if not _EXTENSION.fullmatch(extension) or extension in _TAKEN.values():
            yield f"expected extensions of small letters and digits, without a dot, got: {extension!r}"
    for word in (*language.command, *language.check):
        for placeholder in _PLACEHOLDER.findall(word):
            if placeholder not in ("{here}", HANDLER, INTERPRETER, MEMORY):
                yield f"{placeholder} is no placeholder; there are {{here}}, {HANDLER}, {INTERPRETER} and {MEMORY}"


def _placed(language: Language, folder: str) -> Language:
    def placed(words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word.replace("{here}", folder) for word in words)

    return msgspec.structs.replace(language, command=placed(language.command), check=placed(language.check))
