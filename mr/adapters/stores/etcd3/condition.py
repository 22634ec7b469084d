"""How etcd is, member by member: version, quota, compaction, alarms, clock.

What etcd says of itself is in two places: its maintenance service, through the gateway, and the metrics on the same
port, which are plain text and carry the `Date` of the server. Sites may close the metrics; what only they tell is
then left out and said to be unknown.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

import msgspec
import urllib3

from mr.adapters.stores.etcd3 import json, methods
from mr.adapters.stores.etcd3.cluster import Cluster
from mr.adapters.tls import security
from mr.addresses import Tls
from mr.errors import MrError
from mr.model.condition import Condition, broken, doubtful, fine
from mr.rules import condition

OLDEST = (3, 4, 0)
DAMAGED = ((3, 5, 0), (3, 5, 2))
"""Members of these versions may come to hold different data after a crash."""
KEPT_WARN = 1_000_000
"""So many old revisions, and nobody seems to compact."""

_QUOTA, _NOW = b"etcd_server_quota_backend_bytes", b"etcd_debugging_mvcc_current_revision"
_COMPACTED = b"etcd_debugging_mvcc_compact_revision"


class Measured(msgspec.Struct, frozen=True):
    """What the metrics say: numbers by name, and how far the server's clock is ahead of ours."""

    values: Mapping[bytes, float]
    ahead_s: float | None


def conditions(cluster: Cluster, timeout_s: float) -> list[Condition]:
    """The conditions of every member that is named in the settings."""
    found: list[Condition] = []
    silent: dict[str, str] = {}
    for number, name in enumerate(cluster.names):
        try:
            status = cluster.call(methods.STATUS, {}, only=number)
        except MrError as error:
            silent[name] = str(error)
            continue
        found += _member(name, status, _measure(name, timeout_s, cluster.tls))
    for name, message in silent.items():
        advice = f"see whether etcd runs and listens at {name}"
        make = doubtful if len(silent) < cluster.endpoints else broken
        found.append(make(f"etcd {name}", message, advice))
    if len(silent) < cluster.endpoints:
        with contextlib.suppress(MrError):  # who may not ask for alarms has met that with the status
            found.append(_alarms(cluster))
    return found


def _member(name: str, status: json.StatusAnswer, measured: Measured) -> Iterator[Condition]:
    yield version(f"etcd {name}", status.version)
    quota = int(measured.values.get(_QUOTA, 0))
    subject = f"etcd {name} space"
    if quota > 0:
        free_again = status.db_size - status.db_size_in_use > status.db_size // 2
        compact = "etcdctl defrag gives back what is compacted" if free_again else "remove requests: mr request rm"
        advice = f"{compact}; or raise --quota-backend-bytes (at the quota etcd refuses writes)"
        yield condition.used(subject, status.db_size, quota, advice)
    else:
        yield fine(subject, f"{condition.size(status.db_size)}; its quota is unknown, its metrics are closed")
    if _NOW in measured.values and _COMPACTED in measured.values:
        yield compaction(
            f"etcd {name} compaction", int(measured.values[_NOW]), max(0, int(measured.values[_COMPACTED]))
        )
    if measured.ahead_s is not None:
        yield condition.clock(f"etcd {name} clock", measured.ahead_s)


def version(subject: str, text: str) -> Condition:
    """Whether a version of etcd is one to work with."""
    numbers = condition.version(text)
    if numbers is None:
        return doubtful(subject, f"answers, version {text!r}", "expected a version such as 3.5.17")
    if numbers < OLDEST:
        return broken(subject, f"answers, version {text}, which is too old", "upgrade it to 3.4 or newer")
    if DAMAGED[0] <= numbers <= DAMAGED[1]:
        return broken(
            subject,
            f"answers, version {text}, whose members may come to hold different data after a crash",
            "upgrade it to 3.5.3 or newer, and check: etcdctl endpoint hashkv --cluster",
        )
    return fine(subject, f"answers, version {text}")


def compaction(subject: str, revision: int, compacted: int) -> Condition:
    """Whether somebody forgets the past; `compacted` is the revision up to which it is forgotten, 0 for nothing."""
    kept = revision - compacted
    if kept > KEPT_WARN:
        return doubtful(
            subject,
            f"{kept:,} old revisions are kept, so its file only grows",
            "run a worker, one of which compacts each minute; or etcd --auto-compaction-retention=5m",
        )
    return fine(subject, f"{kept:,} revisions kept")


def _alarms(cluster: Cluster) -> Condition:
    raised = cluster.call(methods.ALARM, {"action": "GET"}).alarms
    if not raised:
        return fine("etcd alarms", "none")
    names = ", ".join(sorted({alarm.alarm for alarm in raised}))
    if "CORRUPT" in names:
        return broken("etcd alarms", names, "members hold different data: take the bad one out and add it anew")
    advice = "make room (mr request rm), etcdctl compact and defrag, then etcdctl alarm disarm"
    return broken("etcd alarms", f"{names}: it refuses writes", advice)


def _measure(name: str, timeout_s: float, tls: Tls | None) -> Measured:
    scheme, context = ("http", None) if tls is None else ("https", security(tls))
    with urllib3.PoolManager(timeout=timeout_s, retries=False, ssl_context=context) as pool:
        asked_at = time.time()
        try:
            answer = pool.request("GET", f"{scheme}://{name}/metrics", redirect=False)
        except (urllib3.exceptions.HTTPError, OSError):
            return Measured({}, None)
    values = {}
    for line in answer.data.splitlines() if answer.status == 200 else ():
        key, _, number = line.partition(b" ")
        if key in (_QUOTA, _NOW, _COMPACTED):
            with contextlib.suppress(ValueError):
                values[key] = float(number)
    return Measured(values, condition.ahead(answer.headers.get("Date"), asked_at, time.time()))
