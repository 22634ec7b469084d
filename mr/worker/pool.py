"""The pool: a slot for each executor, and one warm spare, so that replacing an executor costs no start-up.

A worn executor (`wear`) leaves its slot between two runs, and the spare takes it at once.

A handler that ended an executor is **suspect** for a while: all suspects together get one slot at a time, and one that
ends one executor after the other waits before its next, longer each time. A new executor costs as much as thousands of
invocations; without that, a handler that always dies would have all of them start anew all the time.

And a handler waits until the executor that clears up after it is done: the processes that it has left may take a tenth
of a second to end, in which its next request would be on the next executor, and so on, until there is none for others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from mr.addresses import FileSystemUrl
from mr.model.language import Language
from mr.services.isolation import Cgroup
from mr.settings import HandlerSettings, Settings
from mr.worker.case import Slot
from mr.worker.executor_process import ExecutorGone, ExecutorProcess
from mr.worker.exit import Exit
from mr.worker.leftovers import remove_leftovers
from mr.worker.log import Hooks
from mr.worker.run import Run
from mr.worker.stock import Stock

_log = logging.getLogger(__name__)

START_AGAIN_S = 1.0
CLOSE_S = 5.0
VOID_S = 0.1
CLEAR_UP_S = 5.0
"""An executor gives up clearing up after two."""
SUSPECT_S = 30.0
SUSPECTS_MAX = 1000
PAUSE_FIRST_S = 0.02
PAUSE_MAX_S = 2.0

Spawn = Callable[[Coroutine[Any, Any, None]], object]


def hooks_of(settings: Settings) -> Hooks:
    """What handlers may use to tell people something."""
    notices = settings.notice
    return Hooks(
        log=settings.handlers.log_level,
        notify=notices.email or notices.http or bool(notices.services),
        email=notices.email_level if notices.email else None,
        http=notices.http_level if notices.http else None,
    )


class Suspect(msgspec.Struct, frozen=True):
    """A handler that ended `deaths` executors: until when it is suspect, and from when it may run again."""

    deaths: int
    until: float
    start: float


class Pool:
    """`on_exit` is told of an executor that ended with work in hand, `on_free` when a slot can work (again)."""

    def __init__(
        self,
        size: int,
        handlers: HandlerSettings,
        environ: Mapping[str, str],
        languages: Mapping[str, Language],
        stock: Stock,
        hooks: Hooks,
        *,
        file_system: FileSystemUrl | None,
        spawn: Spawn,
        on_exit: Callable[[Slot, Run, Exit], None],
        on_free: Callable[[], None],
    ) -> None:
        self.slots = [Slot(number, stock) for number in range(size)]
        self._handlers, self._environ, self._languages, self._hooks = handlers, environ, languages, hooks
        self._file_system = file_system
        self._spawn, self._on_exit, self._on_free = spawn, on_exit, on_free
        self._cgroup = Cgroup.own()
        self._suspects: dict[str, Suspect] = {}
        self._spare: ExecutorProcess | None = None
        self._all: set[ExecutorProcess] = set()
        self._is_closing = False

    async def start(self) -> None:
        """Start all executors, once what killed supervisors left is gone. Raises: ConfigError, ExecutorGone."""
        level = self._cgroup.prepare()
        beyond = f" ({level.reason})" if level.reason else ""
        _log.info("executors: memory by %s, processes by %s%s", level.memory, level.processes, beyond)
        await asyncio.to_thread(remove_leftovers, self._cgroup)
        for slot in self.slots:
            slot.executor = await self._start_one()
        self._spawn(self._keep_spare())

    def free(self) -> Slot | None:
        """A slot that can begin a piece of work."""
        return next((slot for slot in self.slots if slot.is_free), None)

    def suspect(self, version: str) -> None:
        """A mapper, or what ran with it, has ended an executor."""
        now = asyncio.get_running_loop().time()
        before = self._suspects.pop(version, None)
        deaths = before.deaths + 1 if before is not None and now < before.until else 1
        pause_s = min(PAUSE_FIRST_S * 2**deaths, PAUSE_MAX_S) if deaths > 1 else 0.0
        self._suspects[version] = Suspect(deaths, now + SUSPECT_S, now + pause_s)
        if len(self._suspects) > SUSPECTS_MAX:
            del self._suspects[next(iter(self._suspects))]

    def may_run(self, version: str | None) -> bool:
        """Whether work of this mapper may begin now; None stands for a reduce."""
        if version is None:
            return True
        if any(slot.version == version and slot.run is not None and slot.run.is_told for slot in self.slots):
            return False
        if not self._suspects:
            return True
        now = asyncio.get_running_loop().time()
        suspect = self._suspect(version, now)
        if suspect is None:
            return True
        return now >= suspect.start and not any(
            slot.case is not None and self._suspect(slot.version, now) for slot in self.slots
        )

    def is_suspect(self, version: str) -> bool:
        """Whether a mapper has ended an executor lately."""
        return bool(self._suspects) and self._suspect(version, asyncio.get_running_loop().time()) is not None

    def _suspect(self, version: str | None, now: float) -> Suspect | None:
        found = self._suspects.get(version) if version is not None else None
        return found if found is not None and now < found.until else None

    def void(self, slot: Slot) -> None:
        """What runs on a slot is of no use: it is stopped, and killed if it does not end by itself at once."""
        if slot.run is not None and slot.executor is not None and not slot.verdict:
            slot.run.void()
            slot.verdict = "void"
            slot.executor.stop_after_current()
            asyncio.get_running_loop().call_later(VOID_S, self._kill_if_still, slot, slot.run)

    def _kill_if_still(self, slot: Slot, run: Run, has_waited: bool = False) -> None:
        if slot.run is not run or slot.executor is None:
            return
        if run.is_told and not has_waited:
            # It clears up after a handler that left processes, as it does after a request that failed: let it.
            asyncio.get_running_loop().call_later(CLEAR_UP_S, self._kill_if_still, slot, run, True)
        else:
            self._spawn(self._retire(slot.executor))

    def after(self, slot: Slot, run: Run) -> None:
        """A run on a slot is over: replace its executor if it is worn."""
        executor = slot.executor
        if executor is None or self._is_closing:
            return
        executor.wear.add(run.children, run.left)
        now = asyncio.get_running_loop().time()
        if executor.wear.wants_look(now):
            executor.wear.look(now, executor.resident_bytes(), executor.handlers)
        has_spare = self._spare is not None and self._spare.alive
        if why := executor.wear.urgent() or (executor.wear.due(now) if has_spare else ""):
            _log.info("executor %d is replaced: %s", executor.pid, why)
            slot.executor = None
            self._spawn(self._retire(executor))
            self._spawn(self._replace(slot))

    async def _retire(self, executor: ExecutorProcess) -> None:
        with suppress(ExecutorGone):  # it has not begun yet
            await executor.kill()
            self._all.discard(executor)

    def refuse_more(self) -> None:
        """Replace no executor any more."""
        self._is_closing = True

    async def close(self) -> None:
        """End all executors, also those that are being replaced, or have only just begun."""
        self._is_closing = True
        deadline = asyncio.get_running_loop().time() + CLOSE_S
        while self._all and asyncio.get_running_loop().time() < deadline:
            for executor in list(self._all):
                await self._retire(executor)
            await asyncio.sleep(0.01)

    async def _start_one(self) -> ExecutorProcess:
        executor = ExecutorProcess(
            on_exit=lambda exit_: self._ended(executor, exit_),
            environ=self._environ,
            memory_bytes=int(self._handlers.memory_bytes),
            output_bytes=int(self._handlers.output_max_bytes),
            languages=self._languages,
            hooks=self._hooks,
            file_system=self._file_system,
            cgroup=self._cgroup,
        )
        self._all.add(executor)
        try:
            await executor.start()
        except BaseException:
            self._all.discard(executor)
            raise
        return executor

    async def _keep_spare(self) -> None:
        while self._spare is None and not self._is_closing:
            try:
                self._spare = await self._start_one()
            except (ExecutorGone, OSError) as error:
                self._complain("a spare executor", error)
                await asyncio.sleep(START_AGAIN_S)

    def _ended(self, executor: ExecutorProcess, exit_: Exit) -> None:
        self._all.discard(executor)
        if executor is self._spare:
            self._spare = None
            self._spawn(self._keep_spare())
            return
        slot = next((slot for slot in self.slots if slot.executor is executor), None)
        if slot is None:
            return
        slot.executor = None
        if slot.run is not None:
            self._on_exit(slot, slot.run, exit_)
        self._spawn(self._replace(slot))

    def _complain(self, what: str, error: Exception) -> None:
        if not self._is_closing:  # at the end even those are killed that have only just begun
            _log.error("%s does not start: %s", what, error)

    async def _replace(self, slot: Slot) -> None:
        if self._spare is not None and self._spare.alive and not self._is_closing:
            slot.executor, self._spare = self._spare, None
            self._spawn(self._keep_spare())
        while slot.executor is None and not self._is_closing:
            try:
                slot.executor = await self._start_one()
            except (ExecutorGone, OSError) as error:
                self._complain("an executor", error)
                await asyncio.sleep(START_AGAIN_S)
        self._on_free()
