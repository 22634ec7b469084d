"""The commands under the hand of a test."""

from __future__ import annotations

from click.testing import CliRunner, Result

from mr.cli.exits import DONE
from mr.cli.main import program


def mr(*words: str, stdin: str | None = None) -> Result:
    """Run a command."""
    return CliRunner().invoke(program, words, input=stdin)


def done(*words: str, stdin: str | None = None) -> Result:
    """Run a command that succeeds."""
    result = mr(*words, stdin=stdin)
    assert result.exit_code == DONE, result.output
    return result


def refused(code: int, *words: str) -> str:
    """Run a command that is refused with this exit code and prints no result; what it said."""
    result = mr(*words)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    return result.stderr
