"""Dramatiq behind Flask: a message for every item, and a blocking read of the answer."""

# mypy: disable-error-code="import-not-found,import-untyped,unused-ignore"

from __future__ import annotations

import uuid
from collections.abc import Mapping

from benchmarks.peers.dramatiq_tasks import square, store
from benchmarks.peers.front import WAIT_S, create_app


def many(arguments: Mapping[str, int]) -> int:
    job, count = uuid.uuid4().hex, arguments["count"]
    for number in range(count):
        square.send(job, number, count)
    answer = store.blpop([f"{job}:answer"], timeout=WAIT_S)
    if answer is None:
        raise TimeoutError(f"no answer within {WAIT_S:g} s")
    return int(answer[1])


app = create_app({"many": many})
