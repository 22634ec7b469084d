"""Celery behind Flask: a chord for a few numbers, chunks of 100 in a chord for many.

`follow_parents=False`: the chord's own result carries a failure of its parts, and asking for each part again while
waiting costs a third of the time.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,unused-ignore"

from __future__ import annotations

from collections.abc import Mapping

from celery import chord

from benchmarks.peers.celery_tasks import square, total, total_of_chunks
from benchmarks.peers.front import WAIT_S, create_app

CHUNK = 100


def each(arguments: Mapping[str, int]) -> int:
    return chord([square.s(number) for number in arguments.values()])(total.s()).get(
        timeout=WAIT_S, follow_parents=False
    )


def many(arguments: Mapping[str, int]) -> int:
    header = square.chunks(((number,) for number in range(arguments["count"])), CHUNK).group()
    return chord(header)(total_of_chunks.s()).get(timeout=WAIT_S, follow_parents=False)


app = create_app({"two": each, "each": each, "many": many})
