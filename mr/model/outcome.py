"""What an executor made of the work that it was given: plain values between supervisor and services.

Data is `Items` where it is small, `Chunks` where it was staged beside the records while it streamed.
"""

from __future__ import annotations

from array import array

import msgspec

from mr.codec import Items
from mr.model.dataset import Chunks
from mr.model.invocation import ErrorReport

Data = Items | Chunks


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive children that returned data and were reduced at once: one dataset each.

    `first` is the number of the first child; `us` how long each ran, in microseconds.
    """

    first: int
    items: Items
    us: array[int]
    outputs: dict[int, str] = {}


class Mapped(msgspec.Struct, frozen=True, kw_only=True):
    """A mapper that mapped to `step`: one dataset of arguments for each child.

    `session` has the values that it kept, as JSON, by key.
    """

    child: int
    step: str
    args: Data
    session: dict[str, bytes] = {}
    output: str = ""
    us: int = 0

    @property
    def count(self) -> int:
        """Number of children."""
        return self.args.total if isinstance(self.args, Chunks) else len(self.args)


class Returned(msgspec.Struct, frozen=True, kw_only=True):
    """A mapper that returned data which is not reduced yet: one JSON row `[key, [value, …]]` an element."""

    child: int
    rows: Data
    session: dict[str, bytes] = {}
    output: str = ""
    us: int = 0


class Reduced(msgspec.Struct, frozen=True, kw_only=True):
    """A result that came alone: of a reduce, or too big for `Results`.

    `pairs` has one JSON pair `[key, value]` an element. `child` is the number of the reduced invocation.
    """

    child: int
    pairs: Data
    output: str = ""
    us: int = 0


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation did not work. `returned` is set where the mapper did and its fused reduce did not."""

    child: int
    report: ErrorReport
    returned: Returned | None = None


Outcome = Results | Mapped | Returned | Reduced | Failed
