"""What supervisor and executor say to each other over their socket pair, and the memory that they share.

    frame     u32 length of header · u32 length of body · header (JSON, tagged by `t`) · body
    items     u32 count · count times u32 length · documents joined by commas         body of most frames
    results   u32 count · count times u32 microseconds · count times u32 length · documents   body of Results

The supervisor passes documents along without looking into them, so a frame costs it the header and one copy.

Supervisor to executor: Mount at most once, Define (body: the Handler as JSON), Scope (body: names), RunMap (body: one
dataset of arguments for each child), RunReduce followed by Input… and End. Executor to supervisor: Ready once, then for
each run Results, Chunk, Mapped, Returned, Reduced, Failed, Turn and Notice as they come, and Finished last. A handler
may ask for something of a collection: Call, and it waits for the Answer, the only order that comes while one runs.

The hard part is what cannot be a frame, because a handler runs meanwhile: which child runs since when, and "stop
before the next child". Both stand in the cell, 40 bytes of shared memory that each side reads at any time.
"""

from __future__ import annotations

import mmap
import struct
from array import array
from typing import Any, Literal

import msgspec

from mr import codec
from mr.codec import Items
from mr.errors import CorruptEntry
from mr.model.operation import Operation
from mr.rules import fan_out, limits
from mr.worker.wear import Left

PIECE_BYTES = 256 * 1024
"""Lists longer than this leave the executor in pieces of about this size."""

HEADER_BYTES_MAX = 64 * 1024 * 1024
BODY_BYTES_MAX = 256 * 1024 * 1024
PREFIX = struct.Struct("<II")
NO_CHILD = 2**64 - 1
COMBINE, REDUCE, BELOW = 1 << 32, 2 << 32, 4 << 32
"""Added to the number of the child in the shared memory."""
NO_RUN = 2**64 - 1

Kind = Literal["arguments", "rows", "pairs"]
Stage = Literal["map", "combine", "reduce"]
InputKind = Literal["rows", "datasets", "pairs"]
_STAGES: tuple[Stage, ...] = ("map", "combine", "reduce")


class HandlerName(msgspec.Struct, frozen=True):
    """One version of a handler, under the name that tracebacks show."""

    name: str
    version: str


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one invocation may make. All in bytes but `children`.

    `value`: one key or value; `dataset`: all its pairs; `output`: printed text that is kept; `grouping`: memory for
    sorted runs before they go to disk; `together`: a fused result that is sent with others.
    """

    value: int = limits.VALUE_MAX
    session: int = limits.SESSION_MAX
    children: int = fan_out.CHILDREN_MAX
    dataset: int = 1024 * 1024 * 1024
    output: int = 1024 * 1024
    grouping: int = 32 * 1024 * 1024
    together: int = limits.TOGETHER_MAX


class Mount(msgspec.Struct, frozen=True, kw_only=True, tag="mount", tag_field="t"):
    """Where the shared file system is. A frame is seen by nobody else, as a command line or an environment would be."""

    url: str


class Define(msgspec.Struct, frozen=True, kw_only=True, tag="define", tag_field="t"):
    """A handler that later runs may name. Body: `model.handler.Handler`."""

    name: str
    version: str


class Scope(msgspec.Struct, frozen=True, kw_only=True, tag="scope", tag_field="t"):
    """What the site gives to a handler of a workflow, or why it has nothing for it. Body: `scopes.Given.document`."""

    name: str
    version: str
    workflow: str
    problem: str = ""


class Below(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an executor may go on with by itself: up to `most` children of a child that has mapped to this step."""

    step: str
    mapper: HandlerName
    combiner: HandlerName | None = None
    reducer: HandlerName
    most: int


class RunMap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="map", tag_field="t"):
    """Run the children `first`, `first + 1`, … of mapper `parent`, as step `step`; one for each dataset in the body.

    With a reducer, a child that returns data is reduced at once. `id` is the supervisor's number for this run.
    Where a child maps to few of what `below` names, the executor goes on with them, and then with their reduce.
    """

    id: int
    workflow: str
    request: str
    parent: str
    first: int
    step: str
    mapper: HandlerName
    combiner: HandlerName | None = None
    reducer: HandlerName | None = None
    below: Below | None = None
    limits: Limits = Limits()


class RunReduce(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="reduce", tag_field="t"):
    """Reduce invocation `path`, child number `child` of its parent; Input frames and End follow.

    `session` has the values that its mapper kept, by key.
    """

    id: int
    workflow: str
    request: str
    path: str
    child: int
    step: str
    reducer: HandlerName
    session: dict[str, msgspec.Raw] = {}
    limits: Limits = Limits()


class Input(msgspec.Struct, frozen=True, tag="input", tag_field="t"):
    """A piece of what is to be reduced. Body: items.

    `rows`: combined data of a leaf, `[key, [value, …]]` an element. `datasets`: one child's result an element, in
    the order of children. `pairs`: one pair an element, from a child whose result was too big for one element.
    Rows are never mixed with the other two.
    """

    kind: InputKind


class End(msgspec.Struct, frozen=True, tag="end", tag_field="t"):
    """There is no more input."""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="answer", tag_field="t"):
    """What came of a Call. Body: items, of which there may be `more`; or else `code`, `message` of the error."""

    more: bool = False
    code: str = ""
    message: str = ""


class Ready(msgspec.Struct, frozen=True, tag="ready", tag_field="t"):
    """The executor has started."""


class Results(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="results", tag_field="t"):
    """Consecutive children from `first` on, reduced: one dataset each. Body: results.

    `outputs` and `sessions` only name children that printed or kept something.
    """

    id: int
    first: int
    outputs: dict[int, str] = {}
    sessions: dict[int, dict[str, msgspec.Raw]] = {}


class Chunk(msgspec.Struct, frozen=True, kw_only=True, tag="chunk", tag_field="t"):
    """A piece of a list that goes on; the frame that closes the child has the last piece. Body: items.

    When the child fails instead, its pieces are void, except `rows` before a Failed with `returned`.
    """

    id: int
    child: int
    kind: Kind


class Mapped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="mapped", tag_field="t"):
    """The child mapped to `step` and has `count` children. Body: the last piece of their arguments.

    `goes_on`: the executor runs them at once. The frames that follow are theirs, up to a Turn.
    """

    id: int
    child: int
    step: str
    count: int
    goes_on: bool = False
    us: int = 0
    session: dict[str, msgspec.Raw] = {}
    output: str = ""


class Returned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="returned", tag_field="t"):
    """The child returned data, not reduced here. Body: the last piece of its rows.

    A row `[key, [value, …], 1]` continues the row before it: a group too big for one element.
    """

    id: int
    child: int
    us: int = 0
    session: dict[str, msgspec.Raw] = {}
    output: str = ""


class Reduced(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="reduced", tag_field="t"):
    """The child is reduced, and its result is too big for Results, or it ran alone. Body: the last piece of pairs."""

    id: int
    child: int
    us: int = 0
    session: dict[str, msgspec.Raw] = {}
    output: str = ""


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="failed", tag_field="t"):
    """The child did not work; `kind` says what of it. `class_` is one of `model.invocation.ERROR_CLASSES`.

    With `returned`, its mapper and combiner did work: all of its rows came before, as chunks.
    """

    id: int
    child: int
    kind: Stage
    class_: str = msgspec.field(name="class")
    type: str
    message: str
    handler: str
    version: str
    traceback: str = ""
    returned: bool = False
    us: int = 0
    session: dict[str, msgspec.Raw] = {}
    output: str = ""


class Turn(msgspec.Struct, frozen=True, kw_only=True, tag="turn", tag_field="t"):
    """The executor is through with the children that it went on with.

    To `reduce`: with their reduce, which the next frame closes. `back`: to the run's own children.
    """

    id: int
    to: Literal["reduce", "back"]


class Notice(msgspec.Struct, frozen=True, kw_only=True, tag="notice", tag_field="t"):
    """A handler wants somebody to be told, at once: by `notify`, `email` or `http`. It closes nothing."""

    id: int
    child: int
    by: Literal["notify", "email", "http"]
    level: Literal["debug", "info", "warning", "error", "critical"]
    handler: str
    text: str


class Call(msgspec.Struct, frozen=True, kw_only=True, tag="call", tag_field="t"):
    """A handler asks for something of a collection, and waits. Body: the value that it writes, if it does."""

    id: int
    operation: Operation


class Finished(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="finished", tag_field="t"):
    """The run is over. `next` is the first child that was not started; `left` what handlers left in the executor."""

    id: int
    next: int
    left: Left = ""


Order = Mount | Define | Scope | RunMap | RunReduce | Input | End | Answer
Report = Ready | Results | Chunk | Mapped | Returned | Reduced | Failed | Turn | Notice | Call | Finished

_orders: msgspec.json.Decoder[Order] = msgspec.json.Decoder(Order)
_reports: msgspec.json.Decoder[Report] = msgspec.json.Decoder(Report)


def pack(header: Order | Report, body: bytes = b"") -> bytes:
    """A whole frame."""
    text = codec.encode(header)
    return b"".join((PREFIX.pack(len(text), len(body)), text, body))


def order(header: bytes | bytearray | memoryview) -> Order:
    """The header of a frame from the supervisor. Raises: CorruptEntry."""
    try:
        return _orders.decode(header)
    except msgspec.MsgspecError as error:
        raise CorruptEntry(f"a frame from the supervisor is wrong: {error}") from error


def report(header: bytes | bytearray | memoryview) -> Report:
    """The header of a frame from an executor. Raises: CorruptEntry."""
    try:
        return _reports.decode(header)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptEntry(f"a frame from an executor is wrong: {error}") from error


def pack_items(items: Items) -> bytes:
    """A run of documents as a body."""
    lengths = items.lengths
    return b"".join((len(lengths).to_bytes(4, "little"), lengths.tobytes(), items.blob))


def pack_results(us: array[int], items: Items) -> bytes:
    """Results as a body: `us` has as many elements as `items`."""
    return b"".join((len(us).to_bytes(4, "little"), us.tobytes(), items.lengths.tobytes(), items.blob))


def unpack_items(body: bytes) -> Items:
    """The documents of a body. Raises: CorruptEntry if lengths and bytes do not fit."""
    if not body:
        return codec.EMPTY
    (lengths,), start = _arrays(body, 1)
    return _items(body, start, lengths)


def unpack_results(body: bytes) -> tuple[array[int], Items]:
    """Microseconds and documents of a body. Raises: CorruptEntry."""
    (us, lengths), start = _arrays(body, 2)
    return us, _items(body, start, lengths)


def _arrays(body: bytes, number: int) -> tuple[list[array[int]], int]:
    count = int.from_bytes(body[:4], "little")
    size = 4 * count
    if len(body) < 4 + number * size:
        raise CorruptEntry(f"a body of {len(body)} bytes cannot hold {count} items")
    arrays = []
    for index in range(number):
        numbers = array("I")
        numbers.frombytes(body[4 + index * size : 4 + (index + 1) * size])
        arrays.append(numbers)
    return arrays, 4 + number * size


def _items(body: bytes, start: int, lengths: array[int]) -> Items:
    expected = sum(lengths) + max(0, len(lengths) - 1)
    if len(body) - start != expected:
        raise CorruptEntry(f"a body has {len(body) - start} bytes of documents instead of {expected}")
    return Items(body[start:], lengths)


class Cell:
    """The shared memory: `child` u64 · `started` f64 · `finished` u64 · `stop` u64 · `untold` u64.

    `integers[CHILD]` is the child that runs, or NO_CHILD. While it combines or reduces, COMBINE or REDUCE is added: in
    one word, so that a stage costs one write, and a child that begins none. BELOW is added where the child is one of
    those that the executor went on with. `integers[UNTOLD]` is 1 as long as the frame that says so is still held back.
    `floats[STARTED]` is the CLOCK_MONOTONIC second at which the child began, written before its number, so that a
    reader may see too young a start, never too old a one.
    `integers[STOP]` is the id of the run if it shall start no further child, else NO_RUN.
    """

    CHILD, STARTED, FINISHED, STOP, UNTOLD = range(5)
    SIZE = 40

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, self.SIZE)
        self._view = memoryview(self._memory)
        self.integers: memoryview[Any] = self._view.cast("Q")
        self.floats: memoryview[Any] = self._view.cast("d")

    @staticmethod
    def split(word: int) -> tuple[int, Stage, bool]:
        """The child, its stage, and whether it is below the run's own: what a word at CHILD stands for."""
        return word & 0xFFFFFFFF, _STAGES[min(word >> 32 & 3, 2)], bool(word & BELOW)

    def clear(self) -> None:
        """Nothing runs, nothing is to be stopped."""
        self.integers[self.CHILD] = NO_CHILD
        self.integers[self.FINISHED] = 0
        self.integers[self.STOP] = NO_RUN
        self.integers[self.UNTOLD] = 0

    def close(self) -> None:
        """Give the memory back; the cell is not used afterwards."""
        self.integers.release()
        self.floats.release()
        self._view.release()
        self._memory.close()
