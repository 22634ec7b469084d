"""`mr logs` and `mr invocation show`: what went in, came out, was printed, and went wrong."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from mr.cli import exits
from mr.wiring import Parts
from tests.unit.command_line import done, mr
from tests.unit.small_worker import SmallWorker
from tests.unit.test_cli import document, failed, folder, parts, store, submitted, succeeded, workflow
from tests.unit.test_tracing import maps_to

__all__ = ["failed", "folder", "parts", "store", "succeeded", "workflow"]


def records(*words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done("logs", *words, "--json").stdout.splitlines()]


# Logs


def test_each_line_has_the_path_of_its_invocation_in_front(succeeded: str) -> None:
    lines = done("logs", succeeded[:8]).stdout.splitlines()
    assert [line.split() for line in lines] == [["0", "0", "maps"], *([f"0.{n}", f"0.{n}"] for n in range(3))]


@pytest.mark.parametrize("words", [["0.1"], ["{r}.0.1"]])
def test_the_log_of_one_invocation_can_be_asked_for(succeeded: str, words: list[str]) -> None:
    words = [succeeded, *words] if len(words[0]) == 3 else [words[0].format(r=succeeded[:8])]
    assert done("logs", *words).stdout.split() == ["0.1", "0.1"]


def test_a_log_is_also_one_document_a_line(succeeded: str) -> None:
    found = records(succeeded, "0.2")
    assert [(one["invocation"], one["line"], one["kind"]) for one in found] == [(f"{succeeded}.0.2", "0.2", "output")]
    assert (found[0]["workflow_name"], found[0]["request_id"]) == ("w", succeeded)
    assert found[0]["worker"] == "w1"
    assert found[0]["at"].startswith("20")


def test_a_failed_attempt_shows_what_it_printed_and_why_it_failed(failed: str) -> None:
    lines = done("logs", failed, "0.1").stdout.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ["0.1 was here", "✖ ValueError: boom"]
    assert [(one["kind"], one["attempt"]) for one in records(failed, "0.1")] == [("output", 1), ("error", 1)]


def test_a_request_that_printed_nothing_says_so(workflow: str) -> None:
    result = done("logs", submitted("a=1"))
    assert result.stdout == ""
    assert "nothing was printed so far" in result.stderr


@pytest.mark.parametrize("words", [["0.x"], ["nope"]])
def test_what_is_no_path_is_refused(succeeded: str, words: list[str]) -> None:
    assert mr("logs", succeeded, *words).exit_code == exits.FAILED
    assert mr("logs", f"{succeeded}.x").exit_code == exits.FAILED
    assert mr("logs", f"{succeeded}.0.1", "0.2").exit_code == exits.FAILED


def test_following_shows_each_line_once_and_ends_with_the_request(workflow: str, parts: Parts) -> None:
    r = submitted("a=1")
    small = SmallWorker(parts, maps_to(40))
    small.work("w", r, pieces=1, drain=True)
    first = parts.prints.follow("w", r)
    assert next(first).text == "0 maps\n"
    worker = threading.Thread(target=lambda: small.work("w", r))
    worker.start()
    rest = [one.path for one in first]
    worker.join()
    assert sorted(rest) == sorted(f"0.{child}" for child in range(40))
    assert len(done("logs", r, "--follow").stdout.splitlines()) == 41


def test_following_ends_when_the_request_is_cleaned_away(workflow: str, parts: Parts) -> None:
    r = submitted("a=1")
    SmallWorker(parts, maps_to(40)).work("w", r, pieces=1, drain=True)
    following = parts.prints.follow("w", r)
    next(following)
    done("request", "rm", r, "--force", "--yes")
    assert list(following) == []


# One invocation


def test_an_invocation_is_shown_with_what_went_in_and_came_out(succeeded: str) -> None:
    found = document("invocation", "show", f"{succeeded}.0.1")
    assert found["arguments"] == {"pairs": [["key1", 1]], "is_cut": False}
    assert found["result"] == {"pairs": [["key1", 1]], "is_cut": False}
    assert found["invocation"]["worker"] == "w1"
    shown = done("invocation", "show", f"{succeeded}.0.1").stdout
    for text in ('"key1": 1', "worker", "ended", "took", "printed"):
        assert text in shown


def test_a_reduce_is_shown_with_the_results_of_the_children(succeeded: str) -> None:
    found = document("invocation", "show", f"{succeeded}.0.r")
    assert found["arguments"]["pairs"] == [["key0", 0], ["key1", 1], ["key2", 2]]
    assert found["result"]["pairs"] == [["key0", 0], ["key1", 1], ["key2", 2]]
    assert "results given" in done("invocation", "show", f"{succeeded}.0.r").stdout


def test_what_is_not_there_yet_is_left_out(workflow: str, parts: Parts) -> None:
    r = submitted("a=1")
    found = document("invocation", "show", f"{r}.0")
    assert found["arguments"]["pairs"] == [["a", 1]]
    assert found["result"] is None


def test_much_data_is_cut_unless_all_is_asked_for(workflow: str, parts: Parts) -> None:
    r = submitted("a=1")
    SmallWorker(parts, maps_to(50)).work("w", r)
    shown = document("invocation", "show", f"{r}.0.r")
    assert (len(shown["result"]["pairs"]), shown["result"]["is_cut"]) == (20, True)
    assert "--all" in done("invocation", "show", f"{r}.0.r").stdout
    assert len(document("invocation", "show", f"{r}.0.r", "--all")["result"]["pairs"]) == 50


def test_a_failed_invocation_is_shown_with_its_attempts(failed: str) -> None:
    shown = done("invocation", "show", f"{failed}.0.1").stdout
    for text in ("ValueError: boom", "attempt 1", "on worker w1", "Traceback", "0.1 was here"):
        assert text in shown
    assert shown.count("0.1 was here") == 1
