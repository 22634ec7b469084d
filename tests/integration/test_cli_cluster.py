"""The commands that look at servers, on a real etcd and a real nsqd."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from mr.adapters.stores.etcd3 import Etcd3Store
from mr.cli import exits
from mr.codec import encode
from mr.ports.store import Put, Transaction
from mr.rules import keys
from tests.servers import EtcdServer
from tests.servers_nsq import NsqdServer
from tests.unit.command_line import done, mr
from tests.unit.test_cli import document, folder, submitted, workflow

__all__ = ["folder", "workflow"]


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[EtcdServer, NsqdServer]]:
    nsqd = NsqdServer()
    nsqd.start()
    try:
        with EtcdServer() as etcd:
            yield etcd, nsqd
    finally:
        nsqd.stop()


@pytest.fixture
def store(servers: tuple[EtcdServer, NsqdServer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Etcd3Store]:
    """An empty store, which the commands find in the environment."""
    etcd, nsqd = servers
    monkeypatch.setenv("MR_STORE", f"etcd3://{etcd.endpoint}")
    host, tcp_port, http_port = nsqd.address
    monkeypatch.setenv("MR_BROKER", f"nsq://{host}:{tcp_port}?http={host}:{http_port}")
    store = Etcd3Store(etcd.endpoints)
    while store.delete_prefix(""):
        pass
    for topic in nsqd.get("/stats", format="json")["topics"] or []:
        nsqd.post("/topic/delete", topic=topic["topic_name"])
    yield store
    store.close()


def test_status_and_doctor_name_what_waits_for_nobody(workflow: str) -> None:
    submitted("a=1")
    queue = document("status")["queues"]["mr.w.map.general"]
    assert queue["waiting"] == 1
    assert 0 <= queue["oldest_wait_s"] < 600
    assert "1 message of workflow w wait" in done("status").stderr
    result = mr("doctor", "--json")
    assert result.exit_code == exits.FAILED
    broken = [one["subject"] for one in json.loads(result.stdout)["conditions"] if one["health"] == "fail"]
    assert broken == ["queue w/general"]


def test_the_doctor_sees_both_servers(store: Etcd3Store, servers: tuple[EtcdServer, NsqdServer]) -> None:
    subjects = {one["subject"]: one["health"] for one in document("doctor")["conditions"]}
    assert subjects[f"etcd {servers[0].endpoint}"] == "ok"
    assert subjects[f"nsqd {servers[1].instance}"] == "ok"


def test_pins_and_orphans_go_through_etcd(store: Etcd3Store, workflow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    r = submitted("a=1")
    done("request", "pin", r, "--note", "why")
    entry = store.get(keys.pinned("w", r))
    assert entry is not None
    assert json.loads(entry.value)["note"] == "why"
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    left = [Put(keys.session("w", "b" * 40, "0", "x", f"k{number}"), encode(1)) for number in range(100)]
    store.commit(Transaction(operations=left))
    (orphan,) = document("doctor", "--orphans")
    assert orphan["keys"] == {"sessions": 100}
    done("doctor", "--orphans", "--remove", "--yes")
    assert document("doctor", "--orphans") == []
    assert mr("request", "rm", r, "--yes").exit_code == exits.REFUSED
    done("request", "rm", r, "--force", "--yes")
    assert store.count(keys.PINNED) == store.count(keys.FACTS) == store.count(keys.REQUESTS) == 0
