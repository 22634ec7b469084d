"""Result writer: where the result of a request goes that its client does not fetch.

It is called by a worker once the result is recorded, and again whenever nobody can say whether it was: after a crash,
a message that came twice, a failed attempt. So the one promise that everything rests on is that a repeat leaves what
a single write would have left.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import msgspec

from mr.codec import Items


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Whose result it is. Names and id follow the rules of `model.names`; `context` is as the client sent it."""

    workflow: str
    job: str
    request_id: str
    context: dict[str, Any] = {}


class ResultWriter(ABC):
    """Writes results. Called from several threads at once, for different requests.

    One that an operator names by its class is made without arguments, when the worker starts.
    """

    name: str
    """What the record of a request calls it."""

    @abstractmethod
    def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any] | None:
        """Write all pairs, in their order; each item is the JSON of `[key, value]`.

        Returns where it went, as a small JSON object that stands in the record of the request, e.g. `{"path": …}`;
        None where there is nothing to tell. The client gets none of it.
        Guarantee: all or nothing can be seen of it, also while it is killed; a repeat for the same request, which
        gets the same pairs, leaves what one write leaves. It should end by itself, whatever it talks to: after
        `MR_RESULT_WRITER_TIMEOUT_S` it is left behind, `pairs` raises TimeoutError, and the write is tried again.
        Raises: what reading `pairs` raises, untouched; anything else is an attempt that failed, and is tried again.
        """
