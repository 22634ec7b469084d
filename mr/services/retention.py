"""How long a finished request stays readable."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from mr.clock import stamp
from mr.model.request import Request, RequestState


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds after the end. `quiet_s` set: for every request, as JobX did. Not `enabled`: nothing is removed.

    Unset: `answered_s` for what the client has had, or what was written elsewhere, `result_keep_s` for a result
    nobody has read yet, `failed_keep_s` for what failed or was cancelled.
    """

    enabled: bool = True
    quiet_s: float | None = None
    answered_s: float = 5.0
    result_keep_s: float = 86400.0
    failed_keep_s: float = 86400.0

    def due_at(self, request: Request, state: RequestState, now: datetime, *, is_written: bool = False) -> str | None:
        """When the cleaner may remove a request that ends now; None for never."""
        if not self.enabled:
            return None
        if self.quiet_s is not None:
            return stamp(now + timedelta(seconds=self.quiet_s))
        kept_s = self.answered_s if is_written else self.result_keep_s
        keep_s = kept_s if state is RequestState.SUCCEEDED else self.failed_keep_s
        return stamp(now + timedelta(seconds=keep_s))

    def answered_at(self, now: datetime) -> str | None:
        """When a succeeded request may go whose result has just been delivered; None if that changes nothing."""
        if not self.enabled or self.quiet_s is not None or self.answered_s >= self.result_keep_s:
            return None
        return stamp(now + timedelta(seconds=self.answered_s))
