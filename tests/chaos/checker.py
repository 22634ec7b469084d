"""The checker: is every leaf in the result exactly once, did the request end exactly once, do all sources agree?

It compares what the client was told, the ledger of executions, and the store. It finds problems, and raises none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mr import codec
from mr.errors import WatchLost
from mr.model.request import Request, RequestState
from mr.ports.store import Change, Watch
from mr.rules import keys
from tests.chaos import jobs
from tests.chaos.client import Answer
from tests.chaos.deployment import Deployment
from tests.chaos.ledger import Ledger

DRAIN_S = 5.0


def tokens_problems(answer: Answer) -> Iterator[str]:
    """What is wrong with the multiset that the client got."""
    if answer.status != 200:
        yield f"the front end answered {answer.status}: {str(answer.document)[:300]}"
        return
    pairs: list[tuple[str, Any]] = answer.document["result"]["pairs"]
    wanted = jobs.tokens()
    found: Counter[str] = Counter()
    for token, count in pairs:
        found[token] += count
    yield from _examples("tokens are lost", [token for token in wanted if token not in found])
    yield from _examples("tokens are counted more than once", [token for token in found if found[token] > 1])
    yield from _examples("tokens come out of nowhere", [token for token in found if token not in wanted])
    if len(pairs) != len(found):
        yield f"the result has {len(pairs)} pairs of {len(found)} keys"


def ledger_problems(ledger: Ledger, executions_max: int) -> Iterator[str]:
    """What is wrong with the executions."""
    ledger.read()
    known = set(jobs.paths())
    yield from _examples("leaves are in no line of the ledger", sorted(known - ledger.executions.keys()))
    yield from _examples("leaves of the ledger are not of this job", sorted(ledger.executions.keys() - known))
    often = [path for path, count in ledger.executions.items() if count > executions_max]
    yield from _examples(f"leaves were executed more than {executions_max} times", often)


def store_problems(deployment: Deployment, request_id: str, watch: Watch) -> Iterator[str]:
    """What is wrong with the records of a finished request; `watch` has stood on its key since before its birth."""
    store, w = deployment.parts.store, jobs.WORKFLOW
    ends = [end.value for end in _ends(deployment, request_id, watch)]
    if ends != [RequestState.SUCCEEDED.value]:
        yield f"the request ended {len(ends)} times: {ends}"
    if store.get(keys.active(w, request_id)) is not None:
        yield "the request is over and its fence still stands"
    after = ""
    while True:
        page = store.range(keys.facts(w, request_id), after=after)
        twice = [entry.key for entry in page.entries if entry.created != entry.version]
        yield from _examples("facts were written more than once", twice)
        if not page.more:
            return
        after = page.entries[-1].key


def _ends(deployment: Deployment, request_id: str, watch: Watch) -> Iterator[RequestState]:
    """The state of each final record that the request ever had."""
    key = keys.request(jobs.WORKFLOW, request_id)
    entry = deployment.parts.store.get(key)
    seen = 0
    while entry is not None and seen < entry.version:
        try:
            changes = watch.next(DRAIN_S)
        except WatchLost:  # a store with a short history: its last word is all there is to see
            changes = [Change(key, entry, entry.version)]
        if not changes:
            return
        for change in changes:
            # A watch may say a thing twice; a revision is one write.
            if change.key == key and change.entry is not None and change.revision > seen:
                seen = change.revision
                state = codec.decode(change.entry.value, Request, where=key).state
                if state.is_final:
                    yield state


def _examples(what: str, found: list[str]) -> Iterator[str]:
    if found:
        yield f"{len(found)} {what}, such as {', '.join(found[:3])}"
