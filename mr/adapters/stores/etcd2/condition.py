"""How the members of an etcd are of which v2 is used: version, the v2 API, leader, clock."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from mr.adapters.stores.etcd2.cluster import Cluster, Trouble, Unreached
from mr.errors import MrError, StoreUnavailable
from mr.model.condition import Condition, broken, doubtful, fine
from mr.rules import condition

OLDEST = (2, 3, 0)
"""Before it no time to live could be refreshed, and so no lease be kept."""
WITHOUT = (3, 6, 0)
"""From here on no etcd has the v2 API any more."""


def conditions(cluster: Cluster) -> list[Condition]:
    """The conditions of every member that is named in the settings, and what v2 means for mr."""
    found: list[Condition] = []
    silent: dict[str, str] = {}
    for number, name in enumerate(cluster.names):
        try:
            found += _member(cluster, number, name)
        except (Unreached, Trouble, MrError) as error:
            silent[name] = str(error)
    for name, message in silent.items():
        make = doubtful if len(silent) < len(cluster.names) else broken
        found.append(make(f"etcd {name}", message, f"see whether etcd runs and listens at {name}"))
    return found


def _member(cluster: Cluster, number: int, name: str) -> Iterator[Condition]:
    asked_at = time.time()
    answer = cluster.call_one(number, lambda client: client.api_execute("/version", "GET"))
    yield version(f"etcd {name}", str(_json(answer).get("etcdserver", "")))
    ahead_s = condition.ahead(answer.headers.get("Date"), asked_at, time.time())
    if ahead_s is not None:
        yield condition.clock(f"etcd {name} clock", ahead_s)
    subject = f"etcd {name} v2"
    try:
        cluster.call_one(number, lambda client: client.read("/", quorum=True))
    except StoreUnavailable as error:
        yield broken(subject, error.message, error.hint)
    except Trouble as error:
        yield broken(subject, f"no write can be agreed on: {error}", "see whether most members of etcd run")
    else:
        yield fine(subject, "served; no transactions: no resume, and a cancelled request may leave strays")


def version(subject: str, text: str) -> Condition:
    """Whether a version of etcd has a v2 API to work with."""
    numbers = condition.version(text)
    if numbers is None:
        return doubtful(subject, f"answers, version {text!r}", "expected a version such as 3.4.23")
    if numbers < OLDEST:
        return broken(subject, f"answers, version {text}, which is too old", "upgrade it to 2.3 or newer")
    if numbers >= WITHOUT:
        return broken(subject, f"answers, version {text}, which has no v2 API", "use etcd3://")
    return fine(subject, f"answers, version {text}")


def _json(answer: Any) -> dict[str, Any]:
    try:
        found = json.loads(answer.data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
