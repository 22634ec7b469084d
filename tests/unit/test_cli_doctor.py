"""`mr doctor`: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mr.cli import exits
from mr.codec import encode
from mr.model.condition import Condition, Health
from mr.ports.broker import Publication
from mr.ports.store import Put, Transaction
from mr.rules import keys
from mr.wiring import Parts
from tests.unit.command_line import done, mr
from tests.unit.test_cli import document, folder, offer, parts, store, submitted, workflow

__all__ = ["folder", "parts", "store", "workflow"]


def subjects(words: list[str]) -> dict[str, dict[str, str]]:
    found = json.loads(mr("doctor", "--json", *words).stdout)
    return {one["subject"]: one for one in found["conditions"]}


def test_all_is_well_where_a_worker_serves_everything(workflow: str, parts: Parts) -> None:
    offer(parts, "w9", ["general"])
    result = done("doctor")
    assert "✔ settings: all known" in result.stdout
    assert "✔ queues: all 2 are served" in result.stdout
    assert "0 broken" in result.stderr
    assert document("doctor")["is_healthy"] is True


def test_each_condition_that_is_not_well_says_what_to_do(workflow: str) -> None:
    for one in document("doctor")["conditions"]:
        assert bool(one["advice"]) is (one["health"] != "ok"), one


def test_messages_that_wait_for_nobody_end_it_with_1(workflow: str) -> None:
    submitted("a=1")
    result = mr("doctor")
    assert result.exit_code == exits.FAILED
    assert "✖ queue w/general: 1 messages wait, and nobody offers general" in result.stdout
    assert "mr worker --capabilities general" in result.stdout


def test_wrong_and_unknown_settings_are_conditions(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MR_EXECUTOR", "2")
    assert subjects([])["settings"]["health"] == "warn"
    monkeypatch.setenv("MR_EXECUTORS", "many")
    result = mr("doctor")
    assert result.exit_code == exits.FAILED
    assert "✖ settings: MR_EXECUTORS: expected" in result.stdout
    assert mr("doctor", "--json").exit_code == exits.FAILED


def test_servers_that_do_not_answer_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MR_STORE", "etcd3://127.0.0.1:1")
    monkeypatch.setenv("MR_BROKER", "nsq://127.0.0.1:2?lookupd=127.0.0.1:3")
    found = subjects([])
    for name in ("etcd 127.0.0.1:1", "nsqd 127.0.0.1:2", "nsqlookupd 127.0.0.1:3"):
        assert found[name]["health"] == "fail"
    assert mr("doctor").exit_code == exits.FAILED


def test_a_file_on_a_network_is_a_condition(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mr.adapters.sqlite_schema.file_system", lambda directory: "nfs4")
    found = subjects([])
    assert found["store"]["health"] == "fail"
    assert "network file system (nfs4)" in found["store"]["found"]


def test_a_topic_of_no_workflow_is_told(workflow: str, parts: Parts) -> None:
    parts.publisher.publish([Publication("mr.old.map.x", b"x")])
    assert subjects([])["queue mr.old.map.x"]["health"] == "warn"


# Orphans


def test_without_orphans_there_is_nothing_to_do(workflow: str, parts: Parts) -> None:
    submitted("a=1")
    assert "no orphans" in done("doctor", "--orphans").stderr
    assert document("doctor", "--orphans") == []


def test_orphans_are_shown_and_removed_if_asked(
    workflow: str, parts: Parts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    key = keys.stopped("w", "a" * 40)
    parts.store.commit(Transaction(operations=[Put(key, encode({"epoch": 1}))]))
    shown = done("doctor", "--orphans")
    assert "1 stopped" in shown.stdout
    assert "mr doctor --orphans --remove" in shown.stderr
    assert document("doctor", "--orphans")[0]["keys"] == {"stopped": 1}
    assert mr("doctor", "--orphans", "--remove").exit_code == exits.USAGE
    assert parts.store.get(key) is not None
    assert "removed 1 keys of 1 requests" in done("doctor", "--orphans", "--remove", "--yes").stderr
    assert parts.store.get(key) is None


def test_removing_goes_with_orphans_only(store: str) -> None:
    assert mr("doctor", "--remove").exit_code == exits.USAGE


def test_a_condition_is_one_word_of_health() -> None:
    assert json.loads(encode(Condition("s", Health.WARN, "f", "a")))["health"] == "warn"


# Blobs


def test_a_blob_store_is_written_and_read(store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "blobs"
    monkeypatch.setenv("MR_BLOB_URL", f"file://{place}")
    one = subjects([])["blob store"]
    assert one["health"] == "fail"
    assert "has to be there" in one["found"]
    assert "MR_BLOB_URL" in one["advice"]
    place.mkdir()
    assert subjects([])["blob store"] == {
        "subject": "blob store", "health": "ok", "found": f"file://{place} can be written and read", "advice": ""
    }  # fmt: skip
    assert list(place.iterdir()) == []


def test_blobs_without_their_request_are_shown_and_removed(
    workflow: str, store: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("MR_BLOB_URL", f"file://{tmp_path}")
    orphan = tmp_path / "w" / ("a" * 40) / "x" / "k" / "0"
    orphan.parent.mkdir(parents=True)
    orphan.write_text("[1]")
    os.utime(orphan, (0, 0))
    assert document("doctor", "--orphans")[0]["keys"] == {"blobs": 1}
    assert "removed 0 keys and 1 blobs of 1 requests" in done("doctor", "--orphans", "--remove", "--yes").stderr
    assert not orphan.exists()
