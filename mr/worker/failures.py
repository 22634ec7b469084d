"""What went wrong in a handler, as text and as one of the error classes.

The traceback is the handler's own: frames of mr are left out, lines come from the source that ran. Where mr refuses
something that a handler yielded there is no frame of it in the exception, but its generator still stands at the
`yield`, and that line is shown.
"""

from __future__ import annotations

import linecache
import os
from traceback import FrameSummary, TracebackException
from types import GeneratorType
from typing import Any, NamedTuple

import mr
from mr.errors import InvalidHandler
from mr.worker.foreign import Told
from mr.worker.scope import Refused

TEXT_MAX = 32 * 1024
MESSAGE_MAX = 4096

_OURS = os.path.dirname(mr.__file__) + os.sep
_REFUSED_TYPES = {
    "protocol": "ProtocolError",
    "not_serialisable": "NotSerialisable",
    "output_limit": "OutputLimit",
    "rejected": "Rejected",
    "scope_factory": "ScopeFactoryError",
}


class Failure(NamedTuple):
    """Class, type, message and traceback of a failure, as they stand in a Failed frame."""

    class_: str
    type: str
    message: str
    traceback: str


def describe(error: BaseException, name: str, source: str, generator: Any) -> Failure:
    """The failure of handler `name`; `generator` is what it was running as, if that is known."""
    kind = type(error).__name__
    if isinstance(error, Told):
        return Failure(error.class_, clean(error.kind), clean(str(error))[:MESSAGE_MAX], clean(error.stack))
    if isinstance(error, Refused):
        class_ = error.class_
        kind = _REFUSED_TYPES.get(class_, kind)
    elif isinstance(error, InvalidHandler):
        class_, kind = "rejected", "Rejected"
    elif isinstance(error, SystemExit | KeyboardInterrupt | GeneratorExit):
        class_ = "exit"
    elif isinstance(error, MemoryError):
        class_ = "memory"
    else:
        class_ = "exception"
    try:
        message = str(error)
    except Exception:  # the handler's own __str__
        message = f"<{kind} whose text cannot be made>"
    if class_ == "exit":
        message = f"the handler raised {kind}({message})"
    elif class_ == "memory" and not message:
        message = "the handler ran out of memory"
    return Failure(class_, clean(kind), clean(message)[:MESSAGE_MAX], _traceback(error, name, source, generator))


def clean(text: str) -> str:
    """The text with lone surrogates escaped, so that it can be sent."""
    return text.encode("utf-8", "backslashreplace").decode()


def _traceback(error: BaseException, name: str, source: str, generator: Any) -> str:
    label = f"handler({name})"
    lines = [line + "\n" for line in source.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    linecache.cache[label] = (len(source), None, lines, label)
    try:
        told = TracebackException.from_exception(error)
        _strip(told)
        frame = generator.gi_frame if type(generator) is GeneratorType else None
        if not told.stack and frame is not None and not frame.f_code.co_filename.startswith(_OURS):
            told.stack.append(FrameSummary(label, frame.f_lineno, frame.f_code.co_name))
        if isinstance(error, Refused):
            told.exc_type = None  # type: ignore[assignment]
            text = "".join(["Traceback (most recent call last):\n", *told.stack.format(), f"{error}\n"])
        else:
            text = "".join(told.format())
    except Exception as problem:  # out of memory, or an exception object that cannot be looked at
        return f"(no traceback: {type(problem).__name__})"
    text = clean(text)
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX // 2]}\n…\n{text[-TEXT_MAX // 2 :]}"


def _strip(told: TracebackException) -> None:
    waiting: list[TracebackException | None] = [told]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.stack[:] = [frame for frame in one.stack if not frame.filename.startswith(_OURS)]
        waiting.extend((one.__cause__, one.__context__, *(one.exceptions or ())))
