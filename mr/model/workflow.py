"""A workflow: the isolated container of jobs, steps, handlers and requests."""

from __future__ import annotations

import msgspec


class Workflow(msgspec.Struct, frozen=True, kw_only=True):
    """`handlers_state` is the hash of the current definition set; each change of a definition changes it."""

    description: str
    handlers_state: str = ""
