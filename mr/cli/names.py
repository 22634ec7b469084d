"""How commands name a request: `ID`, the beginning of one, `WORKFLOW/ID`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

request_argument: Callable[[F], F] = click.argument("name", metavar="REQUEST")
"""An id, its first digits (4 or more), or `WORKFLOW/ID`; `Tracing.find` understands all three."""
