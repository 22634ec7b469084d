"""Limits on both sides: just below, the request ends right; just above, the client is told which limit and setting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mr.rules import keys, limits
from tests.acceptance.conftest import Shared
from tests.acceptance.service import Reply
from tests.acceptance.sources import ALL, RETURN, map_to, mapper, module, reducer

FIRST = "yield MrConfigureToReturn()\n"
TIGHT = "tight"
BOTH = pytest.mark.parametrize("is_above", [False, True], ids=["below", "above"])


@pytest.fixture(scope="module")
def tight(pair: Shared) -> Iterator[Shared]:
    """A worker with small limits, for handlers that require `tight`."""
    settings = {
        "MR_REQUEST_STORE_MB": "4",
        "MR_DATASET_MAX_MB": "2",
        "MR_HANDLER_TIMEOUT_S": "2",
        "MR_HANDLER_OUTPUT_MB": "0.001",
        "MR_HANDLER_MEMORY_MB": "400",
    }
    with pair.worker(TIGHT, **settings):
        yield pair


COUNT = reducer("for k, v in results: yield k, len(v)", capability=TIGHT)
KEEP = reducer("for k, v in results: yield k, v[0]", capability=TIGHT)


def refused(reply: Reply, class_: str, *said: str) -> Any:
    """The error of a reply, with all that it must say."""
    error = reply.error
    assert error["class"] == class_, error
    assert all(text in error["message"] for text in said), error
    return error


@BOTH
def test_what_many_small_results_keep_in_the_store_is_bounded(tight: Shared, w: str, is_above: bool) -> None:
    """300 children keep 3 MB, or 6 MB, of results."""
    code = (
        f"import time\n{FIRST}time.sleep(0.002)\nfor n, _ in arguments: yield n, 'x' * {20_000 if is_above else 10_000}"
    )
    leaf = mapper(code, capability=TIGHT)
    tight.define(w, {"start": (map_to("leaf", "[(n, n) for n in range(300)]"), COUNT), "leaf": (leaf, KEEP)})
    reply = tight.post(w)
    if is_above:
        error = refused(reply, "output_limit", "more than 4 MB in the store (MR_REQUEST_STORE_MB)")
        assert (error["type"], error["handler"]) == ("RequestTooBig", "leaf_map")
        found = sum(len(key) + len(value) for key, value in tight.entries(keys.facts(w, reply.request_id)).items())
        assert found < 6 * 2**20
    else:
        assert sorted(reply.pairs) == [[n, 1] for n in range(300)]


@BOTH
def test_what_big_lists_keep_in_the_store_is_bounded(tight: Shared, w: str, is_above: bool) -> None:
    """Each of a few children sends away 1 MB in pieces, for another worker to reduce."""
    leaf = mapper(f"{FIRST}for n in range(100): yield n, 'x' * 10_000", capability=TIGHT)
    children = f"[(n, n) for n in range({30 if is_above else 3})]"
    sizes = reducer("for k, v in results: yield 'size', sum(map(len, v))", capability="gpu")
    tight.define(w, {"start": (map_to("leaf", children), ALL), "leaf": (leaf, sizes)})
    reply = tight.post(w)
    if is_above:
        refused(reply, "output_limit", "MR_REQUEST_STORE_MB")
        data = tight.entries(keys.datasets(w, reply.request_id)).values()
        assert 3 * 2**20 < sum(map(len, data)) < 10 * 2**20
    else:
        [[key, sizes_]] = reply.pairs
        assert (key, sizes_) == ("size", [10_000] * 300)


@BOTH
def test_the_pairs_of_one_invocation_are_bounded(tight: Shared, w: str, is_above: bool) -> None:
    leaf = mapper(f"{FIRST}for n in range({250 if is_above else 150}): yield 'k', 'x' * 10_000", capability=TIGHT)
    tight.define(w, {"start": (leaf, COUNT)})
    reply = tight.post(w)
    if is_above:
        refused(reply, "output_limit", "2097152 bytes", "MR_DATASET_MAX_MB")
    else:
        assert reply.pairs == [["k", 150]]


@BOTH
def test_an_invocation_has_its_time_from_the_settings(tight: Shared, w: str, is_above: bool) -> None:
    leaf = mapper(f"import time\n{FIRST}time.sleep({60 if is_above else 0.2})\nyield 1, 1", capability=TIGHT)
    tight.define(w, {"start": (leaf, COUNT)})
    reply = tight.post(w)
    if is_above:
        refused(reply, "timeout", "2 s", "MR_HANDLER_TIMEOUT_S")
    else:
        assert reply.pairs == [[1, 1]]


@BOTH
def test_output_beyond_its_limit_is_cut_and_never_an_error(tight: Shared, w: str, is_above: bool) -> None:
    size = 1200 if is_above else 1000
    tight.define(w, {"start": (mapper(f"print('y' * {size}, end='')\n{FIRST}yield 1, 1", capability=TIGHT), COUNT)})
    reply = tight.post(w)
    assert reply.pairs == [[1, 1]]
    done = tight.facts(w, reply.request_id)["done/-/0"]
    if is_above:
        assert done["outputs"]["0"] == "y" * 1048 + "\n… output cut at 1048 bytes (MR_HANDLER_OUTPUT_MB)"
    else:
        assert done["outputs"]["0"] == "y" * 1000


@BOTH
@pytest.mark.parametrize("where", ["settings", "header"])
def test_an_executor_has_its_memory(tight: Shared, w: str, where: str, is_above: bool) -> None:
    """400 MB by the settings, of which the header may leave 200 MB."""
    own = {"memory_mb": 200} if where == "header" else {}
    size_mb = (500 if is_above else 250) if where == "settings" else (250 if is_above else 50)
    code = f"def handle(arguments, ctx):\n    yield 'size', len(bytearray({size_mb} * 1024 * 1024))"
    tight.define(w, {"start": (module("mapper", code, capability=TIGHT, timeout_s=60, **own), COUNT)})
    reply = tight.post(w)
    if is_above:
        named = "MR_HANDLER_MEMORY_MB" if where == "settings" else "memory_mb of handler start_map"
        error = refused(reply, "memory", f"{200 if own else 400} MB", named)
        assert (error["type"], error["attempt"], error["handler"]) == ("MemoryError", 2, "start_map")
    else:
        assert reply.pairs == [["size", 1]]


@BOTH
def test_a_header_may_not_ask_for_more_memory_than_the_worker_gives(tight: Shared, w: str, is_above: bool) -> None:
    code = f"def handle(arguments, ctx):\n    yield 'size', len(bytearray({500 if is_above else 250} * 1024 * 1024))"
    tight.define(w, {"start": (module("mapper", code, capability=TIGHT, timeout_s=60, memory_mb=2000), COUNT)})
    reply = tight.post(w)
    if is_above:
        refused(reply, "memory", "400 MB", "MR_HANDLER_MEMORY_MB")
    else:
        assert reply.pairs == [["size", 1]]


def test_a_handler_that_eats_memory_bit_by_bit_fails_and_the_next_one_has_all_of_it(tight: Shared, w: str) -> None:
    code = f"{FIRST}x = []\nfor key, _ in arguments:\n    while key == 'hog': x.append('y' * 100_000 + str(len(x)))\n"
    code += "    yield key, len(bytearray(250 * 1024 * 1024))"
    tight.define(w, {"start": (mapper(code, capability=TIGHT), COUNT)})
    for _ in range(4):
        refused(tight.post(w, {"hog": 1}), "memory", "400 MB (MR_HANDLER_MEMORY_MB)")
        assert tight.post(w, {"modest": 1}).pairs == [["modest", 1]]


@BOTH
def test_a_session_is_bounded(pair: Shared, w: str, is_above: bool) -> None:
    """A key of one byte, and a value with its two quotation marks."""
    rest = limits.SESSION_MAX - 2 * limits.VALUE_MAX // 2 - 20
    code = f"S_SET('a', 'x' * {limits.VALUE_MAX // 2})\nS_SET('b', 'x' * {limits.VALUE_MAX // 2})\n"
    code += f"S_SET('c', 'x' * {rest + (100 if is_above else 0)})\n"
    pair.define(w, {"start": (mapper(code + RETURN_ONE), ALL)})
    reply = pair.post(w)
    if is_above:
        refused(reply, "output_limit", "session", str(limits.SESSION_MAX))
    else:
        assert reply.pairs == [[1, [1]]]


RETURN_ONE = FIRST + "yield 1, 1"


@BOTH
def test_the_arguments_of_a_request_are_bounded(pair: Shared, w: str, is_above: bool) -> None:
    """Below the limit they are more than a message carries; above it, each is still small enough."""
    size = mapper(f"{FIRST}yield 'size', sum(len(value) for _, value in arguments)")
    pair.define(w, {"start": (size, ALL)})
    each = limits.ARGUMENTS_MAX // 4 - (20 if not is_above else 11)
    reply = pair.post(w, {str(n): "x" * each for n in range(4)})
    if is_above:
        assert reply.status in (400, 413)
        assert "shared file system" in reply.json["error"]["hint"]
    else:
        assert reply.pairs == [["size", [4 * each]]]


@BOTH
def test_one_argument_is_bounded_like_any_value(pair: Shared, w: str, is_above: bool) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    reply = pair.post(w, {"a": "x" * (limits.VALUE_MAX - (0 if is_above else 100))})
    if is_above:
        assert reply.status == 400
        assert "argument 'a' is" in reply.json["error"]["message"]
        assert str(limits.VALUE_MAX) in reply.json["error"]["message"]
    else:
        assert reply.status == 200


@BOTH
def test_the_children_of_one_mapper_are_bounded(pair: Shared, w: str, is_above: bool) -> None:
    """The limit is 2^20; to map to as many and run none of them, the mapper fails in the end."""
    count = 2**20 + (1 if is_above else 0)
    code = f"yield MrConfigureToMap('leaf')\nfor n in range({count}): yield 0, 0\nraise KeyError('all were taken')"
    pair.define(w, {"start": (mapper(code), ALL), "leaf": (RETURN, ALL)})
    reply = pair.post(w)
    if is_above:
        refused(reply, "output_limit", "more than 1048576 children")
    else:
        refused(reply, "exception", "all were taken")
