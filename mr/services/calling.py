"""Calling: the messages of a visit, addressed and sealed.

A message carries the shape of every level above it, so that whoever gets it can climb without reading.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mr.codec import Items
from mr.model import ids
from mr.model.definitions import DefinitionSet
from mr.model.message import Level, Message
from mr.ports.broker import Publication
from mr.rules import keys, limits, routing
from mr.services.unit import Call


class Calling:
    """Makes the messages of one request; `level` says what is settled of a manifest when the message is sealed."""

    def __init__(
        self,
        w: str,
        r: str,
        epoch: int,
        definitions_hash: str,
        definitions: DefinitionSet,
        seal: Callable[[Message], bytes],
        level: Callable[[str], Level],
    ) -> None:
        self._w, self._r, self._epoch, self._set = w, r, epoch, definitions_hash
        self._definitions, self._seal, self._level = definitions, seal, level

    def map(self, p: str, first: int, to: int, args: Items | None) -> Message:
        """Children `first` up to `to` of `p` are to be run; their arguments travel if they are small."""
        raw = args.raw() if args is not None and args.size_bytes <= limits.INLINE_MAX else msgspec.Raw(b"null")
        return Message(
            w=self._w, r=self._r, epoch=self._epoch, set=self._set, kind="map", p=p, from_=first, to=to, args=raw
        )

    def reduce(self, p: str) -> Message:
        """`p` is to be reduced."""
        return Message(w=self._w, r=self._r, epoch=self._epoch, set=self._set, kind="reduce", p=p)

    def call(self, message: Message, unless_others: str | None) -> Call:
        """The message on its way, with the receipts to note for it; called when all levels above are settled."""
        w, r, p = self._w, self._r, message.p
        levels = [self._level(above) for above in ids.ancestors(p if message.kind == "map" else ids.parent(p)[0])]
        step = levels[-1].step
        if message.kind == "map":
            topic = routing.topic(w, "map", self._definitions.mapper(step).capability)
            size = levels[-1].slice
            numbers = range(message.from_ // size, (message.to - 1) // size + 1)
            receipts = [keys.receipt(w, r, p, number) for number in numbers]
        else:
            topic = routing.topic(w, "reduce", self._definitions.reducer(step).capability)
            levels.append(self._level(p))
            receipts = [keys.receipt(w, r, p)]
        publication = Publication(topic, self._seal(msgspec.structs.replace(message, levels=levels)))
        return Call(publication=publication, receipts=receipts, unless_others=unless_others)
