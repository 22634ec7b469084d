"""The states of a request, as a table, and the one function that moves it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from mr.clock import stamp
from mr.errors import InvalidTransition
from mr.model.request import Request, RequestState

_S = RequestState

REQUEST_TRANSITIONS: Mapping[RequestState, frozenset[RequestState]] = {
    _S.RUNNING: frozenset({_S.WRITING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED}),  # SUCCEEDED at once: inline writer
    _S.WRITING: frozenset({_S.SUCCEEDED, _S.FAILED}),  # the root is reduced, its writer runs
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset({_S.RUNNING}),  # resume: a new epoch
    _S.CANCELLED: frozenset({_S.RUNNING}),
}


def advance(
    request: Request,
    to: RequestState,
    now: datetime,
    *,
    due_at: str | None = None,
    failed_invocation_id: str | None = None,
    error: dict[str, Any] | None = None,
    written: dict[str, Any] | None = None,
) -> Request:
    """The request in its next state; times and flags follow the state.

    Raises: InvalidTransition if the table has no such move.
    """
    if to not in REQUEST_TRANSITIONS[request.state]:
        raise InvalidTransition(f"request {request.invocation_id} cannot go from {request.state.value} to {to.value}")
    return msgspec.structs.replace(
        request,
        state=to,
        is_done=to.is_final,
        finished_at=stamp(now) if to.is_final else None,
        due_at=due_at if to.is_final else None,
        failed_invocation_id=failed_invocation_id,
        error=error,
        written=written,
    )
