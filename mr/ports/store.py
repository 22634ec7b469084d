"""Store: hierarchical keys, conditional transactions, counts, ordered ranges, leases, watches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType

import msgspec

from mr.model.condition import Condition
from mr.ports.broker import Publication


class Entry(msgspec.Struct, frozen=True):
    """One key, its value, the revision of its last write, and the revision that created it.

    `value` is empty where only keys were asked for.
    """

    key: str
    value: bytes
    version: int
    created: int


class Lease(msgspec.Struct, frozen=True):
    """Entries put under a lease vanish when it is not kept for `ttl_s` (never early, perhaps late)."""

    id: int
    ttl_s: float


class Absent(msgspec.Struct, frozen=True):
    """Condition: the key does not exist."""

    key: str


class Equals(msgspec.Struct, frozen=True):
    """Condition: the key exists with exactly this value."""

    key: str
    value: bytes


class At(msgspec.Struct, frozen=True):
    """Condition: the key exists and its last write has this version."""

    key: str
    version: int


class Put(msgspec.Struct, frozen=True):
    """Operation: write the value, whatever is there."""

    key: str
    value: bytes
    lease: Lease | None = None


class Delete(msgspec.Struct, frozen=True):
    """Operation: remove the key if it exists."""

    key: str


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """If all conditions hold, all operations are applied, at one revision; else none.

    `counts` (prefixes) and `reads` (keys) are taken in both cases, after the operations.
    `messages` are published with the operations, by a store that `carries_messages`.
    No key may be written twice.
    """

    conditions: Sequence[Absent | Equals | At] = ()
    operations: Sequence[Put | Delete] = ()
    counts: Sequence[str] = ()
    reads: Sequence[str] = ()
    messages: Sequence[Publication] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`entries` has each key of `reads`, None where there is nothing."""

    succeeded: bool
    revision: int
    counts: Mapping[str, int] = {}
    entries: Mapping[str, Entry | None] = {}


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Entries in the order of their keys, as of `revision`; `more` if the limit cut them off."""

    entries: list[Entry]
    revision: int
    more: bool = False


class Change(msgspec.Struct, frozen=True):
    """A key was written (`entry`) or removed (`entry` is None) at `revision`."""

    key: str
    entry: Entry | None
    revision: int


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a store can do; callers ask, and have a plain path where it cannot.

    `transactions`: several keys at once. Without it a transaction may concern one key only, and counts and reads
    are taken a moment later.
    `keys_nest`: a key may stand beside others that go on from it, `a` beside `a/b`. Without it the second of the
    two is refused with ValueRefused.
    `carries_messages`: `Transaction.messages` are published with it.
    `lease_ttl_min_s`: the shortest lease it can give.
    """

    transactions: bool = True
    keys_nest: bool = True
    carries_messages: bool = False
    lease_ttl_min_s: float = 1.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one transaction may hold; more is refused with ValueRefused before anything is sent."""

    operations: int = 128
    transaction_bytes: int = 1_500_000
    value_bytes: int = 1_200_000


class Watch(ABC):
    """A stream of changes below a prefix. Used by one thread."""

    @abstractmethod
    def next(self, timeout_s: float) -> list[Change]:
        """Changes in the order of their revisions; empty when none came in time.

        Guarantee: every change after the start is seen at least once, also through a cut link or a restart.
        Of several writes to one key before the watch stood, perhaps only the last is.
        Raises: WatchLost if that cannot be kept (compacted; history too short): read the state, watch anew.
        StoreUnavailable if the store was away for the whole time; asking again is right.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop; wakes a `next` in another thread. Twice is harmless."""

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Store(ABC):
    """A store of entries. All methods are safe to call from several threads.

    Linearisable: what a finished write wrote, every later read sees. Values are bytes, also empty ones; keys are
    non-empty text without a leading slash, in the order of their UTF-8 bytes.
    Every method raises StoreUnavailable when the store does not answer.
    """

    abilities: Abilities = Abilities()
    limits: Limits = Limits()

    @abstractmethod
    def commit(self, transaction: Transaction) -> Outcome:
        """Apply a transaction.

        Guarantee: atomic and durable when it returns `succeeded`.
        Raises: StoreUnavailable with `unknown` set if it may have been applied, or be applied yet: repeat the
        same transaction; StoreFull if there is no room (treat its outcome as unknown too); ValueRefused if it is
        over the limits or names a key twice; NotFound if the lease of a Put is over (nothing is applied).
        """

    @abstractmethod
    def get(self, key: str) -> Entry | None:
        """One entry, or None."""

    @abstractmethod
    def range(self, prefix: str, *, after: str = "", limit: int = 1000, keys_only: bool = False) -> Page:
        """Entries whose keys start with prefix, in order, those after the key `after` only."""

    @abstractmethod
    def count(self, prefix: str) -> int:
        """How many keys start with prefix."""

    @abstractmethod
    def delete_prefix(self, prefix: str, *, limit: int = 1000) -> int:
        """Remove up to `limit` keys that start with prefix, and say how many; call until it says 0.

        Works also when the store refuses writes for want of space.
        """

    @abstractmethod
    def watch(self, prefix: str, after_revision: int) -> Watch:
        """Changes below prefix with revisions above `after_revision` (that of the read which came before)."""

    @abstractmethod
    def revision(self) -> int:
        """The revision of the newest write."""

    @abstractmethod
    def grant(self, ttl_s: float) -> Lease:
        """A new lease. A time below what the store can do is lengthened."""

    @abstractmethod
    def keep(self, lease: Lease) -> bool:
        """Prolong the lease by its time; False if it is gone, and with it what was put under it."""

    @abstractmethod
    def revoke(self, lease: Lease) -> None:
        """End the lease and remove what was put under it. Twice is harmless."""

    def conditions(self) -> Sequence[Condition]:
        """What who runs the store should know of it, looked at now: servers, versions, space, clocks.

        Never raises for what it finds: a server that does not answer is a condition.
        """
        return ()

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and threads. Twice is harmless."""
