"""Requests over HTTP: the record, and the result for those who come later."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mr.model.request import RequestState
from mr.rules import keys
from tests.servers import program
from tests.unit import front_ends
from tests.unit.front_ends import REPORT, Site

JSON = {"Accept": "application/json"}
NOBODY = "0" * 40


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(front_ends.parts(tmp_path))
    yield site
    site.close()


def accepted(site: Site) -> str:
    r: str = site.post(query="?blocking=0").headers["X-MR-REQUEST-ID"]
    return r


def test_the_record_is_shown_as_it_is_stored(site: Site) -> None:
    r = accepted(site)
    answer = site.client.get(f"/request/w/{r}", headers=JSON)
    assert answer.status_code == 200
    entry = site.parts.store.get(keys.request("w", r))
    assert entry is not None
    assert answer.data == entry.value
    assert answer.headers["X-MR-REQUEST-ID"] == r


@pytest.mark.parametrize("accept", ["*/*", "image/png", "text/html", "image/*,*/*;q=0.8"])
def test_JX_49_a_request_is_a_picture_unless_json_is_asked_for(site: Site, accept: str) -> None:
    program("dot")
    r = accepted(site)
    answer = site.client.get(f"/request/w/{r}", headers={"Accept": accept})
    assert (answer.status_code, answer.content_type) == (200, "image/png")
    assert answer.data.startswith(b"\x89PNG")
    assert answer.headers["X-MR-REQUEST-ID"] == r
    assert "Accept" in answer.headers["Vary"]


def test_JX_49_without_graphviz_the_picture_is_503_and_says_what_to_install(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    r = accepted(site)
    monkeypatch.setenv("PATH", "/nowhere")
    answer = site.client.get(f"/request/w/{r}")
    assert answer.status_code == 503
    error = answer.get_json()["error"]
    assert error["code"] == "picture_unavailable"
    assert "apt-get install graphviz" in error["hint"]
    assert site.client.get(f"/request/w/{r}", headers=JSON).status_code == 200


def test_others_are_served_while_a_picture_is_drawn(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    r = accepted(site)
    may_end = threading.Event()

    def draw(*_: object) -> bytes:
        may_end.wait(20.0)
        return b"picture"

    monkeypatch.setattr(site.parts.pictures, "draw", draw)
    pictures = [site.in_background(lambda: site.client.get(f"/request/w/{r}")) for _ in range(4)]
    assert site.client.get(f"/request/w/{r}", headers=JSON).status_code == 200
    assert not any(picture.ready() for picture in pictures)
    may_end.set()
    site.until(lambda: all(picture.ready() for picture in pictures))
    assert [picture.value.data for picture in pictures] == [b"picture"] * 4


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/plain, */*"])
def test_who_names_json_gets_the_record(site: Site, accept: str) -> None:
    assert site.client.get(f"/request/w/{accepted(site)}", headers={"Accept": accept}).status_code == 200


@pytest.mark.parametrize("tail", ["", "/result"])
@pytest.mark.parametrize("place", [f"w/{NOBODY}", f"nobody/{NOBODY}", "w/1", "w/%20", f"a%20b/{NOBODY}"])
def test_unknown_requests_are_404(site: Site, place: str, tail: str) -> None:
    answer = site.client.get(f"/request/{place}{tail}", headers=JSON)
    assert answer.status_code == 404
    assert answer.get_json()["error"]["code"] in ("request_not_found", "invalid_name")


def test_the_result_of_a_running_request_is_pending(site: Site) -> None:
    front_ends.enlist(site.parts.store)
    answer = site.client.get(f"/request/w/{accepted(site)}/result")
    assert answer.status_code == 202
    assert answer.get_json() == {"result": None}
    assert answer.headers["Retry-After"] == "1"


def test_the_result_of_a_failed_request_is_that_of_a_failed_post(site: Site) -> None:
    r = accepted(site)
    front_ends.end(site.parts.store, site.parts.retention, "w", r, RequestState.FAILED, error=REPORT)
    answer = site.client.get(f"/request/w/{r}/result")
    assert answer.status_code == 500
    assert answer.headers["X-MR-EXCEPTION-TYPE"] == "ValueError"
    assert answer.get_json()["error"]["traceback"] == "T"
    assert answer.headers["X-MR-REQUEST-ID"] == r


def test_reading_a_result_lets_its_request_go_soon(site: Site) -> None:
    r = accepted(site)
    front_ends.end(site.parts.store, site.parts.retention, "w", r, RequestState.SUCCEEDED, inline=[["a", 1]])
    assert site.client.head(f"/request/w/{r}/result").status_code == 200
    site.front_end.deliveries.flush()
    assert len(site.keys_below(keys.DUE)) == 1
    for _ in range(2):
        answer = site.client.get(f"/request/w/{r}/result")
        assert answer.get_json() == {"result": {"pairs": [["a", 1]]}}
    site.until(lambda: len(site.keys_below(keys.DUE)) == 2)


def test_a_result_that_is_cleaned_away_is_404(site: Site) -> None:
    r = accepted(site)
    front_ends.end(site.parts.store, site.parts.retention, "w", r, RequestState.SUCCEEDED, inline=[["a", 1]])
    site.parts.cleaner.remove("w", r)
    answer = site.client.get(f"/request/w/{r}/result")
    assert answer.status_code == 404


def test_a_result_whose_data_is_gone_while_its_record_stands_is_404(site: Site) -> None:
    r = accepted(site)
    front_ends.end(site.parts.store, site.parts.retention, "w", r, RequestState.SUCCEEDED, inline=[["a", 1]])
    site.parts.store.delete_prefix(keys.facts("w", r))
    assert site.client.get(f"/request/w/{r}/result").status_code == 404
