"""Requests bigger than their share of the store: right with a blob store, whole when looked at, and gone when cleaned.

On one pair of backends: what a blob store does is nothing to them.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mr.rules import keys
from tests.acceptance.service import Service, eventually
from tests.acceptance.sources import map_to, mapper, reducer

_NUMBERS = itertools.count(1)
MB = 1024 * 1024
SHARE_MB = 2
FIRST = "yield MrConfigureToReturn()\n"
SIZES = reducer("for k, v in results: yield k, sum(map(len, v))", capability="last")
TOTALS = reducer("for k, v in results: yield k, sum(sum(x) if isinstance(x, list) else x for x in v)")
BIG = {
    # 8 children send 1 MB each to another reducer, in pieces.
    "start": (map_to("leaf", "[(n, n) for n in range(8)]"), TOTALS),
    "leaf": (mapper(f"{FIRST}for n in range(100): yield n, 'x' * 10_000"), SIZES),
}
EXPECTED = [[n, ["x" * 10_000]] for n in range(500)]


CHILDREN = 180
"""Of 20 kB each these are more than a share, and less than two, which is what records may take."""


def many(capability: str = "none", children: int = CHILDREN) -> dict[str, tuple[str, str]]:
    """A job whose children send 20 kB each, none of them too much for a record, all of them for the share."""
    code = f"import time\n{FIRST}time.sleep(0.02)\nfor n, _ in arguments: yield 'all', 'x' * 20_000"
    keep = reducer("for k, v in results: yield k, v[0]", capability=capability)
    total = reducer("for k, v in results: yield k, sum(map(len, v))", capability="last")
    return {
        "start": (map_to("leaf", f"[(n, n) for n in range({children})]"), total),
        "leaf": (mapper(code, capability=capability), keep),
    }


def answer(capability: str = "none") -> dict[str, tuple[str, str]]:
    """A job that answers with 5 MB; all of it runs where there is the capability."""
    code = f"{FIRST}for n in range(500): yield n, 'x' * 10_000"
    keep = reducer("for k, v in results: yield k, list(v)", capability=capability)
    return {"start": (mapper(code, capability=capability), keep)}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An mr with a small share for each request, that removes nothing by itself, and a directory for blobs."""
    place = tmp_path_factory.mktemp("blobs")
    settings = {
        "MR_REQUEST_STORE_MB": str(SHARE_MB),
        "MR_BLOB_URL": f"file://{place}",
        "MR_DO_CLEANUP_REQUESTS": "0",
    }
    with Service("embedded", settings) as service:
        with service.web(), service.worker("general"), service.worker("last", MR_EXECUTORS="1"):
            yield service


@pytest.fixture
def place(service: Service) -> Path:
    return Path(service.environ["MR_BLOB_URL"].removeprefix("file://"))


@pytest.fixture
def w(service: Service) -> Iterator[str]:
    name = f"b-{next(_NUMBERS)}"
    yield name
    service.forget(name)


def blobs(place: Path, w: str, r: str) -> dict[str, bytes]:
    """What lies there of a request, by the names of the blobs, without what is being written."""
    found = [path for path in (place / w / r).rglob("*") if ".new-" not in path.name and path.is_file()]
    return {str(path.relative_to(place)): path.read_bytes() for path in found}


def kept(service: Service, w: str, r: str) -> int:
    """Bytes in the store for the data of a request."""
    return sum(len(value) for value in service.entries(keys.datasets(w, r)).values())


def test_big_data_goes_on_in_blobs_and_comes_out_right(service: Service, w: str, place: Path) -> None:
    service.define(w, BIG)
    reply = service.post(w)
    assert sorted(reply.pairs) == [[n, 80_000] for n in range(100)]
    r = reply.request_id
    found = blobs(place, w, r)
    assert sum(map(len, found.values())) > 4 * MB
    assert kept(service, w, r) < 4 * MB
    named = [json.loads(value) for value in service.entries(keys.datasets(w, r)).values() if value[:1] == b"{"]
    assert sorted(one["blob"] for one in named) == sorted(found)
    assert all(len(found[one["blob"]]) == one["bytes"] for one in named)


def test_many_results_that_are_each_small_enough_go_on_in_blobs(service: Service, w: str, place: Path) -> None:
    service.define(w, many())
    reply = service.post(w)
    assert reply.pairs == [["all", CHILDREN * 20_000]]
    found = blobs(place, w, reply.request_id)
    assert found
    assert all(20_000 < len(data) < 21_000 for data in found.values())


def test_an_answer_in_blobs_is_read_by_the_front_end_and_the_dump(service: Service, w: str, place: Path) -> None:
    service.define(w, answer())
    reply = service.post(w)
    assert sorted(reply.pairs) == EXPECTED
    r = reply.request_id
    assert blobs(place, w, r)
    with service.process("request", "dump", f"{w}/{r}", "--all", "--json") as dump:
        eventually(lambda: dump.has_ended, "the dump is written")
    (root,) = [one for one in map(json.loads, dump.log.splitlines()) if one.get("path") == "0"]
    assert sorted(root["reduced"]["pairs"]) == EXPECTED
    again = service.ask("GET", f"/request/{w}/{r}/result")
    assert sorted(again.pairs) == EXPECTED


def test_a_blob_store_that_is_away_holds_its_request_up_and_changes_nothing(
    service: Service, w: str, place: Path
) -> None:
    service.define(w, answer("away"))
    elsewhere = place.with_name("unmounted")
    try:
        with service.worker("away", only=w) as worker:
            place.rename(elsewhere)
            r = service.start(w)
            eventually(lambda: "MR_BLOB_URL" in worker.log, "the worker says what it waits for")
            assert not service.request(w, r).state.is_final
            elsewhere.rename(place)
            eventually(lambda: service.request(w, r).state.is_final, "the request is over")
        place.rename(elsewhere)
        with pytest.raises(http.client.IncompleteRead):
            # What stands in the store was on its way already: the answer breaks off, it does not end.
            service.ask("GET", f"/request/{w}/{r}/result")
        elsewhere.rename(place)
    finally:
        if elsewhere.exists():
            elsewhere.rename(place)
    assert sorted(service.ask("GET", f"/request/{w}/{r}/result").pairs) == EXPECTED


def test_the_blobs_of_a_lost_worker_are_in_no_result_and_go_with_the_request(
    service: Service, w: str, place: Path
) -> None:
    code = f"import time\n{FIRST}for n in range(500):\n    time.sleep(0.002)\n    yield n, 'x' * 10_000"
    service.define(w, {"start": (mapper(code, capability="doomed"), answer("doomed")["start"][1])})
    with service.worker("doomed", only=w) as first:
        r = service.start(w)
        eventually(lambda: blobs(place, w, r), "the worker writes blobs")
        assert not service.request(w, r).state.is_final
        first.kill()
    lost = set(os.listdir(place / w / r))
    with service.worker("doomed", only=w):
        assert sorted(service.result(w, r).pairs) == EXPECTED
    assert len(lost) == 1
    assert lost < set(os.listdir(place / w / r))
    service.parts.cleaner.remove(w, r)
    assert not (place / w / r).exists()


def test_what_is_removed_leaves_neither_key_nor_blob(service: Service, w: str, place: Path) -> None:
    service.define(w, answer())
    r = service.post(w).request_id
    assert blobs(place, w, r)
    with service.process("request", "rm", f"{w}/{r}", "--yes") as removal:
        eventually(lambda: removal.has_ended, "the request is removed")
    assert not [key for key in service.entries("") if r in key], removal.log
    assert not (place / w / r).exists()


def test_the_cleaner_takes_the_blobs_with_the_request(service: Service, w: str, place: Path) -> None:
    service.define(w, answer("tidy"))
    with service.worker("tidy", only=w, MR_DO_CLEANUP_REQUESTS="1", MR_CLEANUP_MANDATORY_QUIET_PERIOD_S="1"):
        r = service.post(w).request_id
        assert blobs(place, w, r)
        eventually(lambda: not [key for key in service.entries("") if r in key], "every key of the request is gone")
    assert not (place / w / r).exists()


@pytest.mark.parametrize("what", ["arguments", "results"])
def test_a_blob_that_somebody_removed_fails_what_needs_it_with_its_name(
    service: Service, w: str, place: Path, what: str
) -> None:
    """Nobody offers what the next handler needs until the blobs are gone."""
    count = reducer("for k, v in results: yield k, len(v)", capability="later")
    if what == "results":
        steps = {"start": (mapper(f"{FIRST}for n in range(400): yield n, 'x' * 10_000"), count)}
    else:
        leaf = mapper(f"{FIRST}for n, text in arguments: yield n, len(text)", capability="later")
        steps = {"start": (map_to("leaf", "[(n, 'x' * 10_000) for n in range(400)]"), count), "leaf": (leaf, count)}
    service.define(w, steps)
    r = service.start(w)
    eventually(lambda: keys.manifest(w, r, "0") in service.entries(keys.facts(w, r)), "its data waits for the next")
    assert blobs(place, w, r)
    shutil.rmtree(place / w / r)
    with service.worker("later", only=w):
        reply = service.result(w, r)
    assert reply.error["class"] == "lost_data"
    for word in (r, "queues/dataset/", f"file://{place}", "MR_BLOB_URL"):
        assert word in reply.error["message"]


def test_without_a_blob_store_it_fails_and_says_what_would_help(service: Service, w: str) -> None:
    service.define(w, many("poor", 4 * CHILDREN))
    with service.worker("poor", only=w, MR_BLOB_URL=""):
        error = service.post(w).error
    assert (error["class"], error["type"]) == ("output_limit", "RequestTooBig")
    assert f"more than {SHARE_MB} MB in the store (MR_REQUEST_STORE_MB)" in error["message"]
    assert "MR_BLOB_URL" in error["message"]
