"""What nsqlookupd says: where the topics are, beside the nsqd that the settings name.

It is only asked so that a new nsqd is found while workers run. So its death must change nothing: whatever one
nsqlookupd said last holds until it says something else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
import urllib3

from mr import codec
from mr.errors import CorruptEntry

logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 1.0


class Producer(msgspec.Struct, frozen=True):
    """An nsqd that an nsqlookupd knows, and its topics. A topic whose tombstone is set is not to be consumed there."""

    broadcast_address: str
    tcp_port: int
    topics: list[str] = []
    tombstones: list[bool] = []

    @property
    def address(self) -> tuple[str, int]:
        """Host and TCP port."""
        return self.broadcast_address, self.tcp_port

    def has(self, topic: str) -> bool:
        """Whether the topic is to be consumed there."""
        tombstones = dict(zip(self.topics, self.tombstones, strict=False))
        return topic in self.topics and not tombstones.get(topic, False)


class _Nodes(msgspec.Struct):
    producers: list[Producer] | None = None  # Go writes an empty list as null


class Lookup:
    """Asks every nsqlookupd, given as (host, HTTP port). Used by one thread at a time."""

    def __init__(self, lookupds: Sequence[tuple[str, int]]) -> None:
        timeout = urllib3.Timeout(total=_PATIENCE_S)
        self._pools = [
            urllib3.HTTPConnectionPool(host, port, timeout=timeout, retries=False) for host, port in lookupds
        ]
        self._said: list[list[Producer]] = [[] for _ in lookupds]
        self._problems = [""] * len(lookupds)

    def producers(self) -> list[Producer]:
        """All that are known, perhaps several times; of one that does not answer, what it said last."""
        for number, pool in enumerate(self._pools):
            try:
                response = pool.request("GET", "/nodes")
                if response.status != 200:
                    raise CorruptEntry(f"it answers {response.status}")
                self._said[number] = codec.decode(response.data, _Nodes, where="/nodes").producers or []
                problem = ""
            except (urllib3.exceptions.HTTPError, OSError, CorruptEntry) as error:
                problem = str(error)
            if bool(problem) != bool(self._problems[number]):
                name = f"nsqlookupd {pool.host}:{pool.port}"
                if problem:
                    logger.warning("%s does not answer, what it said last holds: %s", name, problem)
                else:
                    logger.warning("%s answers again", name)
            self._problems[number] = problem
        return [producer for said in self._said for producer in said]

    def close(self) -> None:
        """Let go of connections."""
        for pool in self._pools:
            pool.close()
