"""One whole mr for each pair of backends, alive for all tests; each test has a workflow of its own."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from tests.acceptance.service import Process, Service

_NUMBERS = itertools.count(1)
_NUMBER = re.compile(r"JX_(\d+)")


class Shared(Service):
    """The mr of all tests: a front end, a general worker, and one that only offers `gpu`. Nothing is removed."""

    front_end: Process
    general: Process
    gpu: Process


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test runs on SQLite alone, on etcd and nsqd, and, where it is marked or all are asked for, on etcd v2 and nsqd.

    Few are marked: on the third pair only a store without transactions is new, and all of it takes its time. A test
    that names its pairs itself has those.
    """
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "pair" in named:
        return
    every = metafunc.config.getoption("--every-pair") or metafunc.definition.get_closest_marker("third_pair")
    for name in {"pair", "tidy"} & set(metafunc.fixturenames):
        pairs = ["embedded", "cluster", *(["etcd2"] if every else [])]
        metafunc.parametrize(name, pairs, indirect=True, scope="session" if name == "pair" else "module")


@pytest.fixture(scope="session")
def pair(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """An mr on one of the pairs of backends."""
    with Shared(request.param, {"MR_DO_CLEANUP_REQUESTS": "0"}) as service:
        with service.web() as web, service.worker("general") as general, service.worker("gpu", MR_EXECUTORS="1") as gpu:
            service.front_end, service.general, service.gpu = web, general, gpu
            yield service


@pytest.fixture
def w(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of the test's own workflow, which goes after the test."""
    service = next((request.getfixturevalue(name) for name in ("pair", "tidy") if name in request.fixturenames), None)
    found = _NUMBER.search(request.node.name)
    name = f"{'jx' + found[1] if found else 'w'}-{next(_NUMBERS)}"
    yield name
    if service is not None:
        service.forget(name)
