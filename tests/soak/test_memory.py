"""Three thousand small requests, after which no process has grown; `python -m tests.soak memory` posts 100,000."""

from __future__ import annotations

import pytest

from tests.soak import memory

pytestmark = pytest.mark.slow

REQUESTS = 3000


@pytest.mark.parametrize("pair", ["embedded", "cluster"])
def test_no_process_goes_on_growing(pair: str) -> None:
    outcome = memory.run(pair, REQUESTS)
    print(outcome)
    assert not outcome.problems, str(outcome)
    assert REQUESTS in outcome.looks
