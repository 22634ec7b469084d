"""URLs of stores, brokers, listeners and file systems: what they mean, and what is refused."""

from __future__ import annotations

import pytest

from mr import addresses
from mr.addresses import Endpoint, NsqNode


@pytest.mark.parametrize(
    ("text", "path"),
    [("sqlite:///mr.db", "mr.db"), ("sqlite:////var/lib/mr.db", "/var/lib/mr.db"), ("sqlite:///ä b/c", "ä b/c")],
)
def test_three_slashes_are_relative_and_four_absolute(text: str, path: str) -> None:
    store = addresses.parse_store(text)
    assert (store.kind, store.path) == ("sqlite", path)
    assert addresses.parse_broker(text).path == path
    assert str(store) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://mr.db",
        "sqlite:///dir/",
        "sqlite:///:memory:",
        "sqlite:///a?b=1",
    ],
)
def test_what_names_no_sqlite_file_is_refused_for_store_and_broker(text: str) -> None:
    with pytest.raises(ValueError, match="sqlite"):
        addresses.parse_store(text)
    with pytest.raises(ValueError, match="sqlite"):
        addresses.parse_broker(text)


def test_an_etcd_store_has_one_endpoint_or_several() -> None:
    store = addresses.parse_store("etcd3://a:1,b,[::1]:3/")
    assert store.kind == "etcd3"
    assert store.endpoints == (Endpoint("a", 1), Endpoint("b", 2379), Endpoint("::1", 3))
    assert str(store) == "etcd3://a:1,b:2379,[::1]:3"
    assert addresses.parse_store("etcd2://a").kind == "etcd2"


def test_a_password_is_read_and_never_shown() -> None:
    store = addresses.parse_store("etcd3://mr:p%40ss@a:1")
    assert (store.username, store.password) == ("mr", "p@ss")
    assert "p@ss" not in f"{store} {store!r}"
    assert "p%40ss" not in f"{store} {store!r}"


@pytest.mark.parametrize(
    "text",
    [
        "etcd4://a:1",
        "etcd3://",
        "etcd3://a:0",
        "etcd3://a:65536",
        "etcd3://a:\u0661",
        "etcd3://a:1,,b:2",
        "etcd3://a:1,a:1",
        "etcd3://a:1?tls=yes",
        "etcd3://mr@a:1",
        "etcd3://-a:1",
        "etcd3://[a]:1",
        "etcd3://[::1]1",
        "nsq://a:1",
    ],
)
def test_what_names_no_store_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        addresses.parse_store(text)


def test_the_http_port_of_an_nsqd_is_the_next_one_unless_given() -> None:
    broker = addresses.parse_broker("nsq://a,b:5000")
    assert broker.nodes == (
        NsqNode(Endpoint("a", 4150), Endpoint("a", 4151)),
        NsqNode(Endpoint("b", 5000), Endpoint("b", 5001)),
    )
    assert str(broker) == "nsq://a:4150,b:5000"


def test_nsq_takes_http_endpoints_and_lookupds() -> None:
    text = "nsq://a:1,b:2?http=c:3,d:4&lookupd=e:5"
    broker = addresses.parse_broker(text)
    assert [node.http for node in broker.nodes] == [Endpoint("c", 3), Endpoint("d", 4)]
    assert broker.lookupds == (Endpoint("e", 5),)
    assert str(broker) == text


@pytest.mark.parametrize(
    "text",
    [
        "nsq://",
        "nsq://?lookupd=a:1",
        "nsq://a:1,b:2?http=c:3",
        "nsq://a:65535",
        "nsq://a:1?http=c",
        "nsq://a:1?https=c:1",
        "nsq://a:1?http=b:1&http=c:1",
        "nsq://u:p@a:1",
        "etcd3://a:1",
        "a:1",
    ],
)
def test_what_names_no_broker_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        addresses.parse_broker(text)


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("127.0.0.1:8080", True),
        ("127.8.0.1:0", True),
        ("localhost:80", True),
        ("[::1]:80", True),
        ("unix:/run/mr.sock", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("localhost.example.org:80", False),
    ],
)
def test_a_bind_says_whether_only_this_machine_reaches_it(text: str, is_local: bool) -> None:
    bind = addresses.parse_bind(text)
    assert bind.is_local is is_local
    assert str(bind) == text


@pytest.mark.parametrize("text", ["8080", "127.0.0.1", ":8080", "127.0.0.1:x", "127.0.0.1:-1", "unix:mr.sock", "a b:1"])
def test_what_names_no_listener_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|unix:"):
        addresses.parse_bind(text)


def test_a_file_system_shows_its_path_only_where_that_is_no_secret() -> None:
    assert str(addresses.parse_file_system("file:///srv/mr")) == "file:///srv/mr"
    secret = addresses.parse_file_system("s3://key:word@bucket/x")
    assert (str(secret), repr(secret), secret.text) == (
        "s3://***",
        "FileSystemUrl('s3://***')",
        "s3://key:word@bucket/x",
    )
    assert addresses.parse_file_system("memory://").scheme == "memory"


@pytest.mark.parametrize("text", ["/srv/mr", "file://srv", "file:/srv", "S3://x"])
def test_what_names_no_file_system_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="file"):
        addresses.parse_file_system(text)
