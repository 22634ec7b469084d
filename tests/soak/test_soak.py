"""Three minutes of mixed jobs under kills; `python -m tests.soak --minutes 60` is the long one, with `several` too."""

from __future__ import annotations

import pytest

from tests.soak import soak

pytestmark = [pytest.mark.kills, pytest.mark.slow]

MINUTES = 1.5
SEED = 4


@pytest.mark.parametrize("pair", ["embedded", "cluster"])
def test_every_request_ends_once_and_rightly_whatever_dies(pair: str) -> None:
    outcome = soak.run(pair, MINUTES, SEED)
    print(outcome)
    assert not outcome.problems, str(outcome)
    assert outcome.hits >= 5
    assert outcome.requests >= 100
