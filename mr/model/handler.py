"""A handler: one body of source, a mapper, combiner or reducer, and what running it needs."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from mr import codec

HandlerType = Literal["mapper", "combiner", "reducer"]

ARGUMENT_TYPES = ("list", "dict", "str", "int", "float", "bool", "tuple")
GENERAL = "general"


class Handler(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a handler; its name is not part of it, so equal files share one version.

    `source_type` names its language (`model.language`), `argument_spec` is a list of [name, type or null].
    `required_capability` is lower case; `none` means any general worker. `timeout_s`, `memory_mb` and `attempts` are
    None where the settings decide. `form` is `body` (a bare body with top-level yield) or `module` (all else).
    """

    description: str
    argument_spec: list[tuple[str, str | None]]
    source_type: str
    source_code: str
    handler_type: HandlerType
    required_capability: str
    form: Literal["body", "module"] = "body"
    timeout_s: float | None = None
    memory_mb: int | None = None
    attempts: int | None = None

    @property
    def capability(self) -> str:
        """The capability that a worker must offer."""
        return GENERAL if self.required_capability in ("none", "") else self.required_capability

    @property
    def version(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical content."""
        return hashlib.sha256(codec.canonical(msgspec.to_builtins(self))).hexdigest()[:12]


class HandlerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `entities/handler/<workflow>/<name>` holds: the content, its version, and the workflow."""

    workflow_name: str
    description: str
    argument_spec: list[tuple[str, str | None]]
    source_type: str
    source_code: str
    version: str
    handler_type: HandlerType
    required_capability: str
    form: Literal["body", "module"] = "body"
    timeout_s: float | None = None
    memory_mb: int | None = None
    attempts: int | None = None
