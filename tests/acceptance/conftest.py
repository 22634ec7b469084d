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


@pytest.fixture(scope="session", params=["embedded", "cluster"])
def pair(request: pytest.FixtureRequest) -> Iterator[Shared]:
    """SQLite alone, then etcd and nsqd."""
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
