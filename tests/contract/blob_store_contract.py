"""What every blob store promises, as tests. A file for a backend gives `blobs`, fresh and empty, and `reopen`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from mr.errors import BlobStoreUnavailable, PathRefused
from mr.ports.blob_store import BlobStore

Reopen = Callable[[], BlobStore]


def names(blobs: BlobStore, prefix: str = "") -> list[str]:
    return sorted(blob.name for blob in blobs.list(prefix))


class BlobStoreContract:
    """The promises of `BlobStore`."""

    def test_what_was_put_is_got_by_whoever_asks(self, blobs: BlobStore, reopen: Reopen) -> None:
        data = bytes(range(256)) * 2048
        blobs.put("w/r/x.1/0.17.pairs.3/00000000", data)
        blobs.put("w/r/x.1/0.17.pairs.3/00000001", b"")
        assert blobs.get("w/r/x.1/0.17.pairs.3/00000000") == data
        assert reopen().get("w/r/x.1/0.17.pairs.3/00000000") == data
        assert reopen().get("w/r/x.1/0.17.pairs.3/00000001") == b""

    def test_who_puts_again_replaces(self, blobs: BlobStore, reopen: Reopen) -> None:
        blobs.put("w/r/x/-/0", b"long, and old")
        blobs.put("w/r/x/-/0", b"new")
        assert blobs.get("w/r/x/-/0") == reopen().get("w/r/x/-/0") == b"new"
        assert names(blobs) == ["w/r/x/-/0"]

    def test_what_is_not_there_is_None(self, blobs: BlobStore) -> None:
        assert blobs.get("w/r/x/k/0") is None
        blobs.put("w/r/x/k/1", b"1")
        assert blobs.get("w/r/x/k/0") is None
        assert blobs.get("w/r2/x/k/1") is None

    def test_a_list_has_names_sizes_and_times(self, blobs: BlobStore) -> None:
        assert list(blobs.list()) == []
        before = time.time()
        for name in ("w/r/x/k/0", "w/r/x/k/1", "w/r/y/k/0", "w/r2/x/k/0", "v/r/x/k/0"):
            blobs.put(name, b"12345")
        found = list(blobs.list())
        assert sorted(blob.name for blob in found) == ["v/r/x/k/0", "w/r/x/k/0", "w/r/x/k/1", "w/r/y/k/0", "w/r2/x/k/0"]
        assert {blob.size_bytes for blob in found} == {5}
        for blob in found:
            # Seconds are kept whole by some, and the clock of a server is its own.
            assert blob.written_at is None or abs(blob.written_at - before) < 60

    def test_a_prefix_stands_for_whole_names(self, blobs: BlobStore) -> None:
        for name in ("w/r/x/k/0", "w/r/y/k/0", "w/r2/x/k/0", "w2/r/x/k/0"):
            blobs.put(name, b"1")
        assert names(blobs, "w") == ["w/r/x/k/0", "w/r/y/k/0", "w/r2/x/k/0"]
        assert names(blobs, "w/r") == ["w/r/x/k/0", "w/r/y/k/0"]
        assert names(blobs, "nobody/nothing") == []
        blobs.remove("w/r")
        assert names(blobs) == ["w/r2/x/k/0", "w2/r/x/k/0"]

    def test_removing_takes_all_below_and_a_repeat_finds_nothing(self, blobs: BlobStore, reopen: Reopen) -> None:
        for number in range(5):
            blobs.put(f"w/r/x/k{number % 3}/{number}", b"1")
        blobs.remove("w/r/x/k0/0")
        assert blobs.get("w/r/x/k0/0") is None
        assert blobs.get("w/r/x/k0/3") == b"1"
        blobs.remove("w/r")
        blobs.remove("w/r")
        blobs.remove("never/there")
        assert names(blobs) == []
        assert reopen().get("w/r/x/k1/1") is None
        blobs.put("w/r/x/k1/1", b"again")
        assert names(reopen()) == ["w/r/x/k1/1"]

    def test_several_threads_put_get_and_remove_at_once(self, blobs: BlobStore) -> None:
        problems: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for turn in range(2):
                    blobs.put(f"w/r{number}/x/k/{turn}", b"%d" % number)
                    assert blobs.get(f"w/r{number}/x/k/{turn}") == b"%d" % number
                    blobs.remove(f"w/r{number % 2}/x/gone")
                blobs.remove("w/together")
            except BaseException as error:
                problems.append(error)

        blobs.put("w/together/x/k/0", b"1")
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == []
        assert len(names(blobs)) == 8

    @pytest.mark.parametrize(
        "name",
        ["", "/", "/etc/passwd", "../w", "w/../../x", "w/./r", "w//r", "w/r/", ".w/r", "w/r\0", "w/ü", "w/%2e", "w\n"],
    )
    def test_a_name_that_means_another_place_is_refused(self, blobs: BlobStore, name: str) -> None:
        for use in (blobs.get, blobs.remove, lambda name: blobs.put(name, b"1")):
            with pytest.raises(PathRefused):
                use(name)
        if name:
            with pytest.raises(PathRefused):
                list(blobs.list(name))


class AwayContract:
    """What backends promise that may be away: a file for one gives `away`, a blob store that is."""

    def test_what_does_not_answer_is_no_empty_one(self, away: BlobStore) -> None:
        uses: list[Callable[[], object]] = [
            lambda: away.put("w/r/x/k/0", b"1"),
            lambda: away.get("w/r/x/k/0"),
            lambda: away.remove("w/r"),
            lambda: list(away.list()),
        ]
        for use in uses:
            with pytest.raises(BlobStoreUnavailable) as caught:
                use()
            assert "MR_BLOB_URL" in str(caught.value)
            assert "hidden" not in str(caught.value)
