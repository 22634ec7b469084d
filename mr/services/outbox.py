"""The outbox of a visit: what the next unit will hold, and what follows once it is durable."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mr.model.message import Message
from mr.services.unit import Call, Fact, Receipted, Unit


class Outbox:
    """Collects facts, counts and messages; one unit is under way at a time."""

    def __init__(self) -> None:
        # In the order in which they may be committed: manifests from the top, results, reduces that are due.
        self._manifests: list[tuple[int, Fact]] = []
        self._facts: list[Fact] = []
        self._dues: list[Fact] = []
        self._messages: list[tuple[Message, str | None]] = []
        self._counts: dict[str, Callable[[int], None]] = {}
        self._written: dict[str, Callable[[], None]] = {}
        # What follows from the unit under way; the next one may ask for the same counts meanwhile.
        self._counting: dict[str, Callable[[int], None]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit or to publish."""
        return not (self._manifests or self._facts or self._dues or self._messages or self._counts)

    def manifests(self, *facts: tuple[int, Fact]) -> None:
        """Facts that stand before everything below their depth."""
        self._manifests += facts

    def fact(self, fact: Fact) -> None:
        """A result, a part, an attempt."""
        self._facts.append(fact)

    def facts(self, facts: Iterable[Fact]) -> None:
        """Several of them."""
        self._facts += facts

    def due(self, fact: Fact, then: Callable[[], None] | None = None) -> None:
        """A reduce is due; `then` follows if this execution was the first to record it."""
        self._dues.append(fact)
        if then is not None:
            self._written[fact.key] = then

    def count(self, prefix: str, then: Callable[[int], None]) -> None:
        """Count the keys below prefix after the writes."""
        self._counts[prefix] = then

    def message(self, message: Message, *, unless_others: str | None = None) -> None:
        """Publish once everything is durable; not if another execution had written the key `unless_others`."""
        self._messages.append((message, unless_others))

    def drop_what_follows(self) -> None:
        """Keep the facts; nothing is to follow from them any more."""
        self._messages, self._counts = [], {}

    def take(self, unit: Unit, call: Callable[[Message, str | None], Call]) -> Unit:
        """Fill the unit, and start anew."""
        facts = [fact for _, fact in sorted(self._manifests, key=lambda pair: pair[0])] + self._facts + self._dues
        unit.facts.extend(facts)
        unit.counts.extend(self._counts)
        unit.calls.extend(call(message, unless_others) for message, unless_others in self._messages)
        self._counting = self._counts
        self._manifests, self._facts, self._dues, self._messages, self._counts = [], [], [], [], {}
        return unit

    def committed(self, unit: Unit, receipt: Receipted) -> None:
        """The unit is durable: let follow what follows."""
        for fact in unit.facts:
            then = self._written.pop(fact.key, None)
            if then is not None and fact.key not in receipt.others:
                then()
        counting, self._counting = self._counting, {}
        for prefix, counted in counting.items():
            counted(receipt.counts[prefix])
