"""A request: one accepted posting of a job."""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec


class RequestState(Enum):
    """Who moves a request in, and who moves it out.

    RUNNING    accepted by the front end; ended by the worker that reduces the root, or by a failure
    WRITING    the root is reduced and a result writer runs; ended by that writer
    SUCCEEDED  final
    FAILED     final, until resumed under a new epoch
    CANCELLED  asked for by a person; final, until resumed under a new epoch
    """

    RUNNING = "running"
    WRITING = "writing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing moves it any more."""
        return self not in (RequestState.RUNNING, RequestState.WRITING)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What `entities/request/<workflow>/<id>` holds.

    `set` is the hash of the definition set it is pinned to; `reply_to` the front end that waits, if one does.
    `finished_at` and `due_at` are set exactly when the state is final; times as `clock.stamp` writes them.
    `error` is the report of the failed invocation, or of the writer that failed. `written` says where a writer
    other than inline has put the result: `writer`, `host`, and what that writer tells, such as `path`.
    """

    workflow_name: str
    job_name: str
    invocation_id: str
    context: dict[str, Any] = {}
    is_done: bool = False
    is_blocking: bool = True
    failed_invocation_id: str | None = None
    state: RequestState = RequestState.RUNNING
    epoch: int = 1
    set: str = ""
    reply_to: str | None = None
    created_at: str = ""
    finished_at: str | None = None
    due_at: str | None = None
    error: dict[str, Any] | None = None
    written: dict[str, Any] | None = None


class Active(msgspec.Struct, frozen=True):
    """What `active/<workflow>/<id>` holds: the fence."""

    epoch: int


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `replies/<front end>/<id>` holds: the request is over.

    `pairs` is the result when it is small enough to stand here; empty where the reader fetches it from the records.
    `is_written`: a writer has put the result elsewhere, and the client gets none of it.
    """

    workflow_name: str
    state: RequestState
    pairs: msgspec.Raw = msgspec.Raw(b"")
    error: dict[str, Any] | None = None
    is_written: bool = False


class Pin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What `pinned/<workflow>/<id>` holds: since when, by whom (`user@host`), and why."""

    at: str
    by: str = ""
    note: str = ""
