"""etcd over TLS, v3 and v2, on a real server with certificates of its own."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from mr.adapters.stores.etcd3 import Etcd3Store
from mr.addresses import Tls
from mr.errors import ConfigError, StoreUnavailable
from mr.model.condition import Health
from mr.ports.store import Absent, Put, Store, Transaction
from tests.servers import EtcdServer

Open = Callable[..., Store]


class Papers:
    """An authority, and what it has signed for the server and for us."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        for name, signed in (("server", "127.0.0.1"), ("client", "worker@example.org")):
            leaf = self.authority.issue_cert(signed)
            leaf.private_key_pem.write_to_path(folder / f"{name}.key")
            for number, part in enumerate(leaf.cert_chain_pems):
                part.write_to_path(folder / f"{name}.pem", append=number > 0)

    def path(self, name: str) -> str:
        return str(self.folder / name)


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def server(papers: Papers) -> Iterator[EtcdServer]:
    """One that talks to nobody without a certificate of the authority."""
    context = ssl.create_default_context(cafile=papers.path("ca.pem"))
    context.load_cert_chain(papers.path("client.pem"), papers.path("client.key"))
    arguments = [f"--cert-file={papers.path('server.pem')}", f"--key-file={papers.path('server.key')}"]
    arguments += ["--enable-v2", "--client-cert-auth", f"--trusted-ca-file={papers.path('ca.pem')}"]
    with EtcdServer(arguments, tls=context) as running:
        yield running


@pytest.fixture(params=["v3", "v2"])
def open_store(request: pytest.FixtureRequest) -> Open:
    if request.param == "v3":
        return Etcd3Store
    pytest.importorskip("etcd")
    from mr.adapters.stores.etcd2 import Etcd2Store

    return Etcd2Store


@pytest.fixture
def ours(papers: Papers) -> Tls:
    return Tls(papers.path("ca.pem"), papers.path("client.pem"), papers.path("client.key"))


def test_a_store_reads_writes_and_watches_by_tls(server: EtcdServer, ours: Tls, open_store: Open) -> None:
    with contextlib.closing(open_store(server.endpoints, tls=ours)) as store:
        with store.watch("a/", store.revision()) as watch:
            transaction = Transaction(conditions=[Absent("a/1")], operations=[Put("a/1", "ü".encode() * 100_000)])
            assert store.commit(transaction).succeeded
            assert not store.commit(transaction).succeeded
            changes = watch.next(20.0) or watch.next(20.0)
            assert [change.key for change in changes] == ["a/1"]
        found = store.get("a/1")
        assert found is not None
        assert len(found.value) == 200_000
        assert not [one for one in store.conditions() if one.health is Health.FAIL]


@pytest.mark.kills
def test_a_store_finds_its_way_back_by_tls(server: EtcdServer, ours: Tls, open_store: Open) -> None:
    with contextlib.closing(open_store(server.endpoints, tls=ours)) as store:
        store.commit(Transaction(operations=[Put("b", b"1")]))
        server.kill()
        with pytest.raises(StoreUnavailable):
            store.get("b")
        server.start()
        assert store.get("b") is not None


def test_who_is_not_trusted_is_told_so(
    server: EtcdServer, papers: Papers, ours: Tls, tmp_path: Path, open_store: Open
) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    for tls in (Tls(str(stranger), ours.cert, ours.key), Tls(ours.ca), None):
        with contextlib.closing(open_store(server.endpoints, tls=tls, timeout_s=1.0)) as store:
            with pytest.raises(StoreUnavailable) as raised:
                store.commit(Transaction(operations=[Put("c", b"")]))
            assert server.endpoint in str(raised.value)
            if tls is not None and tls.ca == str(stranger):
                assert "certificate verify failed" in str(raised.value)
                assert not raised.value.unknown


def test_a_file_that_is_no_certificate_is_named(server: EtcdServer, tmp_path: Path, open_store: Open) -> None:
    (tmp_path / "no.pem").write_text("nonsense")
    for name in ("no.pem", "missing.pem"):
        with pytest.raises(ConfigError, match=name):
            open_store(server.endpoints, tls=Tls(str(tmp_path / name)))
