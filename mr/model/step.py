"""A step: binds a mapper, an optional combiner and a reducer."""

from __future__ import annotations

import msgspec


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What `entities/step/<workflow>/<step>` holds."""

    workflow_name: str
    description: str
    map_handler_name: str
    combine_handler_name: str | None = None
    reduce_handler_name: str
