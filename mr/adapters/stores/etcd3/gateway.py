"""The way to etcd's JSON gateway: other endpoints, login, and what errors mean.

The hard part is what is known after a failure. Nothing was sent if no connection stood: the next endpoint is asked.
Once bytes were sent a write may have been applied, or be applied yet, whatever etcd says about timeouts and leaders;
it is never sent twice unless the caller says that a repeat is harmless.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from mr.adapters.stores.etcd3 import wire
from mr.adapters.stores.etcd3.http import SOCKET_OPTIONS, GatewayConnection, GatewayPool, Stream
from mr.errors import MrError, NotFound, StoreFull, StoreUnavailable, ValueRefused

T = TypeVar("T")

CONNECTIONS_KEPT = 64

# Codes of gRPC in the bodies of refusals.
INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, RESOURCE_EXHAUSTED = 3, 5, 7, 8
FAILED_PRECONDITION, OUT_OF_RANGE, UNAUTHENTICATED = 9, 11, 16


class Gateway:
    """Calls to one etcd cluster by any of its endpoints.

    Safe to use from several threads; after a fork each process opens connections of its own.
    """

    def __init__(self, endpoints: Sequence[str], *, username: str, password: str, timeout_s: float) -> None:
        if not endpoints:
            raise ValueError("expected at least one endpoint host:port, got none")
        self._addresses = [_address(endpoint) for endpoint in endpoints]
        self._endpoints = list(endpoints)
        self._user = username
        self._password = password
        self._timeout_s = timeout_s
        self._token: str | None = None
        self._preferred = 0
        self._closed = False
        self._owner = 0
        self._pools: list[GatewayPool] = []

    @property
    def endpoints(self) -> int:
        """How many endpoints there are."""
        return len(self._endpoints)

    @property
    def names(self) -> tuple[str, ...]:
        """The endpoints as `host:port`, in the order of their numbers."""
        return tuple(self._endpoints)

    def call(
        self,
        path: str,
        body: bytes,
        decode: Callable[[bytes], T],
        *,
        writes: bool = False,
        repeats: bool = True,
        only: int | None = None,
        timeout_s: float | None = None,
    ) -> T:
        """POST to the first endpoint that answers, and return its answer, decoded.

        Unless it `repeats` harmlessly, the request is not sent again once bytes of it went out. `only` names one
        endpoint by number. A call may take `timeout_s` for each endpoint.
        Raises: StoreUnavailable, with `unknown` if it `writes` and was sent; StoreFull; ValueRefused; NotFound.
        """
        start, many = self._preferred, len(self._endpoints)
        order = [only] if only is not None else [(start + step) % many for step in range(many)]
        sent = False
        problem: Exception | None = None
        for number in order:
            try:
                return self._ask(number, path, body, decode, timeout_s)
            except (NewConnectionError, ConnectTimeoutError) as error:
                problem = error
            except (HTTPError, _Trouble) as error:
                problem, sent = error, True
            if only is None and self._preferred == number:
                self._preferred = (number + 1) % many
            if sent and not repeats:
                break
        raise StoreUnavailable(
            f"etcd at {', '.join(self._endpoints[number] for number in order)} does not answer {path}: {problem}",
            unknown=sent and writes,
        ) from problem

    def stream(self, path: str, body: bytes, timeout_s: float) -> Stream:
        """POST on a connection of its own, whose answer goes on until one side closes.

        Raises: StoreUnavailable if no endpoint lets itself be asked.
        """
        if self._closed:
            raise StoreUnavailable("the store is closed")
        problem: Exception | None = None
        for _ in self._endpoints:
            number = self._preferred
            host, port = self._addresses[number]
            connection = GatewayConnection(host, port, timeout=timeout_s, socket_options=SOCKET_OPTIONS)
            try:
                # Without a leader the stream shall end, not stay silent until there is one.
                connection.request(
                    "POST", path, body, {**self._authorization(number), "Grpc-Metadata-hasleader": "true"}
                )
                return Stream(connection, self._endpoints[number])
            except (HTTPError, OSError, _Trouble) as error:
                connection.close()
                problem = error
                self.leave(self._endpoints[number])
        raise StoreUnavailable(f"etcd at {', '.join(self._endpoints)} takes no stream: {problem}") from problem

    def leave(self, endpoint: str) -> None:
        """Prefer another endpoint from now on, if this one still is the preferred."""
        if self._endpoints[self._preferred] == endpoint:
            self._preferred = (self._preferred + 1) % len(self._endpoints)

    def forget_login(self) -> None:
        """Log in anew before the next call."""
        self._token = None

    def close(self) -> None:
        """Close all connections. Twice is harmless."""
        self._closed = True
        for pool in self._pools:
            pool.close()

    def _ask(self, number: int, path: str, body: bytes, decode: Callable[[bytes], T], timeout_s: float | None) -> T:
        """One endpoint, once more if the login has run out (that is noticed before anything is applied)."""
        for attempt in (1, 2):
            status, data = self._post(number, path, body, self._authorization(number), timeout_s)
            if status == 200:
                try:
                    return decode(data)
                except msgspec.MsgspecError as error:
                    raise _Trouble(f"an answer makes no sense: {error}") from error
            refusal = _refusal(status, data)
            if attempt == 1 and self._user and _wants_login(refusal):
                self._token = None
                continue
            raise _error_of(status, refusal, path)
        raise AssertionError("unreachable")

    def _post(
        self, number: int, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float | None
    ) -> tuple[int, bytes]:
        if self._owner != os.getpid():
            self._open()
        if self._closed:
            raise StoreUnavailable("the store is closed")
        response = self._pools[number].urlopen(
            "POST",
            path,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            timeout=timeout_s or self._timeout_s,
        )
        return response.status, response.data

    def _open(self) -> None:
        # Connections of the parent process must not be spoken on by two; forgetting them closes our copies only.
        self._pools = [
            GatewayPool(host, port, maxsize=CONNECTIONS_KEPT, socket_options=SOCKET_OPTIONS)
            for host, port in self._addresses
        ]
        self._owner = os.getpid()

    def _authorization(self, number: int) -> dict[str, str]:
        if not self._user:
            return {}
        if self._token is None:
            body = msgspec.json.encode({"name": self._user, "password": self._password})
            status, data = self._post(number, "/v3/auth/authenticate", body, {}, None)
            refusal = None if status == 200 else _refusal(status, data)
            if refusal is not None and "not enabled" not in refusal.message:
                raise _error_of(status, refusal, "/v3/auth/authenticate")
            try:
                self._token = wire.decode_token(data).token if refusal is None else ""
            except msgspec.MsgspecError as error:
                raise _Trouble(f"an answer makes no sense: {error}") from error
        return {"Authorization": self._token} if self._token else {}


class _Trouble(Exception):
    """etcd answered that it cannot tell, or that something between it and us failed: as good as no answer."""


def _address(endpoint: str) -> tuple[str, int]:
    host, colon, port = endpoint.rpartition(":")
    if not colon or not host or not port.isdigit():
        raise ValueError(f"expected an endpoint host:port, got: {endpoint!r}")
    return host.strip("[]"), int(port)


def _refusal(status: int, data: bytes) -> wire.Refusal:
    try:
        return wire.decode_refusal(data)
    except msgspec.MsgspecError:
        return wire.Refusal(message=f"HTTP {status} {data[:100].decode(errors='replace').strip()}")


def _wants_login(refusal: wire.Refusal) -> bool:
    return (
        refusal.code == UNAUTHENTICATED
        or "user name is empty" in refusal.message
        or "auth store is old" in refusal.message
    )


def _error_of(status: int, refusal: wire.Refusal, path: str) -> MrError | _Trouble:
    """The error that a refusal stands for. Whatever is not known to be refused for good is trouble."""
    text = f"etcd refused {path}: {refusal.message}"
    if refusal.code == RESOURCE_EXHAUSTED:
        if "space exceeded" in refusal.message:
            return StoreFull(text, hint="delete, compact and defragment, or raise --quota-backend-bytes")
        if "larger than max" in refusal.message:
            return ValueRefused(text)
        return StoreUnavailable(text)  # Too many requests are under way; it took this one not at all.
    if _wants_login(refusal) or refusal.code == PERMISSION_DENIED or "authentication failed" in refusal.message:
        return StoreUnavailable(text, hint="check the user, the password and its roles")
    if refusal.code == FAILED_PRECONDITION:
        return StoreUnavailable(text)
    if refusal.code == INVALID_ARGUMENT:
        return ValueRefused(text)
    if refusal.code in (NOT_FOUND, OUT_OF_RANGE):
        return NotFound(text)
    if status == 404:
        return StoreUnavailable(text, hint="is this an etcd v3 with --enable-grpc-gateway?")
    return _Trouble(refusal.message)
