"""Tracing on a whole mr: the picture of a request over HTTP and from the command line, by the real `dot`."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from tests.acceptance.conftest import Shared
from tests.acceptance.service import ROOT
from tests.acceptance.sources import ALL, RETURN, mapper
from tests.servers import program

PNG = b"\x89PNG\r\n\x1a\n"
SPREAD = mapper("yield MrConfigureToMap('leaf')\nfor number in range(20):\n    yield str(number), number")
FAILS = mapper("yield MrConfigureToReturn()\nfor key, value in arguments:\n    yield key, 1 / (value - 13)")


# One pair will do: what is drawn comes from services that are tested on all stores.
pytestmark = pytest.mark.parametrize("pair", ["embedded"], indirect=True)


@pytest.fixture(autouse=True)
def graphviz() -> None:
    """It is there, or the test is skipped."""
    program("dot")


def test_JX_49_the_picture_of_a_request_is_served_as_png(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (RETURN, ALL)})
    r = pair.post(w, {"a": 1}).request_id
    picture = pair.ask("GET", f"/request/{w}/{r}")
    assert (picture.status, picture.headers["content-type"]) == (200, "image/png")
    assert picture.body.startswith(PNG)
    assert picture.request_id == r
    record = pair.ask("GET", f"/request/{w}/{r}", headers={"Accept": "application/json"})
    assert record.json["job_name"] == "job"
    assert pair.ask("GET", f"/request/{w}/{'0' * 40}").status == 404


def test_JX_104_and_107_a_failed_request_is_drawn_by_the_command(pair: Shared, w: str) -> None:
    pair.define(w, {"start": (SPREAD, ALL), "leaf": (FAILS, ALL)})
    reply = pair.post(w)
    assert reply.error["type"] == "ZeroDivisionError"
    done = subprocess.run(
        [sys.executable, "-m", "mr.cli.main", "graph", f"{w}/{reply.request_id}", "--format", "svg", "--output", "-"],
        env=pair.environ, cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    texts = [one.text or "" for one in ET.fromstring(done.stdout).iter() if one.tag.endswith("}text")]
    assert f"Request ({reply.request_id[:10]})" in texts
    assert 'S "leaf" H "leaf_map" MI 0.13' in texts
    assert any("ZeroDivisionError: division by zero" in text for text in texts)
    assert "mapped to" in texts
