"""Where stores, brokers, listeners and file systems are: the values behind the URLs of the settings.

Every `parse_...` takes the text of one setting and raises ValueError with what was expected; the settings put
the variable's name before it. The hard part is NSQ: a node has two ports, TCP for consumers and HTTP for
publishing, and only the first stands in the URL unless `http=` gives the other.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Sequence
from typing import Literal
from urllib.parse import parse_qs, quote, unquote

import msgspec

ETCD_PORT = 2379
NSQD_PORT = 4150
NSQLOOKUPD_PORT = 4161

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)
_MAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


class Endpoint(msgspec.Struct, frozen=True):
    """A host (name, IPv4 or IPv6 address without brackets) and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Bind(msgspec.Struct, frozen=True):
    """Where the front end listens: a TCP endpoint, or the path of a Unix socket."""

    endpoint: Endpoint | None = None
    path: str = ""

    def __str__(self) -> str:
        return str(self.endpoint) if self.endpoint else f"unix:{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if self.endpoint is None or self.endpoint.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.endpoint.host).is_loopback
        except ValueError:
            return False  # a name other than localhost may point anywhere


class Tls(msgspec.Struct, frozen=True):
    """Files in PEM: who is trusted (empty: whom the system trusts), and our own certificate with its key, if any."""

    ca: str = ""
    cert: str = ""
    key: str = ""


class StoreUrl(msgspec.Struct, frozen=True, kw_only=True):
    """The store: `path` of a SQLite file, or the `endpoints` of one etcd cluster and a user of it.

    `tls` is None where etcd is spoken to in clear. Printing leaves the password out.
    """

    kind: Literal["sqlite", "etcd3", "etcd2"]
    path: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    username: str = ""
    password: str = ""
    tls: Tls | None = None

    def __str__(self) -> str:
        if self.kind == "sqlite":
            return f"sqlite:///{self.path}"
        user = f"{quote(self.username, safe='')}:***@" if self.username else ""
        return f"{self.kind}://{user}{','.join(map(str, self.endpoints))}{'?tls=1' if self.tls is not None else ''}"

    def __repr__(self) -> str:
        return f"StoreUrl({str(self)!r})"


class NsqNode(msgspec.Struct, frozen=True):
    """One nsqd: consumers use its TCP port, publishers its HTTP endpoint."""

    tcp: Endpoint
    http: Endpoint


class HttpUrl(msgspec.Struct, frozen=True, kw_only=True):
    """Where something is posted to. Printing leaves the password out."""

    scheme: Literal["http", "https"]
    endpoint: Endpoint
    target: str = "/"
    username: str = ""
    password: str = ""

    @property
    def address(self) -> str:
        """The URL without user and password."""
        return f"{self.scheme}://{self.endpoint}{self.target}"

    def __str__(self) -> str:
        user = f"{quote(self.username, safe='')}:***@" if self.username else ""
        return f"{self.scheme}://{user}{self.endpoint}{self.target}"

    def __repr__(self) -> str:
        return f"HttpUrl({str(self)!r})"


class Password(msgspec.Struct, frozen=True):
    """A secret of the settings. Printing leaves it out."""

    value: str

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Password('***')"


class BrokerUrl(msgspec.Struct, frozen=True, kw_only=True):
    """The broker: `path` of a SQLite file, or NSQ's nodes and the nsqlookupd (HTTP) that know of more."""

    kind: Literal["sqlite", "nsq"]
    path: str = ""
    nodes: tuple[NsqNode, ...] = ()
    lookupds: tuple[Endpoint, ...] = ()

    def __str__(self) -> str:
        if self.kind == "sqlite":
            return f"sqlite:///{self.path}"
        text = f"nsq://{','.join(str(node.tcp) for node in self.nodes)}"
        options = []
        if any(node.http != _http_of(node.tcp) for node in self.nodes):
            options.append("http=" + ",".join(str(node.http) for node in self.nodes))
        if self.lookupds:
            options.append("lookupd=" + ",".join(map(str, self.lookupds)))
        return text + ("?" + "&".join(options) if options else "")


class FileSystemUrl(msgspec.Struct, frozen=True):
    """An fsspec URL. It may hold keys or capabilities, so printing shows only its beginning; `text` has all."""

    text: str

    @property
    def scheme(self) -> str:
        """The part before `://`: `file`, `memory`, `s3`, `tahoe+http`, `class` …"""
        return self.text.partition("://")[0]

    def __str__(self) -> str:
        return self.text if self.scheme in ("file", "memory", "class") else f"{self.scheme}://***"

    def __repr__(self) -> str:
        return f"FileSystemUrl({str(self)!r})"


def parse_endpoint(text: str, *, default_port: int | None = None, port_min: int = 1) -> Endpoint:
    """`host:port`, `[::1]:port`, or `host` alone where there is a default port."""
    expectation = "host:port" if default_port is None else "host or host:port"
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{expectation}, with an IPv6 address in brackets") from None
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(expectation)
        colon, port_text = rest[:1], rest[1:]
    else:
        host, colon, port_text = text.partition(":")
        if not _HOST.fullmatch(host):
            raise ValueError(expectation)
    if not colon and default_port is not None:
        return Endpoint(host, default_port)
    if not (port_text.isascii() and port_text.isdigit() and port_min <= int(port_text[:6]) <= 65535):
        raise ValueError(f"{expectation} with a port from {port_min} to 65535")
    return Endpoint(host, int(port_text))


def parse_endpoints(text: str, *, default_port: int | None = None) -> tuple[Endpoint, ...]:
    """One endpoint or several with commas between; none twice."""
    endpoints = tuple(parse_endpoint(part, default_port=default_port) for part in text.split(","))
    if len(set(endpoints)) != len(endpoints):
        raise ValueError("each host:port once")
    return endpoints


def parse_bind(text: str) -> Bind:
    """`host:port` (port 0 takes a free one) or `unix:/path`."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError("unix:/absolute/path")
        return Bind(path=path)
    return Bind(parse_endpoint(text, port_min=0))


def parse_store(text: str) -> StoreUrl:
    """`sqlite:///relative`, `sqlite:////absolute`, `etcd3://[user:password@]host:port[,host:port]`, `etcd2://…`.

    User and password are percent-encoded where they hold `:`, `@`, `/` or `%`. For etcd, `?tls=1` asks for TLS, and
    `ca=`, `cert=` and `key=` name absolute paths of files for it.
    """
    expectation = "sqlite:///file, sqlite:////absolute/file, etcd3://host:port[,host:port] or etcd2://host:port"
    scheme, rest = _split(text, expectation)
    if scheme == "sqlite":
        return StoreUrl(kind="sqlite", path=_sqlite_path(rest))
    if scheme not in ("etcd3", "etcd2"):
        raise ValueError(expectation)
    login, at, place = rest.rpartition("@")
    hosts, options = _options(place, known=("tls", "ca", "cert", "key"))
    username, colon, password = login.partition(":")
    if at and not (username and colon and password):
        raise ValueError(f"{scheme}://user:password@host:port")
    return StoreUrl(
        kind="etcd3" if scheme == "etcd3" else "etcd2",
        endpoints=parse_endpoints(hosts.removesuffix("/"), default_port=ETCD_PORT),
        username=unquote(username),
        password=unquote(password),
        tls=_tls(options),
    )


def parse_broker(text: str) -> BrokerUrl:
    """`sqlite:///…`, or `nsq://host:tcp[,…][?http=host:port[,…]][&lookupd=host:port[,…]]`."""
    expectation = "sqlite:///file or nsq://host:tcp[,host:tcp][?http=host:port[,…]][&lookupd=host:port[,…]]"
    scheme, rest = _split(text, expectation)
    if scheme == "sqlite":
        return BrokerUrl(kind="sqlite", path=_sqlite_path(rest))
    if scheme != "nsq":
        raise ValueError(expectation)
    hosts, options = _options(rest, known=("http", "lookupd"))
    lookupds = parse_endpoints(options["lookupd"], default_port=NSQLOOKUPD_PORT) if "lookupd" in options else ()
    return nsq(hosts, http=options.get("http"), lookupds=lookupds)


def nsq(hosts: str, *, http: str | None = None, lookupds: tuple[Endpoint, ...] = ()) -> BrokerUrl:
    """NSQ from a list `host[:port],…` and, if the HTTP ports are not TCP + 1, a list of as many `host:port`."""
    tcp = parse_endpoints(hosts, default_port=NSQD_PORT)
    if http is None:
        if any(endpoint.port == 65535 for endpoint in tcp):
            raise ValueError("http=host:port, because no port follows 65535")
        publishing = tuple(map(_http_of, tcp))
    else:
        publishing = parse_endpoints(http)
    if len(publishing) != len(tcp):
        raise ValueError(f"as many http= endpoints as nsqd ({len(tcp)})")
    nodes = tuple(NsqNode(*pair) for pair in zip(tcp, publishing, strict=True))
    return BrokerUrl(kind="nsq", nodes=nodes, lookupds=lookupds)


def parse_file_system(text: str) -> FileSystemUrl:
    """Any fsspec URL: `file:///dir`, `memory://`, `s3://…`, `tahoe+http://…`."""
    scheme, rest = _split(text, "a file system URL such as file:///dir")
    if scheme == "file" and not rest.startswith("/"):
        raise ValueError("file:///absolute/dir")
    return FileSystemUrl(text)


def parse_http(text: str) -> HttpUrl:
    """`http://[user:password@]host[:port][/path][?query]`, or `https://…`."""
    expectation = "http://host[:port]/path or https://host[:port]/path"
    scheme, rest = _split(text, expectation)
    if scheme not in ("http", "https") or not rest.isascii() or not rest.isprintable() or set(rest) & set(" #\\"):
        raise ValueError(expectation)
    place = re.fullmatch(r"(?:([^/?@]*)@)?([^/?@]+)(.*)", rest)
    if place is None:
        raise ValueError(expectation)
    username, _, password = (place[1] or "").partition(":")
    endpoints = parse_endpoints(place[2], default_port=443 if scheme == "https" else 80)
    if len(endpoints) != 1:
        raise ValueError(expectation)
    return HttpUrl(
        scheme="https" if scheme == "https" else "http",
        endpoint=endpoints[0],
        target=place[3] if place[3].startswith("/") else f"/{place[3]}",
        username=unquote(username),
        password=unquote(password),
    )


def parse_webhooks(text: str) -> tuple[HttpUrl, ...]:
    """URLs with commas between."""
    return tuple(dict.fromkeys(parse_http(part.strip()) for part in text.split(",")))


def parse_webhook_secrets(text: str) -> tuple[Password, ...]:
    """`whsec_` and 24 to 64 random bytes in base64; several with commas between, while they are changed."""
    found = tuple(Password(part.strip()) for part in text.split(","))
    try:
        if all(24 <= len(webhook_key(secret)) <= 64 for secret in found):
            return found
    except ValueError:
        pass
    raise ValueError("whsec_ and 24 to 64 random bytes in base64; several with commas between")


def webhook_key(secret: Password) -> bytes:
    """The bytes of a secret for webhooks. Raises: ValueError."""
    if not secret.value.startswith("whsec_"):
        raise ValueError("whsec_…")
    return base64.b64decode(secret.value.removeprefix("whsec_"), validate=True)


def parse_private(text: str) -> tuple[str, ...]:
    """Hosts and networks with commas between: `localhost,10.1.0.0/16`."""
    found = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    for part in found:
        if not _network(part) and not _HOST.fullmatch(part):
            raise ValueError("hosts, addresses and networks with commas between: localhost,10.1.0.0/16")
    return found


def may_reach(host: str, address: str, private: Sequence[str]) -> bool:
    """Whether an address that a host name stands for is public, or allowed by the name or by its network."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found
    if host.lower().strip("[]") in private:
        return True
    networks = [network for part in private if (network := _network(part)) is not None]
    if any(found in network for network in networks):
        return True
    return found.is_global and not found.is_multicast


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def parse_mail_address(text: str) -> str:
    """`name@host`, without anything around it."""
    if len(text) > 254 or not _MAIL.fullmatch(text):
        raise ValueError("a mail address such as ana@example.org")
    return text


def parse_mail_addresses(text: str) -> tuple[str, ...]:
    """Mail addresses with commas between."""
    try:
        return tuple(dict.fromkeys(parse_mail_address(part.strip()) for part in text.split(",")))
    except ValueError as error:
        raise ValueError("mail addresses such as ana@example.org, with commas between") from error


def _http_of(tcp: Endpoint) -> Endpoint:
    return Endpoint(tcp.host, tcp.port + 1)


def _split(text: str, expectation: str) -> tuple[str, str]:
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise ValueError(expectation)
    return match[1], match[2]


def _sqlite_path(rest: str) -> str:
    # Three slashes, then the path: `sqlite:///mr.db` is relative, `sqlite:////var/mr.db` absolute.
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path or path.endswith("/") or "\0" in path:
        raise ValueError("sqlite:///relative/file or sqlite:////absolute/file")
    if path.startswith(":memory:") or "?" in path:
        raise ValueError("sqlite:/// and the plain path of a file, because several processes open it")
    return path


def _tls(options: dict[str, str]) -> Tls | None:
    wanted = options.pop("tls", None)
    if wanted not in (None, "0", "1") or (options and wanted != "1"):
        raise ValueError("?tls=1, with or without ca=, cert= and key=")
    if any(not path.startswith("/") for path in options.values()) or ("key" in options) != ("cert" in options):
        raise ValueError("absolute paths of files for ca=, cert= and key=, the last two together")
    return Tls(**options) if wanted == "1" else None


def _options(rest: str, *, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    hosts, _, query = rest.partition("?")
    found = parse_qs(query, keep_blank_values=True)
    if unknown := sorted(set(found) - set(known)):
        raise ValueError(f"no option but {', '.join(known)} (there is {', '.join(unknown)})")
    if twice := sorted(name for name, values in found.items() if len(values) > 1):
        raise ValueError(f"the option {twice[0]} once, its values with commas between")
    return hosts.removesuffix("/"), {name: values[0] for name, values in found.items()}
