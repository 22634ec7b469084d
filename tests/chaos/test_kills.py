"""Every kind of kill, twice on each pair; `python -m tests.chaos` does it more often, and with other seeds.

With several servers of each kind only those kinds are tried that the servers are the victims of.

One deployment of a pair survives all of it, as a deployment has to; after a failure the next test gets a new one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos import jobs, report, trial
from tests.chaos.deployment import PAIRS, Deployment
from tests.chaos.kills import KINDS
from tests.chaos.trial import Record

pytestmark = [pytest.mark.kills, pytest.mark.slow]

SEED = 20
TIMES = 2


class Survivor:
    """The deployment of a pair, how long jobs take on it undisturbed, and the records of all trials so far."""

    def __init__(self, pair: str) -> None:
        self.pair = pair
        self.records: list[Record] = []
        self.usual_s: dict[str, float] = {}
        self._deployment: Deployment | None = None

    def deployment(self) -> Deployment:
        """The one that stands, or a new one where something is wrong with it."""
        if self._deployment is not None and self._deployment.keep:
            self.leave()
        if self._deployment is None:
            self._deployment = Deployment(self.pair)
            self._deployment.__enter__()
            for job in jobs.JOBS:
                record = self.note(trial.undisturbed(self._deployment, job, SEED))
                assert record.took_s is not None
                self.usual_s[job] = record.took_s
        return self._deployment

    def note(self, record: Record) -> Record:
        """Keep a record, print it, and fail where it has problems."""
        self.records.append(record)
        print(record)
        assert not record.problems, str(record)
        return record

    def strike_twice(self, kind: str) -> None:
        """Two trials, one of each job."""
        for number in range(TIMES):
            self.note(trial.run(self.deployment(), kind, number, SEED, self.usual_s))

    def leave(self) -> None:
        """End it, whatever state it is in."""
        deployment, self._deployment = self._deployment, None
        if deployment is not None:
            deployment.__exit__(None, None, None)


@pytest.fixture(scope="module")
def embedded() -> Iterator[Survivor]:
    """One SQLite file."""
    yield from _survivor("embedded")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Survivor]:
    """etcd and nsqd."""
    yield from _survivor("cluster")


@pytest.fixture(scope="module")
def several() -> Iterator[Survivor]:
    """Three members of etcd, two nsqd, and nsqlookupd."""
    yield from _survivor("several")


def _survivor(pair: str) -> Iterator[Survivor]:
    found = Survivor(pair)
    try:
        yield found
        print(f"\n{report.table(found.records)}")
    finally:
        found.leave()


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if "embedded" in kind.pairs])
def test_embedded_a_job_survives_and_yields_each_token_once(embedded: Survivor, kind: str) -> None:
    embedded.strike_twice(kind)


def test_embedded_a_deployment_that_survived_ends_in_order_and_leaves_nothing(embedded: Survivor) -> None:
    assert embedded.deployment().end() == []


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if "cluster" in kind.pairs])
def test_cluster_a_job_survives_and_yields_each_token_once(cluster: Survivor, kind: str) -> None:
    cluster.strike_twice(kind)


def test_cluster_a_deployment_that_survived_ends_in_order_and_leaves_nothing(cluster: Survivor) -> None:
    assert cluster.deployment().end() == []


@pytest.mark.parametrize(
    "kind", [name for name, kind in KINDS.items() if kind.pairs != PAIRS and "several" in kind.pairs]
)
def test_several_a_job_survives_and_yields_each_token_once(several: Survivor, kind: str) -> None:
    several.strike_twice(kind)


def test_several_a_deployment_that_survived_ends_in_order_and_leaves_nothing(several: Survivor) -> None:
    assert several.deployment().end() == []
