"""Work: what a visit gives to an executor, and what it must know of the worker it runs on."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mr.codec import Items
from mr.model.dataset import Chunks
from mr.model.message import Level, Message
from mr.model.outcome import Data


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """What a visit must know of the worker that it runs on. `offers` says whether it may run what requires a
    capability; `slots` are the executors of the whole fleet.

    `writes`: results leave by a writer, so that a request whose root is done is not over yet.
    """

    name: str
    offers: Callable[[str], bool]
    slots: Callable[[], int]
    seal: Callable[[Message], bytes]
    now: Callable[[], float]
    stamp: Callable[[], str]
    seconds_each: Callable[[str], float | None]
    batch_size: int | None = None
    writes: bool = False


class MapWork(msgspec.Struct, kw_only=True, eq=False):
    """Run children `first` up to `to` of mapper `p`.

    `items` are their arguments; None if they are to be read, from `chunks` if this visit staged them, else as the
    manifest says.
    """

    number: int
    p: str
    step: str
    first: int
    to: int
    items: Items | None
    chunks: Chunks | None = None


class ReduceWork(msgspec.Struct, kw_only=True, eq=False):
    """Reduce `p`, which ran as `step`.

    `rows`: the combined data of a leaf; `datasets`: the results of its children in order; neither: read them
    from the store. `session` is None where it has to be read, too.
    """

    number: int
    p: str
    step: str
    level: Level
    rows: Data | None = None
    datasets: list[Items] | None = None
    session: dict[str, bytes] | None = None


Work = MapWork | ReduceWork
