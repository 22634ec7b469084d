"""Calls to etcd by any of its endpoints, and the login.

The hard part is when to ask again. Nothing was sent if no connection stood: the next endpoint is asked. Once bytes
were sent a write may have been applied; it is never sent twice unless the caller says that a repeat is harmless.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypeVar

from mr.adapters.stores.etcd3 import methods
from mr.adapters.stores.etcd3.endpoint import Endpoint
from mr.adapters.stores.etcd3.http import Stream
from mr.adapters.stores.etcd3.messages import NO_KEY
from mr.adapters.stores.etcd3.methods import Method
from mr.adapters.stores.etcd3.refusals import Refused, Trouble, Unreached
from mr.addresses import Tls
from mr.errors import StoreUnavailable

Q = TypeVar("Q")
A = TypeVar("A")


class Cluster:
    """One etcd cluster. Safe to use from several threads, and after a fork.

    `grpc`: whether gRPC is tried at all, or only the JSON gateway asked.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        username: str,
        password: str,
        timeout_s: float,
        grpc: bool = True,
        tls: Tls | None = None,
    ) -> None:
        if not endpoints:
            raise ValueError("expected at least one endpoint host:port, got none")
        self._endpoints = [Endpoint(name, grpc=grpc, tls=tls) for name in endpoints]
        self.tls = tls
        self._user = username
        self._password = password
        self._timeout_s = timeout_s
        self._token: str | None = None
        self._preferred = 0
        self._left_at: dict[str, float] = {}
        self._answered_at: dict[str, float] = {}
        self._closed = False

    @property
    def endpoints(self) -> int:
        """How many endpoints there are."""
        return len(self._endpoints)

    @property
    def names(self) -> tuple[str, ...]:
        """The endpoints as `host:port`, in the order of their numbers."""
        return tuple(endpoint.name for endpoint in self._endpoints)

    def call(
        self,
        method: Method[Q, A],
        question: Q,
        *,
        writes: bool = False,
        repeats: bool = True,
        only: int | None = None,
        timeout_s: float | None = None,
    ) -> A:
        """Ask the first endpoint that answers.

        Unless it `repeats` harmlessly, the question is not sent again once bytes of it went out. `only` names one
        endpoint by number. A call may take `timeout_s` for each endpoint.
        Raises: StoreUnavailable, with `unknown` if it `writes` and was sent; StoreFull; ValueRefused; NotFound.
        """
        start, many = self._preferred, len(self._endpoints)
        order = [only] if only is not None else [(start + step) % many for step in range(many)]
        sent = False
        problem: Exception | None = None
        for number in order:
            try:
                return self._ask(self._endpoints[number], method, question, timeout_s or self._timeout_s)
            except Unreached as error:
                problem = error
            except Trouble as error:
                problem, sent = error, True
            if only is None:
                self.leave(self._endpoints[number].name)
            if sent and not repeats:
                break
        raise StoreUnavailable(
            f"etcd at {', '.join(self._endpoints[number].name for number in order)} "
            f"does not answer {method.gateway.path}: {problem}",
            unknown=sent and writes,
        ) from problem

    def stream(self, path: str, body: bytes, timeout_s: float) -> Stream:
        """POST on a connection of its own, whose answer goes on until one side closes.

        Raises: StoreUnavailable if no endpoint lets itself be asked.
        """
        problem: Exception | None = None
        for _ in self._endpoints:
            endpoint = self._endpoints[self._preferred]
            try:
                return endpoint.stream(path, body, self._login(endpoint), timeout_s)
            except (Unreached, Trouble) as error:
                problem = error
                self.leave(endpoint.name)
        names = ", ".join(endpoint.name for endpoint in self._endpoints)
        raise StoreUnavailable(f"etcd at {names} takes no stream: {problem}") from problem

    def leave(self, endpoint: str) -> None:
        """Prefer another endpoint from now on, if this one still is the preferred."""
        self._left_at[endpoint] = time.monotonic()
        if self._endpoints[self._preferred].name == endpoint:
            self._preferred = (self._preferred + 1) % len(self._endpoints)

    def was_left(self, endpoint: str, since: float) -> bool:
        """Whether somebody had to leave this endpoint for another one since a monotonic time.

        A member that hangs keeps its streams open and silent; who listens there learns it only from others' calls.
        """
        return len(self._endpoints) > 1 and self._left_at.get(endpoint, 0.0) > since

    def check(self, endpoint: str, quiet_s: float) -> None:
        """Ask this endpoint something small, unless there is no other, or it has answered somebody lately.

        For a watch whose process asks nothing meanwhile: nobody would ever have to leave the member that hangs.
        Raises: StoreUnavailable.
        """
        now = time.monotonic()
        if len(self._endpoints) > 1 and now - self._answered_at.get(endpoint, 0.0) >= quiet_s:
            self.call(methods.RANGE, NO_KEY, only=self.names.index(endpoint))

    def forget_login(self) -> None:
        """Log in anew before the next call."""
        self._token = None

    def close(self) -> None:
        """Close all connections. Twice is harmless."""
        self._closed = True
        for endpoint in self._endpoints:
            endpoint.close()

    def _ask(self, endpoint: Endpoint, method: Method[Q, A], question: Q, timeout_s: float) -> A:
        """One endpoint, once more if the login has run out (that is noticed before anything is applied)."""
        for attempt in (1, 2):
            token = self._login(endpoint)
            try:
                answer = endpoint.ask(method, question, token, timeout_s)
                self._answered_at[endpoint.name] = time.monotonic()
                return answer
            except Refused as error:
                if attempt == 1 and self._user and error.wants_login:
                    self._token = None
                    continue
                raise error.error(method.gateway.path) from error
        raise AssertionError("unreachable")

    def _login(self, endpoint: Endpoint) -> str:
        """The token for calls; empty where none is needed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if not self._user:
            return ""
        token = self._token
        if token is None:
            try:
                user = {"name": self._user, "password": self._password}
                token = endpoint.ask(methods.LOGIN, user, "", self._timeout_s).token
            except Refused as error:
                if "not enabled" not in error.message:
                    raise error.error(methods.LOGIN.gateway.path) from error
                token = ""
            self._token = token
        return token
