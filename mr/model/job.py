"""A job: the noun that clients post to. It names the first step."""

from __future__ import annotations

import msgspec


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What `entities/job/<workflow>/<job>` holds."""

    workflow_name: str
    description: str
    initial_step_name: str
