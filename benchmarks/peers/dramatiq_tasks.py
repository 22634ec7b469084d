"""Dramatiq's actors: one message per item, results and counting in Redis, a message for the reduce.

Its own `group` with a barrier takes one round trip more per item, so it is not used: an item writes its result and
learns how many there are in one pipeline, and who sees the last one sends the reduce. Written again after a
redelivery, a result stays one result.
"""

# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,no-untyped-call,unused-ignore"

from __future__ import annotations

import os

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries

KEEP_S = 86400

# Only the middleware that the promise needs: the default set costs time for limits that nobody uses here.
dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"], middleware=[Retries()]))
store = redis.Redis.from_url(os.environ["BENCH_REDIS"])


@dramatiq.actor
def square(job: str, number: int, count: int) -> None:
    with store.pipeline(transaction=False) as pipeline:
        pipeline.hset(job, str(number), str(number * number))
        pipeline.hlen(job)
        done = pipeline.execute()[1]
    if done == count:
        total.send(job)


@dramatiq.actor
def total(job: str) -> None:
    answer = sum(int(value) for value in store.hvals(job))
    with store.pipeline(transaction=False) as pipeline:
        pipeline.expire(job, KEEP_S)
        pipeline.rpush(f"{job}:answer", str(answer))
        pipeline.expire(f"{job}:answer", KEEP_S)
        pipeline.execute()
