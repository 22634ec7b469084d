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
from mr.services.work import MapWork, Work


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

    def write(self) -> Message:
        """The result is to be handed out by a writer."""
        return Message(w=self._w, r=self._r, epoch=self._epoch, set="", kind="write", p=ids.ROOT)

    def call(self, message: Message, unless_others: str | None) -> Call:
        """The message on its way, with the receipts to note for it; called when all levels above are settled."""
        w, r, p = self._w, self._r, message.p
        if message.kind == "write":
            publication = Publication(routing.write_topic(w), self._seal(message))
            return Call(publication=publication, receipts=[keys.receipt_of_write(w, r)], unless_others=unless_others)
        levels = [self._level(above) for above in ids.ancestors(p if message.kind == "map" else ids.parent(p)[0])]
        step = levels[-1].step
        if message.kind == "map":
            topic = routing.topic(w, "map", self._definitions.mapper(step).capability)
            receipts = self._slices(p, message.from_, message.to, levels[-1].slice)
        else:
            topic = routing.topic(w, "reduce", self._definitions.reducer(step).capability)
            levels.append(self._level(p))
            receipts = [keys.receipt(w, r, p)]
        publication = Publication(topic, self._seal(msgspec.structs.replace(message, levels=levels)))
        return Call(publication=publication, receipts=receipts, unless_others=unless_others)

    def receipts(self, work: Work) -> list[str]:
        """The receipts of what a message had asked for, now that it is run as this work."""
        if isinstance(work, MapWork):
            return self._slices(work.p, work.first, work.to, self._level(work.p).slice)
        return [keys.receipt(self._w, self._r, work.p)]

    def _slices(self, p: str, first: int, to: int, size: int) -> list[str]:
        return [keys.receipt(self._w, self._r, p, number) for number in range(first // size, (to - 1) // size + 1)]
