"""A message: a hint, on the queue, that some work is due. The store is the truth.

The message carries all that a worker needs to run and to climb, so that the hot path reads nothing: the
arguments, and the shape of every level above. It is believed only as far as its MAC goes; without a good one
a worker reads everything from the store, so that whoever can publish can cause work, never choose a result.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec

from mr import codec
from mr.errors import CorruptEntry

FORMAT = 1
_NONE = msgspec.Raw(b"null")


class Level(msgspec.Struct, frozen=True, array_like=True):
    """One manifest on the way from the root: children, children per slice, their step, session values."""

    count: int
    slice: int
    step: str
    session: int = 0
    execution: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """`map`: run the children `from` up to `to` of mapper `p`; `reduce`: reduce `p`; `write`: hand out the result.

    `levels` has the manifest of `-` first and, for `map`, that of `p` last (for `reduce` that of `p` too, if it
    mapped). `args` is a list of datasets, or null when it is too big to travel. `request` is the request's
    record, on its first message only. `again` asks to look at what is there before running anything.
    """

    v: int = FORMAT
    w: str
    r: str
    epoch: int
    set: str
    kind: Literal["map", "reduce", "end", "write"]
    p: str
    from_: int = 0
    to: int = 0
    levels: list[Level] = []
    args: msgspec.Raw = _NONE
    request: msgspec.Raw = _NONE
    again: bool = False
    mac: str = ""

    @property
    def has_args(self) -> bool:
        """Whether the arguments travel with the message."""
        return bytes(self.args) != b"null"


def seal(message: Message, key: bytes) -> bytes:
    """The message as bytes for the queue, with its MAC."""
    plain = codec.encode(message)
    return codec.encode(msgspec.structs.replace(message, mac=_mac(plain, key)))


def unseal(body: bytes, key: bytes) -> Message:
    """A message from the queue. Where the MAC is not ours, everything that could choose a result is dropped.

    Raises: CorruptEntry if the body is no message of a format known here.
    """
    message = codec.decode(body, Message, where="a message")
    if message.v != FORMAT:
        raise CorruptEntry(f"a message of format {message.v}; this version of mr speaks format {FORMAT}")
    plain = codec.encode(msgspec.structs.replace(message, mac=""))
    if hmac.compare_digest(message.mac, _mac(plain, key)):
        return message
    return Message(
        w=message.w, r=message.r, epoch=message.epoch, set="", kind=message.kind, p=message.p,
        from_=message.from_, to=message.to, again=True,
    )  # fmt: skip


def _mac(plain: bytes, key: bytes) -> str:
    return hashlib.blake2b(plain, key=key, digest_size=16).hexdigest()
