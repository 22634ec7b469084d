"""The simulated world: one thread, many greenlets, one seed that decides everything.

A process is a set of greenlets that die together and forget everything. Every call of a port is a switch point:
the scheduler may resume another greenlet, let time pass, kill the process right there, or stop it for a while so
that it wakes up late and does not know.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import greenlet

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
STEPS_MAX = 300_000
LOOK_EVERY = 10
"""Turns between two looks at the condition that is waited for; the looks would cost more than the turns."""
RARE = {
    "publish.before": 6.0, "publish.after": 12.0, "finish.before": 6.0, "finish.after": 4.0,
    "read.after": 6.0, "backlog": 80.0, "write.before": 20.0, "write.after": 50.0,
    "blob.before": 20.0, "blob.after": 40.0,
}  # fmt: skip
"""How much likelier a kill is where processes seldom are."""


class Died(BaseException):
    """Thrown into the greenlets of a process that is killed."""


class Stuck(Exception):
    """The simulation did not come to an end."""


class Process:
    """A simulated process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.stopped_until = 0.0
        self.tasks: list[_Task] = []

    @property
    def is_done(self) -> bool:
        """Whether all its greenlets came to their end."""
        return all(task.greenlet.dead for task in self.tasks)


class _Task:
    def __init__(self, process: Process, body: Callable[[], None], world: World) -> None:
        self.process = process
        self.wake_at = world.time
        self.label = "start"
        self.greenlet = greenlet.greenlet(lambda: _live(body), parent=world.hub)


def _live(body: Callable[[], None]) -> None:
    try:
        body()
    except Died:
        pass


class Faults:
    """Which faults a seed has, and how likely each is at an occasion."""

    KINDS = (
        "crash", "stop", "loss", "duplicate", "delay", "unknown_applied", "unknown_not_applied",
        "unknown_applied_later", "executor_death", "wipe", "store_away",
    )  # fmt: skip

    def __init__(self, rng: random.Random) -> None:
        chosen = [kind for kind in self.KINDS if rng.random() < 0.45]
        self.rates = {kind: rng.choice((0.003, 0.01, 0.03)) for kind in chosen}
        if "loss" in self.rates:
            self.rates["loss"] = rng.choice((0.1, 0.4))
        for kind in ("duplicate", "delay"):
            if kind in self.rates:
                self.rates[kind] = rng.choice((0.1, 0.3))
        if "executor_death" in self.rates:
            self.rates["executor_death"] = rng.choice((0.02, 0.08))
        if "wipe" in self.rates:
            self.rates["wipe"] = 0.002


class World:
    """Clock, scheduler and dice. `hits` counts faults and crashes by the place where they struck."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.time = 1000.0
        self.hub = greenlet.getcurrent()
        self.rates: dict[str, float] = {}
        self.hits: Counter[str] = Counter()
        self.crashed_at: Counter[str] = Counter()
        self.faults_total = 0
        self.is_faulty = False
        self.tasks: list[_Task] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.steps = 0

    # Clock
    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.time)

    def monotonic(self) -> float:
        return self.time

    def spawn(self, process: Process, body: Callable[[], None]) -> None:
        task = _Task(process, body, self)
        process.tasks.append(task)
        self.tasks.append(task)

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Do something of the world's own, later."""
        self.later.append((self.time + delay, action))

    def strikes(self, fault: str, weight: float = 1.0) -> bool:
        """Whether the fault happens at this occasion; counted."""
        if self.is_faulty and self.rng.random() < self.rates.get(fault, 0.0) * weight:
            self.hit(fault)
            return True
        return False

    def hit(self, fault: str) -> None:
        self.hits[fault] += 1
        self.faults_total += 1

    def step(self, label: str, seconds: float = 0.0) -> None:
        """A switch point, called by the running greenlet."""
        task = self.task
        task.label = label
        task.wake_at = self.time + seconds
        self.hub.switch()

    def sleep(self, seconds: float) -> None:
        self.step("sleep", seconds)

    @property
    def process(self) -> Process:
        return self.task.process

    def kill(self, process: Process) -> None:
        process.is_alive = False
        for task in process.tasks:
            if task in self.tasks:
                self.tasks.remove(task)
            if task.greenlet and not task.greenlet.dead:
                task.greenlet.throw(Died)

    def run(self, until: Callable[[], bool], seconds: float) -> bool:
        """Let the world turn until the condition holds; False if it does not in that time."""
        deadline = self.time + seconds
        while not until():
            if self.time > deadline:
                return False
            self.steps += LOOK_EVERY
            if self.steps > STEPS_MAX:
                raise Stuck("too many steps")
            for _ in range(LOOK_EVERY):
                self._turn()
        return True

    def _turn(self) -> None:
        self.time += 0.0005
        if self.later:
            due = [action for at, action in self.later if at <= self.time]
            self.later = [pair for pair in self.later if pair[0] > self.time]
            for action in due:
                action()
        ready = [t for t in self.tasks if t.wake_at <= self.time and t.process.stopped_until <= self.time]
        if not ready:
            moments = [max(t.wake_at, t.process.stopped_until) for t in self.tasks] + [at for at, _ in self.later]
            self.time = max(self.time, min(moments)) if moments else self.time + 1.0
            return
        task = ready[self.rng.randrange(len(ready))] if len(ready) > 1 else ready[0]
        if task.process.name.startswith("worker") or task.process.name.startswith("front"):
            # Where nothing is in hand a crash tells little, and the rare places need a heavier hand.
            is_dull = task.label in ("idle", "house", "start", "take")
            weight = 0.1 if is_dull else RARE.get(task.label, 1.0)
            if self.strikes("crash", weight):
                self.crashed_at[task.label] += 1
                self.kill(task.process)
                return
            if self.strikes("stop", 0.1 if is_dull else 1.0):
                task.process.stopped_until = self.time + self.rng.choice((0.3, 4.0, 12.0, 60.0))
                return
        self.task = task
        task.greenlet.switch()
        if task.greenlet.dead and task in self.tasks:
            self.tasks.remove(task)
