"""Languages that speak lines: a process for each invocation, text in and out, as for Hadoop Streaming.

    stdin     key TAB value             one line for each line of each value; `keys` off: a mapper's values alone
    stdout    key TAB value             the first tab counts; a line without one is a key with an empty value
    folder    map_to  values  session/  what else there is to say, in files of $MR_INVOCATION_FOLDER

Anything that can print a line can be a handler. The price is a process for each invocation, and that all is text:
what is no text goes in as JSON, and comes out as text unless the file `values` says `json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from mr import codec
from mr.codec import encode
from mr.errors import InvalidDocument
from mr.worker.children import Child
from mr.worker.foreign import Foreign, Told
from mr.worker.scope import RETURN, MapTo, Refused

_FEED_BYTES = 64 * 1024
_SORTED_PAIRS = 100_000
_CONTROL_BYTES_MAX = 4096


class TextLines(Foreign):
    """A handler whose process reads and prints lines."""

    def call(self, subject: Any) -> Iterator[Any]:
        from shutil import rmtree  # not at the start of every executor: it takes three decompressors along

        folder = Path(self.directory, f"invocation-{self.name}-{self.kind}")
        rmtree(folder, ignore_errors=True)
        kept = self._lay_out(folder)
        current = self.current
        child = self.start(
            {
                "MR_INVOCATION_FOLDER": str(folder),
                "MR_VERSION": self.version,
                "MR_WORKFLOW": self.workflow,
                "MR_STEP": current.step,
                "MR_REQUEST": current.request,
                "MR_INVOCATION": current.invocation,
                "MR_KIND": self.kind,
            }
        )
        try:
            child.begin()
            yield from self._pairs(child, folder, subject)
            self._end(child)
            self._keep_session(folder, kept)
        finally:
            child.drain()
            child.end()
            rmtree(folder, ignore_errors=True)

    def _lay_out(self, folder: Path) -> dict[str, bytes]:
        session = folder / "session"
        session.mkdir(0o700, parents=True)
        kept = {}
        for key, data in self.current.session.values.items():
            value = codec.loads(data)
            name = _file_name(key)
            kept[name] = value.encode() if isinstance(value, str) else data
            (session / name).write_bytes(kept[name])
        return kept

    def _pairs(self, child: Child, folder: Path, subject: Any) -> Iterator[Any]:
        # The files are read once, at the first line: whoever printed it had written them before.
        as_json = False
        number = 0
        for line in child.exchange(_blocks(self._input(subject)), closes=True):
            if not number:
                as_json = _control(folder / "values") == "json"
                yield from self._decided(folder)
            number += 1
            try:
                key, _, text = line.decode("utf-8").partition("\t")
                value = codec.loads(text.encode()) if as_json else text
            except UnicodeDecodeError as error:
                raise self._broken(number, "is no UTF-8") from error
            except InvalidDocument as error:
                raise self._broken(number, f"has {text[:80]!r} behind its tab, which is no JSON") from error
            yield (key, [value]) if self.kind == "combine" else (key, value)
        if not number:
            yield from self._decided(folder)

    def _decided(self, folder: Path) -> Iterator[Any]:
        if self.kind == "map":
            step = _control(folder / "map_to")
            yield MapTo(step) if step else RETURN

    def _broken(self, number: int, problem: str) -> Refused:
        return Refused(
            "protocol", f"handler {self.name} ({self.language.name}): line {number} that it printed {problem}"
        )

    def _end(self, child: Child) -> None:
        code = child.wait()
        assert code is not None
        if code == 0:
            return
        if code < 0 or self.lacks_memory(child):
            raise self.death(child, "while it ran")
        said = [line for line in self.shown(child.told).splitlines() if line.strip()]
        # What is indented explains the line before or after it: a stack, a piece of source.
        told = next((line for line in reversed(said) if not line[0].isspace()), said[-1] if said else "")
        message = f"ended with exit status {code}" + (f": {told}" if told else "")
        raise Told("exception", "ExitStatus", message, "\n".join(said))

    def _keep_session(self, folder: Path, kept: dict[str, bytes]) -> None:
        for file in sorted((folder / "session").iterdir()):
            data = file.read_bytes()
            if kept.get(file.name) != data:
                self.current.session.set(unquote(file.name), data.decode("utf-8", "replace"))

    def _input(self, subject: Any) -> Iterator[bytes]:
        if self.kind == "map" and not self.language.keys:
            for _, value in subject:
                yield from _lines(value)
        elif self.kind == "map":
            for key, value in subject:
                yield from self._keyed(key, (value,))
        elif self.kind == "combine":
            for key, value in _sorted(subject):
                yield from self._keyed(key, (value,))
        else:
            for key, values in subject:
                yield from self._keyed(key, values)

    def _keyed(self, key: Any, values: Sequence[Any]) -> Iterator[bytes]:
        name = _text(key)
        if b"\t" in name or b"\n" in name:
            raise Refused(
                "not_serialisable",
                f"handler {self.name} ({self.language.name}) would get the key {key!r}, whose tab or line end no line "
                "can hold",
            )
        for value in values:
            for line in _lines(value):
                yield name + b"\t" + line


def _text(value: Any) -> bytes:
    return value.encode() if type(value) is str else encode(value)


def _lines(value: Any) -> Iterator[bytes]:
    """The lines of a text, each with its end; also the last, and one for an empty text."""
    lines = _text(value).split(b"\n")
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    return (line + b"\n" for line in lines)


def _sorted(pairs: Any) -> Iterator[tuple[Any, Any]]:
    """Pairs with equal keys beside each other. Of many, so many at a time: combining what is left is the reducer's."""
    source = iter(pairs)
    while piece := list(islice(source, _SORTED_PAIRS)):
        yield from sorted(piece, key=lambda pair: _text(pair[0]))


def _blocks(lines: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= _FEED_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _file_name(key: str) -> str:
    return quote(key, safe="").replace(".", "%2E").replace("~", "%7E")


def _control(file: Path) -> str:
    """What a file of the invocation's folder says; empty if it is not there."""
    try:
        with file.open("rb") as opened:
            return opened.read(_CONTROL_BYTES_MAX).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
