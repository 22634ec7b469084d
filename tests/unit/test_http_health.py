"""Who we are, whether the process lives, and whether it can do its work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mr.errors import StoreUnavailable
from tests.unit import front_ends
from tests.unit.front_ends import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(front_ends.parts(tmp_path, MR_WORKFLOW_NAMES="w,second"))
    yield site
    site.close()


def test_the_root_says_the_words(site: Site) -> None:
    answer = site.client.get("/")
    assert answer.status_code == 200
    assert answer.text == "Map me. Reduce me."
    assert answer.content_type.startswith("text/plain")


def test_readiness_names_a_missing_workflow_and_how_to_make_it(site: Site) -> None:
    answer = site.client.get("/readyz")
    assert answer.status_code == 503
    checks = answer.get_json()["checks"]
    assert checks["store"] == checks["workflow w"] == {"ok": True}
    assert not checks["workflow second"]["ok"]
    assert "mr workflow create second" in checks["workflow second"]["message"]
    assert "broker" not in checks, "a broker that is in the store has nothing of its own to answer"


def test_a_front_end_with_everything_is_ready(site: Site) -> None:
    front_ends.define(site.parts, "second")
    answer = site.client.get("/readyz")
    assert answer.status_code == 200
    assert answer.get_json()["ready"] is True


def test_a_process_whose_store_is_away_lives_and_is_not_ready(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Any:
        raise StoreUnavailable("nobody there")

    monkeypatch.setattr(site.parts.store, "revision", refuse)
    assert site.client.get("/livez").status_code == 200
    answer = site.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.get_json()["checks"] == {
        "store": {"ok": False, "code": "store_unavailable", "message": "nobody there"}
    }


@pytest.mark.parametrize(("instances", "status"), [({"n:4151": "1"}, 200), ({}, 503)])
def test_a_broker_of_its_own_must_have_an_instance_that_answers(
    site: Site, monkeypatch: pytest.MonkeyPatch, instances: dict[str, str], status: int
) -> None:
    front_ends.define(site.parts, "second")
    monkeypatch.setattr(site.parts.publisher, "joins_commit", False)
    monkeypatch.setattr(site.parts.publisher, "instances", lambda: instances)
    answer = site.client.get("/readyz")
    assert answer.status_code == status
    assert answer.get_json()["checks"]["broker"]["ok"] is (status == 200)
