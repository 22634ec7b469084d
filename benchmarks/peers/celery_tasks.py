"""Celery's tasks and its settings, chosen by trying: fast, and on the durable Redis that the benchmark starts."""

# It is installed with the peers only, and brings no types.
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,unused-ignore"

from __future__ import annotations

import os

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
app.conf.update(
    # Prefetched tasks cost a restart nothing but time, and save round trips.
    worker_prefetch_multiplier=int(os.environ["BENCH_PREFETCH"]),
    worker_send_task_events=False,
    worker_disable_rate_limits=True,
    task_store_eager_result=False,
    broker_connection_retry_on_startup=True,
)


@app.task
def square(number: int) -> int:
    return number * number


@app.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task
def total_of_chunks(chunks: list[list[int]]) -> int:
    return sum(map(sum, chunks))
