"""Calls to etcd v2 by any of its endpoints, each through a client of python-etcd.

python-etcd can look for another server by itself, but then it asks those that etcd advertises instead of those of the
settings, and sends a write again that may have been applied. So it has one server each here, never asks twice, and
which comes next is decided in this module: nothing was sent if no connection stood, so the next one is asked; once
bytes were sent, only what writes nothing is.

What etcd says of keys (not found, compare failed …) goes through as python-etcd's exception, for those who asked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import etcd
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from mr.adapters.tls import security
from mr.addresses import Tls
from mr.errors import StoreUnavailable, ValueRefused

CONNECTIONS_KEPT = 64
"""For each endpoint; more threads than that at once open connections that are not kept."""

# Verdicts on keys and on places in the history; the caller's business.
_ANSWERS = (etcd.EtcdKeyError, etcd.EtcdCompareFailed, etcd.EtcdDirNotEmpty)
_LOST = (etcd.EtcdEventIndexCleared, etcd.EtcdWatcherCleared)
_NOTHING_SENT = (NewConnectionError, ConnectTimeoutError)


class Unreached(Exception):
    """Nothing was sent."""


class Trouble(Exception):
    """etcd answered that it cannot tell, or something between it and us failed: as good as no answer."""


class Cluster:
    """One etcd cluster. Safe to use from several threads; each process opens connections of its own."""

    def __init__(
        self, endpoints: Sequence[str], *, username: str, password: str, timeout_s: float, tls: Tls | None
    ) -> None:
        if not endpoints:
            raise ValueError("expected at least one endpoint host:port, got none")
        self.names = tuple(endpoints)
        self._user, self._password, self._timeout_s = username, password, timeout_s
        self._security = None if tls is None else security(tls)
        self._preferred = 0
        self._owner = 0
        self._clients: list[Any] = []
        self._closed = False
        # It logs every failure as an error, with a trace; whether it is one is for us to say.
        logging.getLogger("etcd").setLevel(logging.CRITICAL)
        self._open()

    def call(self, ask: Callable[[Any], Any], *, writes: bool = False) -> Any:
        """What `ask` gets from the client of the first endpoint that answers.

        Raises: StoreUnavailable, with `unknown` if it `writes` and was sent; ValueRefused; python-etcd's exceptions
        for verdicts on keys.
        """
        many = len(self.names)
        problem: Exception | None = None
        sent = False
        for number in [(self._preferred + step) % many for step in range(many)]:
            try:
                return self.call_one(number, ask)
            except Unreached as error:
                problem = error
            except Trouble as error:
                problem, sent = error, True
            self.leave(number)
            if sent and writes:
                break
        raise StoreUnavailable(
            f"etcd at {', '.join(self.names)} does not answer: {problem}", unknown=sent and writes
        ) from problem

    def call_one(self, number: int, ask: Callable[[Any], Any]) -> Any:
        """The same, of one endpoint.

        Raises: Unreached; Trouble; StoreUnavailable if asking others would not help; ValueRefused.
        """
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._owner != os.getpid():
            self._open()
        try:
            return ask(self._clients[number])
        except (*_ANSWERS, *_LOST, etcd.EtcdWatchTimedOut):
            raise
        except etcd.EtcdConnectionFailed as error:
            if isinstance(error.cause, _NOTHING_SENT) or "certificate verify failed" in str(error.cause):
                raise Unreached(str(error.cause)) from error
            raise Trouble(str(error.cause)) from error
        except etcd.EtcdInsufficientPermissions as error:
            hint = "check the user, the password and its roles"
            raise StoreUnavailable(f"etcd at {self.names[number]} refused: {error}", hint=hint) from error
        except etcd.EtcdValueError as error:
            raise ValueRefused(f"etcd refused it: {error}") from error
        except etcd.EtcdException as error:
            if "404 page not found" in str(error):
                raise StoreUnavailable(
                    f"etcd at {self.names[number]} does not serve the v2 API",
                    hint="start it with --enable-v2, or use etcd3://",
                ) from error
            raise Trouble(str(error)) from error

    @property
    def preferred(self) -> int:
        """The number of the endpoint that is asked first."""
        return self._preferred

    def leave(self, number: int) -> None:
        """Prefer another endpoint from now on, if this one still is the preferred."""
        if self._preferred == number:
            self._preferred = (number + 1) % len(self.names)

    def close(self) -> None:
        """Close all connections. Twice is harmless."""
        self._closed = True
        for client in self._clients:
            client.http.clear()

    def _open(self) -> None:
        clients = []
        for name in self.names:
            host, _, port = name.rpartition(":")
            client = etcd.Client(
                host=host, port=int(port), protocol="https" if self._security else "http", allow_redirect=False,
                username=self._user or None, password=self._password or None,
                read_timeout=self._timeout_s, per_host_pool_size=CONNECTIONS_KEPT,
            )  # fmt: skip
            # urllib3 would send a PUT again that had no answer.
            client.http.connection_pool_kw["retries"] = False
            if self._security:
                client.http.connection_pool_kw["ssl_context"] = self._security
            clients.append(client)
        self._clients, self._owner = clients, os.getpid()
