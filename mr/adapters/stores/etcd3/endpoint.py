"""One endpoint of etcd and the two ways to it, on one port: gRPC, and the JSON gateway.

gRPC costs etcd and us half or less, so it is tried first. Something may stand between that passes plain HTTP only;
then the gateway is used, and gRPC tried again a minute later.

The hard part is never to ask twice. Who does not speak HTTP/2 is noticed before a question is sent, and who says
that there is no such call has passed it to nobody; only then the same question goes to the gateway.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TypeVar

import msgspec
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

from mr.adapters.stores.etcd3 import json
from mr.adapters.stores.etcd3.grpc import CONNECTIONS_KEPT, GrpcPool
from mr.adapters.stores.etcd3.http import Stream, connect, pool
from mr.adapters.stores.etcd3.methods import Method, Words
from mr.adapters.stores.etcd3.refusals import NoGrpc, Refused, Trouble, Unreached
from mr.adapters.tls import security
from mr.addresses import Tls

Q = TypeVar("Q")
A = TypeVar("A")

GRPC_AGAIN_S = 60.0

_log = logging.getLogger(__name__)


class Endpoint:
    """`name` is `host:port`. Safe to use from several threads; each process opens connections of its own."""

    def __init__(self, name: str, *, grpc: bool = True, tls: Tls | None = None) -> None:
        host, colon, port = name.rpartition(":")
        if not colon or not host or not port.isdigit():
            raise ValueError(f"expected an endpoint host:port, got: {name!r}")
        self.name = name
        self._host, self._port = host.strip("[]"), int(port)
        # Our way of gRPC reads its socket as only a plain one can be read.
        self._grpc_from = 0.0 if grpc and tls is None else float("inf")
        self._security = None if tls is None else security(tls)
        self._has_said = False
        self._owner = 0
        self._open()

    def ask(self, method: Method[Q, A], question: Q, token: str, timeout_s: float) -> A:
        """Ask once.

        Raises: Unreached if nothing was sent; Refused; Trouble.
        """
        if self._owner != os.getpid():
            self._open()
        reason: NoGrpc | None = None
        if method.grpc is not None and time.monotonic() >= self._grpc_from:
            words = method.grpc
            try:
                return _read(words, self._grpc.call(words.path, words.write(question), token, timeout_s))
            except NoGrpc as error:
                reason = error
        words = method.gateway
        status, data = self._post(words.path, words.write(question), token, timeout_s)
        if reason is not None:
            self._leave_grpc(reason)
        if status == 200:
            return _read(words, data)
        try:
            refusal = json.read_refusal(data)
        except msgspec.MsgspecError:
            refusal = json.Refusal(message=f"HTTP {status} {data[:100].decode(errors='replace').strip()}")
        raise Refused(refusal.code, refusal.message, status)

    def stream(self, path: str, body: bytes, token: str, timeout_s: float) -> Stream:
        """POST to the gateway on a connection of its own, whose answer goes on until one side closes.

        Raises: Unreached.
        """
        connection = connect(self._host, self._port, timeout_s, self._security)
        try:
            # Without a leader the stream shall end, not stay silent until there is one.
            connection.request("POST", path, body, {**_authorization(token), "Grpc-Metadata-hasleader": "true"})
            return Stream(connection, self.name)
        except (HTTPError, OSError) as error:
            connection.close()
            raise Unreached(str(error)) from error

    def close(self) -> None:
        """Close all connections. Twice is harmless."""
        self._grpc.close()
        self._gateway.close()

    def _open(self) -> None:
        # Connections of the parent process must not be spoken on by two; forgetting them closes our copies only.
        self._grpc = GrpcPool(self._host, self._port)
        self._gateway = pool(self._host, self._port, CONNECTIONS_KEPT, self._security)
        self._owner = os.getpid()

    def _post(self, path: str, body: bytes, token: str, timeout_s: float) -> tuple[int, bytes]:
        try:
            response = self._gateway.urlopen(
                "POST",
                path,
                body=body,
                headers=_authorization(token),
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=timeout_s,
            )
        except (NewConnectionError, ConnectTimeoutError, SSLError) as error:
            raise Unreached(str(error)) from error
        except HTTPError as error:
            raise Trouble(str(error)) from error
        return response.status, response.data

    def _leave_grpc(self, reason: NoGrpc) -> None:
        self._grpc_from = time.monotonic() + GRPC_AGAIN_S
        if not self._has_said:
            self._has_said = True
            _log.warning(
                "etcd at %s is asked through its JSON gateway, for gRPC is not to be had: %s", self.name, reason
            )


def _authorization(token: str) -> dict[str, str]:
    return {"Authorization": token} if token else {}


def _read(words: Words[Q, A], data: bytes) -> A:
    try:
        return words.read(data)
    except (ValueError, msgspec.MsgspecError) as error:
        raise Trouble(f"an answer makes no sense: {error}") from error
