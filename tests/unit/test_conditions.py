"""Where good ends: versions, clocks, space, limits of the machine, the fleet."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest

import mr
from mr.adapters.brokers import nsq
from mr.adapters.sqlite_condition import WAL_WARN_BYTES
from mr.adapters.stores.etcd3 import condition as etcd3_condition
from mr.adapters.stores.sqlite import SqliteStore
from mr.errors import BrokerUnavailable, ConfigError, StoreUnavailable
from mr.model.condition import Condition, Health, fine
from mr.model.invocation import WorkerRecord
from mr.model.language import Language
from mr.ports.broker import Backlog, Publisher
from mr.ports.store import Store
from mr.rules import condition
from mr.services import machine
from mr.services.checkup import checkup, of_files, of_fleet, of_settings
from mr.services.fleet import Fleet, Picture, Queue, Running, unserved
from mr.services.isolation import Isolation
from mr.settings import Machine, Settings
from mr.wiring import Parts

OK, WARN, FAIL = Health.OK, Health.WARN, Health.FAIL
GIB = 1 << 30


def is_told(one: Condition) -> bool:
    """Whether it says what to do exactly where something is to be done."""
    return bool(one.found) and bool(one.advice) is (one.health is not OK)


@pytest.mark.parametrize(("ahead_s", "health"), [(0.6, OK), (-1.9, OK), (3.0, WARN), (-59, WARN), (61, FAIL)])
def test_clocks_may_differ_a_little(ahead_s: float, health: Health) -> None:
    one = condition.clock("x", ahead_s)
    assert one.health is health
    assert is_told(one)
    assert health is OK or ("ahead" in one.found) is (ahead_s > 0)


def test_the_clock_of_a_server_is_read_from_its_answer() -> None:
    date = "Sat, 21 Nov 2026 15:53:42 GMT"
    at = 1795276422.0
    assert condition.ahead(date, at, at + 1.0) == 0.0
    assert condition.ahead(date, at - 10, at - 9) == 10.0
    assert condition.ahead("soon", at, at) is None
    assert condition.ahead(None, at, at) is None


@pytest.mark.parametrize(("used", "health"), [(0.59, OK), (0.6, WARN), (0.79, WARN), (0.8, FAIL), (1.5, FAIL)])
def test_a_quota_is_warned_of_in_time(used: float, health: Health) -> None:
    one = condition.used("x", int(used * 2 * GIB) + 1, 2 * GIB, "remove something")
    assert one.health is health
    assert is_told(one)


@pytest.mark.parametrize(("free", "health"), [(2 * GIB, OK), (GIB - 1, WARN), ((100 << 20) - 1, FAIL)])
def test_a_full_disk_is_warned_of_in_time(free: int, health: Health) -> None:
    one = condition.free("x", free, "/there")
    assert one.health is health
    assert is_told(one)
    assert "/there" in one.found


@pytest.mark.parametrize(
    ("text", "health"),
    [
        ("3.4.23", OK), ("3.5.3", OK), ("3.6.0", OK), ("3.10.1", OK), ("3.5.0-rc.1", FAIL), ("3.5.0", FAIL),
        ("3.5.2", FAIL), ("3.3.27", FAIL), ("2.3.8", FAIL), ("", WARN), ("unknown", WARN),
    ],
)  # fmt: skip
def test_bad_versions_of_etcd_are_known(text: str, health: Health) -> None:
    one = etcd3_condition.version("etcd", text)
    assert one.health is health
    assert is_told(one)


@pytest.mark.parametrize(
    ("text", "health"),
    [("1.2.0", OK), ("1.2.1-alpha", OK), ("1.3.0", OK), ("1.1.0", FAIL), ("0.3.8", FAIL), ("", FAIL)],
)
def test_old_versions_of_nsqd_are_known(text: str, health: Health) -> None:
    one = nsq.version("nsqd", text)
    assert one.health is health
    assert is_told(one)


def test_an_etcd_that_nobody_compacts_is_warned_of() -> None:
    assert etcd3_condition.compaction("x", 900_000, 0).health is OK
    assert etcd3_condition.compaction("x", 9_000_000, 8_500_000).health is OK
    assert etcd3_condition.compaction("x", 9_000_000, 10).health is WARN


# The file of SQLite


def by_subject(store: Store) -> dict[str, Condition]:
    return {one.subject: one for one in store.conditions()}


def test_a_good_file_has_nothing_to_be_done(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mr.db")
    found = by_subject(store)
    store.close()
    assert all(is_told(one) for one in found.values())
    assert {one.health for one in found.values()} == {OK}
    assert set(found) == {"store", "store file system", "store permissions", "store disk", "store log"}


def test_a_file_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mr.db")
    os.chmod(tmp_path / "mr.db", 0o640)
    found = by_subject(store)["store permissions"]
    store.close()
    assert found.health is WARN
    assert "chmod 600" in found.advice


def test_a_log_that_grew_too_big_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mr.adapters.sqlite_condition.WAL_WARN_BYTES", 0)
    store = SqliteStore(tmp_path / "mr.db")
    store.grant(1.0)
    found = by_subject(store)["store log"]
    store.close()
    assert found.health is WARN
    assert WAL_WARN_BYTES > 0


def test_a_damaged_file_is_a_condition(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "mr.db")
    store.close()
    assert by_subject(store)["store"].health is FAIL


# The machine


@pytest.mark.parametrize(("soft", "health"), [(20_000, OK), (resource.RLIM_INFINITY, OK), (1024, WARN), (64, FAIL)])
def test_too_few_open_files_are_warned_of(soft: int, health: Health) -> None:
    one = machine.files((soft, 1 << 20))
    assert one.health is health
    assert is_told(one)


def test_executors_that_may_take_more_than_there_is_are_warned_of() -> None:
    modest = Settings.from_env({"MR_EXECUTORS": "1", "MR_HANDLER_MEMORY_MB": "64"})
    greedy = Settings.from_env({"MR_EXECUTORS": "1000", "MR_HANDLER_MEMORY_MB": "100000"})
    assert machine.memory(modest).health is OK
    assert machine.memory(greedy).health is WARN


def test_the_level_of_isolation_is_told_with_the_reason_why_there_is_no_more() -> None:
    best = machine.sandbox(Isolation(memory="cgroup", processes="cgroup")).found
    assert "together" in best
    assert "by the kernel" in best
    least = machine.sandbox(Isolation(memory="rlimit", processes="environment", reason="nothing may be made")).found
    assert "each process" in least
    assert "nothing may be made" in least


def test_languages_whose_program_is_missing_are_named_with_what_to_install() -> None:
    languages = {
        "one": Language(name="one", command=("sh",)),
        "two": Language(name="two", command=("no-such-program",), install="apt-get install two"),
        "own": Language(name="own", command=("{interpreter}",)),
    }
    found = machine.programs(languages)
    assert found.health is OK
    assert found.found == "python, one, own; not here: two (no no-such-program; apt-get install two)"


# The fleet


def worker(*capabilities: str, version: str = mr.__version__) -> WorkerRecord:
    return WorkerRecord(
        host="h", pid=1, capabilities=list(capabilities), workflows=["w"], slots=2, version=version, started_at=""
    )


def picture(workers: dict[str, WorkerRecord], waiting: int, problem: str = "") -> Picture:
    queue = Queue(topic="mr.w.map.gpu", workflow="w", direction="map", capability="gpu", waiting=waiting)
    return Picture(
        workers=workers, running={"w": Running(requests=1)}, queues=[queue], unserved=unserved([queue], workers),
        strays={}, problem=problem,
    )  # fmt: skip


def healths(one: Picture, workflows: list[str] | None = None) -> dict[str, Health]:
    found = list(of_fleet(one, workflows))
    assert all(is_told(condition) for condition in found)
    return {condition.subject: condition.health for condition in found}


def test_messages_that_wait_for_nobody_are_broken_and_handlers_that_ask_for_it_a_warning() -> None:
    assert healths(picture({"a": worker("general")}, 3))["queue w/gpu"] is FAIL
    assert healths(picture({"a": worker("general")}, 0))["queue w/gpu"] is WARN
    assert healths(picture({}, 0))["workers"] is WARN


def test_workers_of_other_versions_and_unknown_workflows_are_warned_of() -> None:
    found = healths(picture({"a": worker("gpu", version="0.0.1")}, 0), ["w", "v"])
    assert found["worker versions"] is WARN
    assert found["workflows"] is WARN


def test_the_nearest_worker_is_the_one_that_offers_something_spelled_alike() -> None:
    queue = Queue(topic="t", workflow="w", direction="map", capability="gpu", waiting=1)
    (one,) = unserved([queue], {"a": worker("general"), "b": worker("gpus"), "c": worker("x")})
    assert (one.nearest, one.offers) == ("b", ["gpus"])


def test_a_silent_broker_and_strays_are_told() -> None:
    found = healths(picture({}, 0, problem="no nsqd"))
    assert found["queues"] is FAIL
    served = Picture(
        workers={"a": worker("gpu")}, running={}, queues=[], unserved=[], strays={"mr.x.map.y": Backlog(2)}
    )
    assert healths(served)["queue mr.x.map.y"] is WARN


def test_notices_about_settings_are_warnings() -> None:
    assert [one.health for one in of_settings(["MR_X: unknown", "MR_Y: unused"])] == [WARN, WARN]
    assert [one.health for one in of_settings([])] == [OK]


def nothing() -> None:
    """A look that finds nothing wrong."""


def test_a_shared_file_system_answers_or_says_why_not(tmp_path: Path) -> None:
    def of(url: str) -> Condition:
        parts = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{tmp_path}/mr.db", "MR_FS_URL": url}))
        (one,) = of_files(str(parts.settings.files.shared), parts.reach_file_system)
        return one

    assert (of(f"file://{tmp_path}/not/yet").health, list(tmp_path.iterdir())) == (OK, [])
    (tmp_path / "file").touch()
    assert "Not a directory" in of(f"file://{tmp_path}/file/below").found
    assert "fsspec knows" in of("gopher://x").found
    away = of("tahoe+http://127.0.0.1:9/URI:DIR2:secret:secret")
    assert (away.health, away.subject) == (FAIL, "shared file system")
    assert "does not answer" in away.found
    assert "secret" not in away.found


class Nothing:
    """A part that is there and has nothing to say."""

    def conditions(self) -> list[Condition]:
        return [fine("it", "well")]

    def look(self) -> Picture:
        raise BrokerUnavailable("away")


def test_a_part_that_cannot_be_is_a_condition_and_what_needs_it_is_left_out() -> None:
    settings = Settings.from_env({}, machine=Machine(1, 1000.0))

    def refused() -> Store:
        raise ConfigError(["it lies on a network file system"])

    def away() -> Publisher:
        raise StoreUnavailable("cannot be opened")

    def never() -> Fleet:
        raise AssertionError("not asked for")

    found = {one.subject: one for one in checkup(settings, dict, nothing, lambda: None, refused, away, never)}
    assert found["store"].found == "it lies on a network file system"
    assert found["broker"].health is FAIL
    assert found["open files"]
    part: Any = Nothing()

    def mistaken() -> dict[str, Language]:
        raise ConfigError(["MR_PROCESSORS: no TOML"])

    found = {
        one.subject: one
        for one in checkup(settings, mistaken, nothing, lambda: None, lambda: part, lambda: part, lambda: part)
    }
    assert found["fleet"].found == "away"
    assert (found["languages"].health, found["languages"].found) == (FAIL, "MR_PROCESSORS: no TOML")
