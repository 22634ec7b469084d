"""A thousand clients that wait; `python -m tests.load` does it with ten thousand."""

from __future__ import annotations

import pytest

from tests.load import trial

pytestmark = pytest.mark.slow

CLIENTS = 1000


@pytest.mark.parametrize("pair", trial.PAIRS)
def test_every_client_that_waits_gets_its_own_answer(pair: str) -> None:
    outcome = trial.run(pair, CLIENTS)
    print(outcome)
    assert not outcome.problems, str(outcome)
    assert outcome.answers[200] == CLIENTS
    # Each costs its stacks: of Python, of C, and in the kernel.
    assert outcome.memory_mb - outcome.memory_before_mb < CLIENTS * 0.05, str(outcome)
