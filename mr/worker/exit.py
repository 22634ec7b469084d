"""How an executor ended, as far as its supervisor can tell."""

from __future__ import annotations

import signal
from typing import Literal

import msgspec

from mr.worker.children import signal_name
from mr.worker.frames import Stage
from mr.worker.memory import EXIT_MEMORY

How = Literal["killed", "exit", "signal", "lost_worker", "memory", "protocol"]


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How an executor ended.

    `killed`: by `kill()`, or idle and closed. `exit`: by itself, `code` is set. `signal`: by a signal other than
    KILL, `detail` names it. `lost_worker`: SIGKILL from outside, or by itself; the two look the same. `memory`:
    out of memory outside of a handler. `protocol`: it sent what is no frame. `child` is what ran, None if nothing
    did, in `stage`; `output` what that child had printed; `run` the id of the run that was not finished. `is_untold`:
    it had gone on with what a child had mapped to, and not told so; who ran is not known then.
    """

    class_: How
    detail: str
    code: int = 0
    run: int | None = None
    child: int | None = None
    stage: Stage = "map"
    output: str = ""
    is_untold: bool = False


def by_itself(status: int, exceeded_bytes: int | None) -> tuple[How, str]:
    """What a return code says where this side had no hand in it. `exceeded_bytes`: the memory that it ran out of."""
    if status == -signal.SIGKILL and exceeded_bytes is not None:
        most = exceeded_bytes / 2**20
        return "memory", f"it used more than {most:g} MB with all its processes (MR_HANDLER_MEMORY_MB)"
    if status == -signal.SIGKILL:
        return "lost_worker", "killed by SIGKILL"
    if status < 0:
        return "signal", signal_name(status)
    if status == EXIT_MEMORY:
        return "memory", "the executor ran out of memory"
    return "exit", f"exited with code {status}"
