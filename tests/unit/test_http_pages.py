"""The pages for people: what they list, what they refuse, and that nothing that others write becomes a part of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from mr.http import pages
from tests.unit import front_ends
from tests.unit.front_ends import Site

NASTY = "<script>alert(1)</script>\"'&{{ 7 * 7 }}"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(front_ends.parts(tmp_path))
    yield site
    site.close()


def page(site: Site, path: str, status: int = 200) -> str:
    answer = site.client.get(path, buffered=True)
    assert answer.status_code == status
    assert answer.content_type == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; ")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return answer.get_data(as_text=True)


def test_JX_50_the_jobs_of_all_workflows_are_listed_with_links(site: Site) -> None:
    site.parts.registry.create_workflow("bare", "Nothing in it")
    site.parts.registry.create_job("w", "k", "Another one", "s")
    shown = page(site, "/ui/job/")
    assert re.findall(r'href="(/ui/job/\w[^"]*)"', shown) == ["/ui/job/w/j", "/ui/job/w/k"]
    assert "Another one" in shown
    assert "mr job create bare NAME" in shown


def test_JX_50_the_page_of_a_job_has_a_form_that_posts_it(site: Site) -> None:
    shown = page(site, "/ui/job/w/j")
    assert 'data-path="/job/w/j"' in shown
    assert "step <b>s</b>" in shown
    assert "<b>mapper</b>" in shown


def test_JX_50_a_get_of_a_job_is_refused_and_says_how_to_post(site: Site) -> None:
    answer = site.client.get("/job/w/j")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/ui/job/w/nope", "workflow 'w' has no job 'nope'"),
        ("/ui/job/nope/j", "there is no workflow 'nope'"),
        ("/ui/job/w/%3Cb%3E", "a name"),
    ],
)
def test_what_does_not_exist_is_said_on_a_page(site: Site, path: str, text: str) -> None:
    shown = page(site, path, 404)
    assert text in unescape(shown)
    assert "<b>" not in shown


def test_nothing_that_others_write_becomes_a_part_of_a_page(site: Site) -> None:
    registry = site.parts.registry
    registry.update_workflow("w", NASTY)
    registry.update_job("w", "j", description=NASTY)
    registry.update_step("w", "s", description=NASTY)
    for path in ("/ui/job/", "/ui/job/w/j"):
        shown = page(site, path)
        assert "<script>" not in shown
        assert "49" not in shown.replace("&#49", "")
        assert NASTY in unescape(shown)


def test_a_page_loads_nothing_from_elsewhere_and_has_no_code_in_it(site: Site) -> None:
    for path in ("/ui/job/", "/ui/job/w/j", "/ui/job/w/nope"):
        shown = site.client.get(path).get_data(as_text=True)
        loaded = re.findall(r'<(?:script|link|img)[^>]* (?:src|href)="([^"]*)"', shown)
        assert loaded
        assert all(place.startswith("/s/") for place in loaded)
        assert [site.client.get(place, buffered=True).status_code for place in loaded] == [200] * len(loaded)
        assert not re.search(r"<script(?![^>]* src=)|<style| on\w+=| style=", shown)


def test_what_is_below_s_is_guarded_too_and_nothing_else_is_there(site: Site) -> None:
    answer = site.client.get("/s/job.js", buffered=True)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.mimetype == "text/javascript"
    assert "innerHTML" not in answer.get_data(as_text=True)
    for path in ("/s/", "/s/nope", "/s/../pages.py", "/s/%2e%2e/pages.py"):
        assert site.client.get(path).status_code == 404


def test_many_workflows_are_on_several_pages(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "WORKFLOWS_MAX", 2)
    for name in ("a", "b", "c"):
        site.parts.registry.create_workflow(name, "")
    found, path = [], "/ui/job/"
    while path:
        shown = page(site, path)
        found += re.findall(r"<h2>(\w+)</h2>", shown)
        more = re.search(r'href="(/ui/job/\?after=\w+)"', shown)
        path = more[1] if more else ""
    assert found == ["a", "b", "c", "w"]
