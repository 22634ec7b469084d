"""Facts about invocations: what was decided and what came out, each written once.

An invocation has no record that changes. Its state is derived from these facts (`rules.fan_in`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from mr.model.dataset import Payload

PARTS = b'"parts"'
"""Value of `done/<p>/<slice>` when the results stand in single parts."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one execution of a mapper decided: `manifest/<p>`.

    Mapped: `step` names the step of the children, `count` how many, `slice` how many to a slice, `args` their
    arguments (a list of datasets). Returned data that is not reduced yet: `step` is None and `data` holds the
    combined rows `[[key, [value, …]], …]`.
    `session` is how many session values stand under this execution (`entity_trees/sessions/…`); `us` are the
    microseconds that the mapper ran.
    """

    execution: str
    step: str | None = None
    count: int = 0
    slice: int = 1
    args: Payload = Payload()
    data: Payload = Payload()
    session: int = 0
    worker: str = ""
    at: str = ""
    us: int = 0
    output: str = ""


class Done(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The results of one slice, in the order of its children: `done/<p>/<slice>`.

    `results` is a list of datasets. `us` are the microseconds that each child ran; `outputs` what children
    printed, by their number.
    """

    execution: str
    results: Payload
    worker: str = ""
    at: str = ""
    us: list[int] = []
    outputs: dict[str, str] = {}


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of one child whose slice was not finished in one piece: `part/<p>/<slice>/<child>`.

    `result` is one dataset; in chunks, each chunk is a list of pairs.
    """

    execution: str
    result: Payload
    worker: str = ""
    at: str = ""
    us: int = 0
    output: str = ""


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """All slices are done and the reduce is due: `reduce/<p>`. `execution` is who found out."""

    execution: str


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an attempt failed; what the client sees, and what `attempt/<p>/<execution>` holds.

    `class_` is one of ERROR_CLASSES. `type` and `message` are the exception's own, `traceback` is text.
    """

    class_: str = msgspec.field(name="class")
    type: str
    message: str
    handler: str = ""
    handler_type: str = ""
    version: str = ""
    invocation: str = ""
    attempt: int = 1
    traceback: str = ""
    worker: str = ""
    at: str = ""
    output: str = ""


ERROR_CLASSES = (
    "exception",
    "timeout",
    "memory",
    "signal",
    "exit",
    "output_limit",
    "not_serialisable",
    "protocol",
    "lost_worker",
    "unschedulable",
    "cancelled",
    "rejected",
    "result_writer",
    "scope_factory",
)


class Receipt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where due work was published (`broker` and when that broker was started), or which worker holds it."""

    at: str
    broker: str = ""
    started: str = ""
    worker: str = ""


class WorkerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a live worker says of itself: `workers/<worker>`, under its lease.

    `holds` lists what it has been running for over a second: `<workflow>/<request>/<path>` of manifests. `printed`
    has the last lines, some seconds old, of the invocations that have run for so long and printed anything. With
    `serves_all` it takes on new workflows by itself, and `workflows` may be a moment behind. `writer` is the name of
    the result writer that it has; it writes results exactly if that is not empty.
    """

    host: str
    pid: int
    capabilities: list[str]
    workflows: list[str]
    slots: int
    version: str
    started_at: str
    holds: list[str] = []
    printed: dict[str, str] = {}
    serves_all: bool = False
    writer: str = ""


def report_as_dict(report: ErrorReport) -> dict[str, Any]:
    """The report as the client gets it."""
    built: dict[str, Any] = msgspec.to_builtins(report)
    return built
