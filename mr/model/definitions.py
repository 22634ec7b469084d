"""A definition set: all that a workflow defines at one moment, frozen, named by its hash.

A request is pinned to one whole set, so that a push never changes what a running request does.
"""

from __future__ import annotations

import hashlib

import msgspec

from mr import codec
from mr.model.handler import HandlerType


class HandlerRef(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine must know of a handler without its source. `capability` is what a worker must offer."""

    version: str
    handler_type: HandlerType
    capability: str
    timeout_s: float | None = None
    memory_mb: int | None = None
    attempts: int | None = None


class StepRef(msgspec.Struct, frozen=True, kw_only=True):
    """Names of the handlers that a step binds."""

    mapper: str
    combiner: str | None
    reducer: str


class DefinitionSet(msgspec.Struct, frozen=True, kw_only=True):
    """Handlers by name, steps by name, and the initial step of each job by name."""

    handlers: dict[str, HandlerRef] = {}
    steps: dict[str, StepRef] = {}
    jobs: dict[str, str] = {}

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical content; covers names and versions."""
        return hashlib.sha256(codec.canonical(msgspec.to_builtins(self))).hexdigest()[:16]

    def mapper(self, step: str) -> HandlerRef:
        """The mapper of a step that exists."""
        return self.handlers[self.steps[step].mapper]

    def combiner(self, step: str) -> HandlerRef | None:
        """The combiner of a step that exists, if it names one."""
        name = self.steps[step].combiner
        return self.handlers[name] if name else None

    def reducer(self, step: str) -> HandlerRef:
        """The reducer of a step that exists."""
        return self.handlers[self.steps[step].reducer]
