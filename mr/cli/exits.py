"""How commands end: exit codes, and errors as one line with the next step.

The table goes by the class of the error, the most special one that stands in it.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import click

from mr import errors
from mr.cli.output import echo, style
from mr.errors import ConfigError, MrError

DONE = 0
FAILED = 1
"""The request failed, or what was asked for cannot be."""
USAGE = 2
UNREACHABLE = 3
REFUSED = 4
"""Something is in the way: it exists, is in use, was changed by somebody else, is over already."""
GAVE_UP = 5
"""The time to wait is over; the request goes on."""
INTERRUPTED = 130

CODES: Mapping[type[MrError], int] = {
    errors.MrError: FAILED,
    errors.ConfigError: USAGE,
    errors.InvalidName: USAGE,
    errors.InvalidArguments: USAGE,
    errors.InvalidDocument: USAGE,
    errors.ValueRefused: USAGE,
    errors.PathRefused: USAGE,
    errors.DefinitionInUse: REFUSED,
    errors.RequestEnded: REFUSED,
    errors.ResultTimeout: GAVE_UP,
    errors.StateError: REFUSED,
    errors.NotFound: FAILED,
    errors.BackendError: UNREACHABLE,
    errors.CorruptEntry: FAILED,
}


HINTS: Mapping[type[BaseException], str] = {
    errors.UnknownWorkflow: "which there are: mr workflow list",
    errors.UnknownJob: "which there are: mr job list WORKFLOW",
    errors.UnknownStep: "which there are: mr step list WORKFLOW",
    errors.UnknownHandler: "which there are: mr handler list WORKFLOW",
    errors.DefinitionInUse: "remove these first, or with it: --force",
    errors.AlreadyExists: "take another name, or remove that one first",
    errors.RequestEnded: "how it ended: mr why REQUEST",
    errors.BackendError: "what is wrong, and with which settings: mr doctor",
}
"""Next steps for errors that say none themselves, by the most special class that stands here."""


class Refused(MrError):
    """A command cannot do what was asked; `exit_code` says which way."""

    code = "refused"

    def __init__(self, message: str, *, hint: str = "", exit_code: int = FAILED) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


def code_of(error: MrError) -> int:
    """The exit code for an error."""
    if isinstance(error, Refused):
        return error.exit_code
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def complain(message: str, hint: str = "") -> None:
    """One line on stderr, and the next step below it."""
    echo(f"{style('mr:', fg='red')} {message}", err=True)
    if hint:
        echo(f"  {hint}", err=True)


def conclude(call: Callable[[], Any]) -> NoReturn:
    """Run a command to its end and exit: 0, the number that it gives, or the code of its error."""
    prepare_streams()
    sys.exit(_run(call))


def _run(call: Callable[[], Any]) -> int:
    try:
        given = call()
        sys.stdout.flush()
        return given if isinstance(given, int) else DONE
    except ConfigError as error:
        for problem in error.problems:
            complain(problem)
        return USAGE
    except MrError as error:
        first, _, more = error.message.partition("\n")
        complain(first + ("\n" + more if more else ""), error.hint or _usual_hint(error))
        return code_of(error)
    except click.UsageError as error:
        context = error.ctx
        hint = f"see: {context.command_path} --help" if context is not None else "see: mr --help"
        complain(error.format_message().rstrip(".") or "wrong usage", hint)
        return USAGE
    except click.ClickException as error:
        complain(error.format_message())
        return FAILED
    except (KeyboardInterrupt, click.Abort):
        echo(err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`mr … | head`).
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        # What a command opens by itself names its file; without one it is what is written to stdout.
        complain(
            f"{os.fspath(error.filename) if error.filename else 'the output'} cannot be written or read: "
            f"{error.strerror or error}",
            "" if error.filename else "see that there is room where stdout goes",
        )
        _drop_output()
        return FAILED
    except Exception as error:
        if os.environ.get("DEBUG"):
            raise
        complain(f"this should not happen: {type(error).__name__}: {error}", "its traceback: the same with DEBUG=1")
        return FAILED


def _usual_hint(error: MrError) -> str:
    """The next step where the error itself says none."""
    return next((HINTS[kind] for kind in type(error).__mro__ if kind in HINTS), "")


def prepare_streams() -> None:
    """See that everything can be written: characters that the terminal has not, and streams that are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """What is still buffered must not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
