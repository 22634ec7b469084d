"""The promises of the store port. A backend makes a subclass that says how to get a fresh, empty store.

    class TestMine(StoreContract, TransactionContract):
        @pytest.fixture
        def store(self): ...          # empty; closed afterwards

A bench also has `reopen`, `outage` and `lose_history`. A store that declares to have no transactions leaves
`TransactionContract` out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from mr.errors import NotFound, StoreUnavailable, ValueRefused, WatchLost
from mr.model.condition import Health
from mr.ports.store import Absent, At, Change, Delete, Entry, Equals, Lease, Put, Store, Transaction, Watch

DEADLINE_S = 15.0


def until(condition: Callable[[], object], within_s: float = DEADLINE_S) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not so within {within_s} s"
        time.sleep(0.01)


def put(store: Store, key: str, value: bytes = b"x", lease: Lease | None = None) -> int:
    """Write one key; returns the revision."""
    outcome = store.commit(Transaction(operations=[Put(key, value, lease)]))
    assert outcome.succeeded
    return outcome.revision


def delete(store: Store, key: str) -> int:
    """Remove one key; returns the revision."""
    return store.commit(Transaction(operations=[Delete(key)])).revision


def value(store: Store, key: str) -> bytes | None:
    """What stands under the key."""
    entry = store.get(key)
    return None if entry is None else entry.value


def keys(store: Store, prefix: str) -> list[str]:
    """All keys below the prefix, read in small pages."""
    found: list[str] = []
    while True:
        page = store.range(prefix, after=found[-1] if found else "", limit=3, keys_only=True)
        found += [entry.key for entry in page.entries]
        if not page.more:
            return found


def gather(watch: Watch, enough: Callable[[list[Change]], bool]) -> list[Change]:
    """Changes from the watch until there are enough."""
    seen: list[Change] = []
    deadline = time.monotonic() + DEADLINE_S
    while not enough(seen):
        assert time.monotonic() < deadline, f"only saw {seen}"
        seen += watch.next(1.0)
    return seen


class StoreContract:
    """All that services may rely on."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """A fresh, empty store."""
        raise NotImplementedError

    @pytest.fixture
    def reopen(self, store: Store) -> Callable[[], Store]:
        """Restarts the backend; returns a new store object on the same data, which the fixture closes."""
        raise NotImplementedError

    @pytest.fixture
    def outage(self, store: Store) -> Callable[[], AbstractContextManager[object]]:
        """A block during which writes of `store` are not answered, within a few seconds each."""
        raise NotImplementedError

    @pytest.fixture
    def lose_history(self, store: Store) -> Callable[[], object]:
        """Makes the store forget what changed before now (compaction)."""
        raise NotImplementedError

    # Single keys

    def test_a_new_store_is_empty(self, store: Store):
        assert store.get("a") is None
        assert store.range("").entries == []
        assert store.count("") == 0

    def test_what_was_put_is_read(self, store: Store):
        revision = put(store, "a/b", b"one")
        assert store.get("a/b") == Entry("a/b", b"one", revision, revision)

    def test_a_second_put_changes_the_version_and_keeps_the_creation(self, store: Store):
        first = put(store, "a", b"one")
        second = put(store, "a", b"two")
        assert second > first
        assert store.get("a") == Entry("a", b"two", second, first)

    def test_a_deleted_key_is_gone_and_can_be_created_anew(self, store: Store):
        put(store, "a", b"one")
        delete(store, "a")
        assert store.get("a") is None
        again = put(store, "a", b"two")
        assert store.get("a") == Entry("a", b"two", again, again)

    def test_deleting_what_is_not_there_succeeds(self, store: Store):
        assert store.commit(Transaction(operations=[Delete("nothing")])).succeeded

    def test_an_empty_value_is_a_value(self, store: Store):
        put(store, "a", b"")
        assert value(store, "a") == b""
        assert store.count("a") == 1
        assert store.commit(Transaction(conditions=[Equals("a", b"")])).succeeded
        assert not store.commit(Transaction(conditions=[Absent("a")])).succeeded

    @pytest.mark.parametrize(
        "key",
        [
            *(
                "ä/ö ü",
                "日本/語",
                "😀",
                'quote"\\back',
                "per%cent",
                "a b\tc",
                "z\uffee",
                "_hidden/_too",
                "~",
                "~2E/~7E",
            ),
            *("./..", "a/./b", "a/../b", "a//b", "a/", "q?x=1&y#z;", "+ plus", "nul\0", "line\nline", "[::1]:80"),
        ],
    )
    def test_keys_may_be_any_text(self, store: Store, key: str):
        put(store, key, key.encode())
        assert value(store, key) == key.encode()
        assert [entry.key for entry in store.range(key[:1]).entries] == [key]
        delete(store, key)
        assert store.get(key) is None

    def test_values_may_be_any_bytes(self, store: Store):
        everything = bytes(range(256)) * 16
        put(store, "a", everything)
        assert value(store, "a") == everything

    # Conditions

    def test_create_is_refused_where_the_key_exists(self, store: Store):
        create = Transaction(conditions=[Absent("a")], operations=[Put("a", b"mine")], reads=["a"])
        first = store.commit(create)
        assert first.succeeded
        second = store.commit(
            Transaction(conditions=[Absent("a")], operations=[Put("a", b"other")], reads=["a"], counts=["a"])
        )
        assert not second.succeeded
        assert second.entries["a"] == Entry("a", b"mine", first.revision, first.revision)
        assert second.counts == {"a": 1}

    def test_replace_is_refused_under_a_stale_version(self, store: Store):
        old = put(store, "a", b"one")
        new = put(store, "a", b"two")
        assert not store.commit(Transaction(conditions=[At("a", old)], operations=[Put("a", b"three")])).succeeded
        assert value(store, "a") == b"two"
        assert store.commit(Transaction(conditions=[At("a", new)], operations=[Put("a", b"three")])).succeeded
        assert value(store, "a") == b"three"

    def test_delete_is_refused_under_a_stale_version(self, store: Store):
        old = put(store, "a", b"one")
        new = put(store, "a", b"one")
        assert not store.commit(Transaction(conditions=[At("a", old)], operations=[Delete("a")])).succeeded
        assert value(store, "a") == b"one"
        assert store.commit(Transaction(conditions=[At("a", new)], operations=[Delete("a")])).succeeded
        assert store.get("a") is None

    def test_equals_compares_the_value(self, store: Store):
        put(store, "a", b"one")
        assert not store.commit(Transaction(conditions=[Equals("a", b"two")], operations=[Delete("a")])).succeeded
        assert not store.commit(Transaction(conditions=[Equals("b", b"")], operations=[Put("b", b"")])).succeeded
        assert store.commit(Transaction(conditions=[Equals("a", b"one")], operations=[Delete("a")])).succeeded

    def test_no_version_holds_for_a_key_that_is_absent(self, store: Store):
        version = put(store, "a")
        delete(store, "a")
        for tried in (0, version):
            assert not store.commit(Transaction(conditions=[At("a", tried)], operations=[Put("a", b"x")])).succeeded

    def test_two_writers_of_a_counter_lose_no_update(self, store: Store):
        put(store, "counter", b"0")

        def count_up(times: int) -> None:
            done = 0
            while done < times:
                entry = store.get("counter")
                assert entry is not None
                raised = b"%d" % (int(entry.value) + 1)
                done += store.commit(
                    Transaction(conditions=[At("counter", entry.version)], operations=[Put("counter", raised)])
                ).succeeded

        with ThreadPoolExecutor(4) as pool:
            for result in [pool.submit(count_up, 25) for _ in range(4)]:
                result.result()
        assert value(store, "counter") == b"100"

    def test_of_many_that_create_one_key_one_wins(self, store: Store):
        def create(number: int) -> bool:
            operations = [Put("leader", b"%d" % number)]
            return store.commit(Transaction(conditions=[Absent("leader")], operations=operations)).succeeded

        with ThreadPoolExecutor(8) as pool:
            won = [number for number, succeeded in enumerate(pool.map(create, range(16))) if succeeded]
        assert value(store, "leader") == b"%d" % won[0]
        assert len(won) == 1

    # Limits

    def test_a_value_as_big_as_declared_fits_and_no_bigger(self, store: Store):
        most = store.limits.value_bytes
        put(store, "a", b"x" * most)
        assert value(store, "a") == b"x" * most
        with pytest.raises(ValueRefused):
            put(store, "b", b"x" * (most + 1))
        assert store.get("b") is None

    def test_no_key_is_written_twice(self, store: Store):
        with pytest.raises(ValueRefused):
            store.commit(Transaction(operations=[Put("a", b"1"), Put("a", b"2")]))
        with pytest.raises(ValueRefused):
            store.commit(Transaction(operations=[Put("a", b"1"), Delete("a")]))
        assert store.get("a") is None

    @pytest.mark.parametrize("key", ["", "lone \ud800 surrogate"])
    def test_what_is_no_key_is_refused(self, store: Store, key: str):
        with pytest.raises(ValueRefused):
            put(store, key)

    # Ranges

    def test_a_range_is_in_the_order_of_utf8_bytes(self, store: Store):
        names = ["b", "a/10", "a/2", "a1", "B", "ä", "😀", "\uffee", "~", "~2E", ".", "_a/_", "a//b"]
        for name in names:
            put(store, name)
        assert keys(store, "") == sorted(names, key=str.encode)

    def test_a_prefix_that_ends_in_a_slash_matches_nothing_beside_it(self, store: Store):
        for name in ("a/", "a/1", "a/2/3", "a0", "a1/1", "b/1"):
            put(store, name)
        assert keys(store, "a/") == ["a/", "a/1", "a/2/3"]
        assert store.count("a/") == 3
        assert keys(store, "a") == ["a/", "a/1", "a/2/3", "a0", "a1/1"]
        assert keys(store, "c") == []

    def test_a_key_and_those_that_go_on_from_it_stand_together_or_the_second_is_refused(self, store: Store):
        put(store, "a")
        put(store, "b/1")
        if store.abilities.keys_nest:
            put(store, "a/1")
            put(store, "b")
            assert keys(store, "") == ["a", "a/1", "b", "b/1"]
            return
        for key in ("a/1", "b"):
            for conditions in ([], [Absent(key)]):
                with pytest.raises(ValueRefused, match=key):
                    store.commit(Transaction(conditions=conditions, operations=[Put(key, b"")]))
            assert store.get(key) is None
            assert not store.commit(Transaction(conditions=[At(key, 1)], operations=[Put(key, b"")])).succeeded
            assert store.commit(Transaction(operations=[Delete(key)])).succeeded
        assert keys(store, "") == ["a", "b/1"]

    @pytest.mark.parametrize("prefix", ["z\U0010ffff", "\ud7ff", "\U0010ffff", "a\x7f"])
    def test_a_prefix_may_end_in_the_last_character_of_its_kind(self, store: Store, prefix: str):
        for name in (prefix + "1", prefix + "\U0010ffff", "a", "zz", "\ue000"):
            put(store, name)
        assert keys(store, prefix) == [prefix + "1", prefix + "\U0010ffff"]
        assert store.count(prefix) == 2

    def test_pages_follow_each_other_without_gap_or_repeat(self, store: Store):
        names = [f"p/{number:02d}" for number in range(10)]
        for name in names:
            put(store, name, name.encode())
        put(store, "q")
        first = store.range("p/", limit=4)
        assert [entry.key for entry in first.entries] == names[:4]
        assert first.more
        second = store.range("p/", after=names[3], limit=6)
        assert [(entry.key, entry.value) for entry in second.entries] == [(name, name.encode()) for name in names[4:]]
        assert not second.more
        assert store.range("p/", after=names[-1]).entries == []

    def test_after_need_not_exist_and_may_lie_outside(self, store: Store):
        for name in ("p/1", "p/3"):
            put(store, name)
        assert [entry.key for entry in store.range("p/", after="p/2").entries] == ["p/3"]
        assert [entry.key for entry in store.range("p/", after="a").entries] == ["p/1", "p/3"]
        assert store.range("p/", after="q").entries == []

    def test_keys_only_leaves_the_values_out(self, store: Store):
        revision = put(store, "a", b"long")
        assert store.range("", keys_only=True).entries == [Entry("a", b"", revision, revision)]

    def test_a_page_knows_its_revision(self, store: Store):
        put(store, "a")
        revision = put(store, "b")
        assert store.range("").revision == revision

    def test_delete_prefix_goes_in_steps(self, store: Store):
        for number in range(7):
            put(store, f"a/{number}")
        put(store, "a1")
        assert store.delete_prefix("a/", limit=5) == 5
        assert store.count("a/") == 2
        assert store.delete_prefix("a/", limit=5) == 2
        assert store.delete_prefix("a/", limit=5) == 0
        assert keys(store, "") == ["a1"]

    # Revisions

    def test_revisions_only_grow(self, store: Store):
        seen = [store.revision()]
        for number in range(5):
            seen.append(put(store, f"a/{number}"))
            assert store.revision() == seen[-1]
        seen.append(delete(store, "a/0"))
        assert seen == sorted(set(seen))

    def test_every_finished_write_is_seen_by_every_thread(self, store: Store):
        for number in range(20):
            put(store, "a", b"%d" % number)
            with ThreadPoolExecutor(1) as pool:
                assert pool.submit(value, store, "a").result() == b"%d" % number

    # Watches

    def test_a_watch_sees_every_change_below_its_prefix_in_order(self, store: Store):
        with store.watch("a/", store.revision()) as watch:
            first = put(store, "a/1", b"one")
            put(store, "a1", b"beside")
            second = put(store, "a/2", b"two")
            third = put(store, "a/1", b"three")
            fourth = delete(store, "a/2")
            seen = gather(watch, lambda seen: len(seen) >= 4)
        assert seen == [
            Change("a/1", Entry("a/1", b"one", first, first), first),
            Change("a/2", Entry("a/2", b"two", second, second), second),
            Change("a/1", Entry("a/1", b"three", third, first), third),
            Change("a/2", None, fourth),
        ]

    def test_a_watch_sees_what_happened_since_a_revision_in_the_past(self, store: Store):
        put(store, "a/0")
        page = store.range("a/")
        put(store, "a/1", b"one")
        put(store, "a/2", b"two")
        delete(store, "a/0")
        with store.watch("a/", page.revision) as watch:
            put(store, "a/3", b"three")
            seen = gather(watch, lambda seen: len(seen) >= 4)
        assert [(change.key, change.entry and change.entry.value) for change in seen] == [
            ("a/1", b"one"),
            ("a/2", b"two"),
            ("a/0", None),
            ("a/3", b"three"),
        ]

    def test_of_writes_before_a_watch_at_least_the_last_is_seen(self, store: Store):
        start = store.revision()
        for number in range(3):
            put(store, "a/1", b"%d" % number)
        put(store, "a/2")
        delete(store, "a/2")
        put(store, "a/end")
        with store.watch("a/", start) as watch:
            seen = gather(watch, lambda seen: any(change.key == "a/end" for change in seen))
        last = {change.key: change.entry and change.entry.value for change in seen}
        assert last == {"a/1": b"2", "a/2": None, "a/end": b"x"}
        assert [change.revision for change in seen] == sorted(change.revision for change in seen)

    def test_a_watch_sees_the_changes_of_several_writers(self, store: Store):
        def write(writer: int) -> None:
            for number in range(20):
                put(store, f"a/{writer}", b"%d" % number)

        with store.watch("a/", store.revision()) as watch:
            with ThreadPoolExecutor(4) as pool:
                for result in [pool.submit(write, writer) for writer in range(4)]:
                    result.result()
            seen = gather(watch, lambda seen: len({(change.key, change.revision) for change in seen}) >= 80)
        for writer in range(4):
            values = [change.entry.value for change in seen if change.entry and change.key == f"a/{writer}"]
            assert list(dict.fromkeys(values)) == [b"%d" % number for number in range(20)]

    def test_a_watch_sees_keys_that_delete_prefix_removes(self, store: Store):
        for number in range(3):
            put(store, f"a/{number}")
        with store.watch("a/", store.revision()) as watch:
            store.delete_prefix("a/")
            seen = gather(watch, lambda seen: len(seen) >= 3)
        assert {change.key for change in seen} == {"a/0", "a/1", "a/2"}
        assert all(change.entry is None for change in seen)

    def test_a_watch_with_nothing_to_see_is_empty_when_its_time_is_over(self, store: Store):
        with store.watch("a/", store.revision()) as watch:
            put(store, "b/1")
            started = time.monotonic()
            assert watch.next(0.2) == []
            assert 0.1 < time.monotonic() - started < 5

    def test_a_sleeping_watch_wakes_at_once(self, store: Store):
        got: list[Change] = []
        with store.watch("a/", store.revision()) as watch:
            thread = threading.Thread(target=lambda: got.extend(watch.next(30.0)))
            thread.start()
            put(store, "a/1")
            thread.join(DEADLINE_S)
            assert [change.key for change in got] == ["a/1"]

    def test_close_wakes_a_watch_that_sleeps_in_another_thread(self, store: Store):
        watch = store.watch("a/", store.revision())
        thread = threading.Thread(target=watch.next, args=(60.0,))
        thread.start()
        watch.close()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        watch.close()

    def test_a_watch_that_lost_changes_says_so(self, store: Store, lose_history: Callable[[], object]):
        put(store, "a/1")
        start = store.revision()
        put(store, "a/2")
        lose_history()
        with store.watch("a/", start) as watch, pytest.raises(WatchLost):
            gather(watch, lambda seen: False)

    # Leases

    def test_what_was_put_under_a_lease_goes_when_it_is_not_kept(self, store: Store):
        lease = store.grant(store.abilities.lease_ttl_min_s)
        granted_at = time.monotonic()
        put(store, "w/1", b"x", lease)
        put(store, "w/2")
        assert store.count("w/") == 2
        until(lambda: store.get("w/1") is None, lease.ttl_s * 3 + 10)
        assert time.monotonic() - granted_at > lease.ttl_s * 0.9
        assert keys(store, "w/") == ["w/2"]
        assert store.commit(Transaction(conditions=[Absent("w/1")], counts=["w/1"])).succeeded

    def test_a_lease_is_never_shorter_than_asked(self, store: Store):
        assert store.grant(7.5).ttl_s >= 7.5
        assert store.grant(0.001).ttl_s >= store.abilities.lease_ttl_min_s

    def test_a_kept_lease_holds(self, store: Store):
        lease = store.grant(store.abilities.lease_ttl_min_s)
        other = store.grant(store.abilities.lease_ttl_min_s)
        put(store, "w/kept", b"x", lease)
        put(store, "w/left", b"x", other)
        deadline = time.monotonic() + other.ttl_s * 3 + 10
        while store.get("w/left") is not None:
            assert store.keep(lease)
            assert time.monotonic() < deadline
            time.sleep(lease.ttl_s / 10)
        assert value(store, "w/kept") == b"x"
        assert not store.keep(other)

    def test_revoke_removes_at_once_what_was_put_under_the_lease(self, store: Store):
        lease = store.grant(60)
        put(store, "w/1", b"x", lease)
        put(store, "w/2", b"x", lease)
        put(store, "v")
        store.revoke(lease)
        assert keys(store, "") == ["v"]
        assert not store.keep(lease)
        store.revoke(lease)

    def test_a_put_without_lease_takes_the_key_out_of_it(self, store: Store):
        lease = store.grant(60)
        put(store, "w", b"leased", lease)
        put(store, "w", b"free")
        store.revoke(lease)
        assert value(store, "w") == b"free"

    def test_a_put_under_a_lease_that_is_over_applies_nothing(self, store: Store):
        lease = store.grant(60)
        store.revoke(lease)
        with pytest.raises(NotFound):
            put(store, "w", b"x", lease)
        assert store.get("w") is None
        if store.abilities.transactions:
            with pytest.raises(NotFound):
                store.commit(Transaction(operations=[Put("v", b"x"), Put("w", b"x", lease)]))
            assert store.get("v") is None

    def test_a_watch_sees_the_end_of_a_lease(self, store: Store):
        lease = store.grant(store.abilities.lease_ttl_min_s)
        put(store, "w/1", b"x", lease)
        with store.watch("w/", store.revision()) as watch:
            seen = gather(watch, lambda seen: len(seen) >= 1)
        assert (seen[0].key, seen[0].entry) == ("w/1", None)
        assert seen[0].revision == store.revision()

    # Life and death

    def test_what_returned_is_there_after_a_restart(self, store: Store, reopen: Callable[[], Store]):
        revision = put(store, "a", b"one")
        again = reopen()
        assert again.get("a") == Entry("a", b"one", revision, revision)
        assert again.revision() >= revision  # a server may write something of its own when it starts
        assert put(again, "b") > revision

    def test_a_watch_over_a_restart_misses_nothing(self, store: Store, reopen: Callable[[], Store]):
        put(store, "a/1")
        revision = store.revision()
        put(store, "a/2", b"before")
        again = reopen()
        with again.watch("a/", revision) as watch:
            put(again, "a/3", b"after")
            seen = gather(watch, lambda seen: len(seen) >= 2)
        assert [change.key for change in seen] == ["a/2", "a/3"]

    def test_while_the_store_is_away_calls_say_so_and_then_it_goes_on(
        self, store: Store, outage: Callable[[], AbstractContextManager[object]]
    ):
        put(store, "a/1", b"before")
        with store.watch("a/", store.revision()) as watch:
            with outage(), pytest.raises(StoreUnavailable):
                put(store, "a/2", b"during")

            def goes_on() -> bool:
                try:
                    put(store, "a/3", b"after")
                except StoreUnavailable:
                    return False
                return True

            until(goes_on, 30)
            assert value(store, "a/1") == b"before"
            seen: list[Change] = []

            def sees() -> bool:
                try:
                    seen.extend(watch.next(1.0))
                except StoreUnavailable:
                    return False
                return any(change.key == "a/3" for change in seen)

            until(sees, 30)

    def test_close_twice_is_harmless(self, store: Store):
        put(store, "a")
        store.close()
        store.close()

    def test_a_closed_store_answers_nothing(self, store: Store):
        store.close()
        with pytest.raises(StoreUnavailable):
            put(store, "a")

    def test_a_store_that_is_well_has_nothing_that_fails(self, store: Store):
        found = store.conditions()
        assert [one for one in found if one.health is Health.FAIL] == []
        assert all(one.found and bool(one.advice) is (one.health is not Health.OK) for one in found)

    def test_a_store_that_is_away_says_so_and_raises_nothing(self, store: Store, outage):
        subjects = {one.subject for one in store.conditions()}
        with outage():
            found = store.conditions()
        assert all(one.found and bool(one.advice) is (one.health is not Health.OK) for one in found)
        assert {one.subject for one in found} <= subjects


class TransactionContract:
    """What a store promises beside `StoreContract` if it has transactions over several keys."""

    def test_a_transaction_is_applied_as_a_whole(self, store: Store):
        put(store, "old", b"x")
        outcome = store.commit(
            Transaction(
                conditions=[Absent("a"), Equals("old", b"x")],
                operations=[Put("a", b"1"), Put("b", b"2"), Delete("old")],
                reads=["a", "b", "old"],
            )
        )
        assert outcome.succeeded
        a, b = outcome.entries["a"], outcome.entries["b"]
        assert a is not None
        assert b is not None
        assert a.version == b.version == outcome.revision
        assert outcome.entries["old"] is None
        assert keys(store, "") == ["a", "b"]

    def test_one_condition_that_fails_refuses_the_whole(self, store: Store):
        put(store, "b", b"x")
        before = store.revision()
        outcome = store.commit(
            Transaction(conditions=[Absent("a"), Absent("b")], operations=[Put("a", b"1"), Delete("b")])
        )
        assert not outcome.succeeded
        assert keys(store, "") == ["b"]
        assert store.revision() == before

    def test_counts_and_reads_are_taken_after_the_operations(self, store: Store):
        put(store, "s/1")
        outcome = store.commit(
            Transaction(
                operations=[Put("s/2", b"two"), Put("s/3", b""), Delete("s/1")],
                counts=["s/", "t/"],
                reads=["s/2", "s/1"],
            )
        )
        assert outcome.counts == {"s/": 2, "t/": 0}
        assert outcome.entries["s/2"] == Entry("s/2", b"two", outcome.revision, outcome.revision)
        assert outcome.entries["s/1"] is None

    def test_counts_and_reads_are_taken_when_refused_too(self, store: Store):
        revision = put(store, "s/1", b"one")
        outcome = store.commit(
            Transaction(
                conditions=[Absent("s/1")],
                operations=[Put("s/2", b"two")],
                counts=["s/"],
                reads=["s/1", "s/2"],
            )
        )
        assert not outcome.succeeded
        assert outcome.counts == {"s/": 1}
        assert outcome.entries == {"s/1": Entry("s/1", b"one", revision, revision), "s/2": None}

    def test_whoever_counts_siblings_last_sees_them_all(self, store: Store):
        """The rule of counting: of writers that each add one and count, exactly one counts them all."""

        def add(number: int) -> int:
            transaction = Transaction(
                conditions=[Absent(f"s/{number}")], operations=[Put(f"s/{number}", b"x")], counts=["s/"]
            )
            return store.commit(transaction).counts["s/"]

        with ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(add, range(24))) == list(range(1, 25))

    def test_as_many_operations_as_declared_fit_and_no_more(self, store: Store):
        most = store.limits.operations
        assert store.commit(Transaction(operations=[Put(f"a/{n}", b"x") for n in range(most)])).succeeded
        with pytest.raises(ValueRefused):
            store.commit(Transaction(operations=[Put(f"b/{n}", b"x") for n in range(most + 1)]))
        assert (store.count("a/"), store.count("b/")) == (most, 0)

    def test_a_transaction_as_big_as_declared_fits_and_no_bigger(self, store: Store):
        most = store.limits.transaction_bytes
        half = most // 2 - 10
        assert store.commit(Transaction(operations=[Put("a", b"x" * half), Put("b", b"x" * half)])).succeeded
        with pytest.raises(ValueRefused):
            store.commit(Transaction(operations=[Put("c", b"x" * (half + 20)), Put("d", b"x" * (half + 20))]))
        assert keys(store, "") == ["a", "b"]
