"""Judging: when what runs in an executor has to end, and what the client is told when an executor ended under it.

Each message names the limit that was met, and the setting to change.
"""

from __future__ import annotations

import time

from mr.errors import CorruptEntry
from mr.model.invocation import ErrorReport
from mr.services import isolation
from mr.services.quota import Quota
from mr.services.work import ReduceWork
from mr.settings import HandlerSettings
from mr.worker.case import Slot
from mr.worker.executor_process import Current
from mr.worker.exit import Exit
from mr.worker.family import below
from mr.worker.frames import Stage
from mr.worker.run import Run

COUNT_S = 0.25
"""How often processes are counted; what ends before is not counted."""


def unreadable(error: CorruptEntry, handler: str) -> ErrorReport:
    """The failure of work whose data is not what its record says; to run it again would find the same."""
    return ErrorReport(class_="lost_data", type=type(error).__name__, message=str(error), handler=handler)


class Judge:
    """Knows the limits of what runs."""

    def __init__(self, settings: HandlerSettings, quota: Quota) -> None:
        self._settings, self._quota = settings, quota
        self._counted: dict[int, float] = {}

    def verdict(self, slot: Slot, run: Run, current: Current) -> str:
        """Why what runs has to end now (see `case.Slot`), or nothing. Also notes which stage it is seen in."""
        if slot.stage != (current.child, current.stage):
            # Only of its first stage is it known when it began: a later one begins when it is first seen.
            is_first = current.stage == "map" or isinstance(run.work, ReduceWork)
            slot.stage, slot.stage_since_s = (current.child, current.stage), 0.0 if is_first else current.seconds
        timeout_s = self._timeout_s(run, current.stage)
        if timeout_s is not None and current.seconds - slot.stage_since_s > timeout_s:
            return "timeout"
        if self._is_storm(slot, run):
            return "storm"
        return "full" if self._quota.is_over(run.visit.workflow, run.visit.request_id) else ""

    def report(self, run: Run, stage: Stage, exit_: Exit, verdict: str) -> ErrorReport:
        """The failure of what ran when the executor ended, by a verdict or without one."""
        handler, output = run.handler(stage), exit_.output
        if verdict == "full":
            return self._quota.report(handler, output)
        if verdict == "storm":
            message = f"it has more than {isolation.TASKS_MAX} processes, which is the most that an executor may have"
            return ErrorReport(
                class_="exception", type="TooManyProcesses", message=message, handler=handler, output=output
            )
        if verdict == "timeout":
            own = run.visit.definitions.handlers[handler].timeout_s is not None
            setting = f"timeout_s of handler {handler}" if own else "MR_HANDLER_TIMEOUT_S"
            message = f"still running after {self._timeout_s(run, stage):g} s ({setting})"
            return ErrorReport(class_="timeout", type="Timeout", message=message, handler=handler, output=output)
        class_ = "lost_worker" if exit_.class_ == "killed" else exit_.class_
        return ErrorReport(class_=class_, type="ExecutorDied", message=exit_.detail, handler=handler, output=output)

    def _is_storm(self, slot: Slot, run: Run) -> bool:
        now = time.monotonic()
        if now - max(self._counted.get(slot.number, 0.0), run.started) < COUNT_S or not run.executor.alive:
            return False
        self._counted[slot.number] = now
        return len(below(run.executor.pid, isolation.TASKS_MAX + 1)) > isolation.TASKS_MAX

    def _timeout_s(self, run: Run, stage: Stage) -> float | None:
        """How long the handler of a stage may run: what its header says, else the settings; None: for ever."""
        own = run.visit.definitions.handlers[run.handler(stage)].timeout_s
        return own if own is not None else self._settings.timeout_s
