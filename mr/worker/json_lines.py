"""Languages that speak JSON lines: one process for many invocations, kept between them (docs/languages.rst).

Every line is an array whose first element is its verb. To the child: run, in, more, end. From it: map, out, set, and
at the end done or failed. Nobody ever waits for an answer in between, so neither side can hang the other.

What the child says is not to be trusted: whatever is no such line is a failure of class `protocol`, and the end of
the child. One that failed, or was left in the middle, is ended, too: what it has read and said is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from mr.codec import encode
from mr.rules.grouping import Values
from mr.worker.children import Child
from mr.worker.failures import clean
from mr.worker.foreign import STACK_MAX, Foreign, Told
from mr.worker.scope import RETURN, MapTo, Refused

_FEED_BYTES = 64 * 1024
_decode: Callable[[bytes], list[Any]] = msgspec.json.Decoder(list[Any]).decode


class JsonLines(Foreign):
    """A handler whose process speaks JSON lines."""

    def call(self, subject: Any) -> Iterator[Any]:
        key = (self.name, self.version, self.workflow)
        child = self.children.take(key) or self.start()
        is_done = False
        try:
            child.begin()
            yield from self._pairs(child, subject)
            is_done = True
        finally:
            child.drain()
            if is_done and child.is_whole:
                self.children.keep(key, child)
            else:
                child.end()

    def _pairs(self, child: Child, subject: Any) -> Iterator[Any]:
        feed = _Feed(self._input(subject))
        decided = self.kind != "map"
        number = 0
        for line in child.exchange(feed, closes=False):
            number += 1
            verb, fields = self._read(line, number)
            if verb == "out":
                if not decided:
                    decided = True
                    yield RETURN
                yield (fields[0], fields[1])
            elif verb == "set":
                self.current.session.set(fields[0], fields[1])
            elif verb == "map":
                if decided:
                    what = "which only a mapper may" if self.kind != "map" else "which must come before all pairs"
                    raise self._broken(number, f"maps to {fields[0]!r}, {what}, and once")
                decided = True
                yield MapTo(fields[0])
            elif verb == "done":
                if not feed.is_over or child.unsent:
                    raise self._broken(number, "says that it is done before it has read its input")
                if not decided:
                    yield RETURN
                return
            else:
                raise self._told(fields)
        raise self.death(child, "in the middle of an invocation")

    def _read(self, line: bytes, number: int) -> tuple[str, list[Any]]:
        try:
            message = _decode(line)
            verb, *fields = message
            if len(fields) == _FIELDS[verb]:
                return verb, fields
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError):
            pass
        shown = line[:100].decode("utf-8", "backslashreplace")
        raise self._broken(number, f"is {shown!r}; expected one of {', '.join(_FIELDS)} in an array of JSON")

    def _broken(self, number: int, problem: str) -> Refused:
        return Refused(
            "protocol", f"handler {self.name} ({self.language.name}): line {number} of its process {problem}"
        )

    def _told(self, fields: Sequence[Any]) -> Told:
        kind, message, stack = (clean(field if isinstance(field, str) else str(field)) for field in fields)
        class_ = {"NotSerialisable": "not_serialisable", "ProtocolError": "protocol"}.get(kind, "exception")
        return Told(class_, kind[:200], self.shown(message), self.shown(stack)[:STACK_MAX])

    def _input(self, subject: Any) -> Iterator[bytes]:
        current = self.current
        yield _line(
            "run",
            {
                "kind": self.kind,
                "handler": self.name,
                "version": self.version,
                "workflow": self.workflow,
                "step": current.step,
                "request": current.request,
                "invocation": current.invocation,
                "session": [(name, Raw(data)) for name, data in current.session.values.items()],
            },
        )
        for key, value in subject:
            if type(value) is Values:  # a group bigger than what is shown as a list
                verb: tuple[Any, ...] = ("in", key)
                for piece in value.cut():
                    yield _line(*verb, Raw(b"[" + piece + b"]"))
                    verb = ("more",)
            else:
                yield _line("in", key, value)
        yield _line("end")


_FIELDS = {"out": 2, "set": 2, "map": 1, "done": 0, "failed": 3}


class _Feed:
    """Lines in pieces that are worth a write."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self.is_over = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.is_over:
            raise StopIteration
        held: list[bytes] = []
        size = 0
        for line in self._lines:
            held.append(line)
            size += len(line)
            if size >= _FEED_BYTES:
                return b"".join(held)
        self.is_over = True
        return b"".join(held)


def _line(*message: Any) -> bytes:
    return encode(message) + b"\n"
