"""What remains of finished requests: JX-88, JX-89, and sessions that die with them (JX-78)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mr.rules import keys
from tests.acceptance.conftest import Shared
from tests.acceptance.service import Service, eventually
from tests.acceptance.sources import ALL, FLAT, mapper, reducer

STEPS = {
    "start": (mapper("yield MrConfigureToMap('leaf')\nS_SET('b', 1)\nfor n in range(300): yield 'n', n"), FLAT),
    "leaf": (
        mapper("yield MrConfigureToReturn()\nS_SET('a', 'kept')\nfor k, v in arguments: yield k, v"),
        reducer("for k, v in results: yield k, v", capability="gpu"),
    ),
    "bad": (mapper("yield MrConfigureToReturn()\nyield 1, 1\nraise ValueError('no')"), ALL),
    "big": (mapper("yield MrConfigureToReturn()\nfor n in range(10): yield n, 'x' * 100_000"), ALL),
}
JOBS = ("job", "bad", "big")


@pytest.fixture(scope="module")
def tidy(request: pytest.FixtureRequest) -> Iterator[Service]:
    """An mr that removes finished requests a second after their end."""
    with Service(request.param, {"MR_CLEANUP_MANDATORY_QUIET_PERIOD_S": "1"}) as service:
        with service.web(), service.worker("general,gpu"):
            yield service


@pytest.mark.third_pair
@pytest.mark.parametrize("blocking", ["true", "false"])
def test_JX_88_no_key_of_a_finished_request_remains_after_the_quiet_period(
    tidy: Service, w: str, blocking: str
) -> None:
    tidy.define(w, STEPS)
    for job in JOBS[1:]:
        tidy.parts.registry.create_job(w, job, "", job)
    requests = []
    for job in JOBS:
        requests.append(tidy.post(w, job=job, blocking=blocking).request_id)

    def remains() -> list[str]:
        return [key for key in tidy.entries("") if any(r in key for r in requests)]

    assert remains()
    eventually(lambda: not remains(), "every key of the requests is gone")
    for r in requests:
        assert tidy.ask("GET", f"/request/{w}/{r}/result").status == 404
    # What the workflow defines is still there.
    assert tidy.post(w).status == 200


def test_JX_89_nothing_is_removed_when_cleaning_is_off(pair: Shared, w: str) -> None:
    """The pair runs with MR_DO_CLEANUP_REQUESTS=0; the other test shows how soon it would be gone."""
    pair.define(w, STEPS)
    reply = pair.post(w)
    request = pair.request(w, reply.request_id)
    assert request.due_at is None
    assert not [key for key in pair.entries(keys.DUE) if reply.request_id in key]
    assert len(pair.entries(keys.sessions(w, reply.request_id))) == 301
    tree = pair.parts.tracing.tree(w, reply.request_id)
    assert (tree.total, tree.done) == (301, 301)


@pytest.mark.third_pair
def test_JX_78_sessions_go_with_their_request(tidy: Service, w: str) -> None:
    tidy.define(w, STEPS)
    r = tidy.post(w).request_id
    assert tidy.entries(keys.sessions(w, r))
    eventually(lambda: not tidy.entries(keys.sessions(w, r)), "the sessions are gone")
