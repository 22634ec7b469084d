"""Events by HTTP, to public addresses only, unless a host or network is allowed by name.

The hard part is that a name may point somewhere else by the time of the connection than it did when it was checked.
So the check is made where the connection is: a name is resolved once, each address is looked at, and the connection
goes to the address that was looked at. Redirects are not followed.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

from mr.addresses import HttpUrl, may_reach
from mr.errors import NotDelivered
from mr.ports.event_sender import EventSender

TIMEOUT = urllib3.Timeout(connect=5.0, read=15.0)


class HttpEventSender(EventSender):
    """`private`: hosts and networks that may be reached although they are not public."""

    def __init__(self, private: Sequence[str] = ()) -> None:
        self._connections = urllib3.PoolManager(num_pools=16)
        self._connections.pool_classes_by_scheme = _pools(private)

    def send(self, url: HttpUrl, headers: Mapping[str, str], body: bytes) -> None:
        """One POST; an answer that is not 2xx is a failure."""
        login = urllib3.make_headers(basic_auth=f"{url.username}:{url.password}") if url.username else {}
        try:
            answer = self._connections.request(
                "POST", url.address, headers={**headers, **login}, body=body, timeout=TIMEOUT,
                retries=False, redirect=False, preload_content=False,
            )  # fmt: skip
            answer.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise NotDelivered(f"{url.address}: {error}") from error
        if not 200 <= answer.status < 300:
            raise NotDelivered(f"{url.address} answers {answer.status}")


def _pools(private: Sequence[str]) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, private)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return _connect(self, private)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _connect(connection: HTTPConnection, private: Sequence[str]) -> socket.socket:
    try:
        found = socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise NameResolutionError(connection.host, connection, socket.gaierror(str(error))) from error
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    allowed = [address for address in addresses if may_reach(connection.host, address, private)]
    if not allowed:
        problem = f"{connection.host} is {', '.join(addresses)}, which is not public (MR_WEBHOOK_PRIVATE_HOSTS)"
        raise NewConnectionError(connection, problem)
    problem = ""
    for address in allowed:
        try:
            return create_connection(
                (address, connection.port), connection.timeout,
                source_address=connection.source_address, socket_options=connection.socket_options,
            )  # fmt: skip
        except OSError as error:
            problem = f"{address}: {error}"
    raise NewConnectionError(connection, problem)
