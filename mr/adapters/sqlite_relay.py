"""Commits that are handed to the process that writes anyway.

Two processes that write one SQLite file wait for each other's lock, and each finds its page cache void after the
other's commit. So one worker takes the commits of front ends into its own batches: its `Relay` listens on a socket
beside the file, a front end's `Courier` hands in. Where nobody listens, everybody writes for himself, as ever.

The hard part is a relay that is stopped, or dies with an answer outstanding. Its commit may happen long after whoever
asked for it has given up and has written for himself. So only what cannot be applied twice goes this way: a transaction
with a condition on a key that it writes itself (`is_single`). An outcome that nobody knows is what the port has a
word for; the same transaction is then committed directly.

The socket lies in a folder that only the file's owner may enter. Abstract names, which bells take below a long path,
may be reached by anybody, so there is no relay there.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from mr.errors import MrError, StoreFull, StoreUnavailable
from mr.ports.broker import Publication
from mr.ports.store import Absent, At, Delete, Entry, Equals, Outcome, Put, Transaction

_log = logging.getLogger(__name__)

ANSWER_S = 2.0
"""How long a commit may take until its outcome counts as unknown."""
AVOID_S = 5.0
"""How long everybody writes for himself after that."""
RETRY_S = 1.0
"""How often a worker looks whether another has stopped being the relay."""
CONNECTIONS_MAX = 64

_NAME = "commits-1"
"""The number is that of the protocol: processes of two versions do not talk to each other."""
_PATH_MAX = 107
_SIZE = struct.Struct("<I")
_SIZE_MAX = 16 * 1024 * 1024


class _Order(msgspec.Struct, frozen=True, array_like=True):
    """A transaction on its way."""

    absent: list[str]
    equal: list[tuple[str, bytes]]
    at: list[tuple[str, int]]
    puts: list[tuple[str, bytes]]
    deletes: list[str]
    counts: list[str]
    reads: list[str]
    messages: list[tuple[str, bytes, float]]


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """What became of it, or why nothing did."""

    succeeded: bool = False
    revision: int = 0
    counts: dict[str, int] = {}
    entries: dict[str, tuple[str, bytes, int, int] | None] = {}
    problem: str = ""
    is_unknown: bool = False
    is_full: bool = False


_orders = msgspec.msgpack.Decoder(_Order)
_answers = msgspec.msgpack.Decoder(_Answer)
_encode = msgspec.msgpack.Encoder().encode


def is_single(transaction: Transaction) -> bool:
    """Whether it cannot be applied a second time: it changes something of which it says how it has to be."""
    operations = transaction.operations
    if any(isinstance(one, Put) and one.lease is not None for one in operations):
        return False
    written = {one.key for one in operations}
    return any(isinstance(one, Absent | At) and one.key in written for one in transaction.conditions)


class Relay:
    """Takes commits from other processes, as soon as no other process does. `commit` is called in several threads."""

    def __init__(self, path: str, commit: Callable[[Transaction], Outcome]) -> None:
        self._address, self._commit = _address(path), commit
        self._closed = threading.Event()
        self._open: set[socket.socket] = set()
        self._thread: threading.Thread | None = None
        if self._address is not None:
            self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Take no more. Twice is harmless."""
        self._closed.set()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(RETRY_S)

    def _run(self) -> None:
        assert self._address is not None
        while not self._closed.is_set():
            try:
                with _alone(f"{self._address}.lock") as is_alone:
                    if is_alone:
                        self._listen(self._address)
            except OSError as error:
                _log.warning("commits of other processes cannot be taken: %s", error)
            self._closed.wait(RETRY_S)

    def _listen(self, address: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(address)  # left by one that was killed
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(address)
            listener.listen(CONNECTIONS_MAX)
            self._open.add(listener)
            try:
                while not self._closed.is_set():
                    self._accept(listener)
            finally:
                self._open.discard(listener)
                with suppress(OSError):
                    os.unlink(address)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            if self._closed.is_set():
                return
            raise
        if len(self._open) > CONNECTIONS_MAX:
            connection.close()
            return
        self._open.add(connection)
        threading.Thread(target=self._serve, args=(connection,), name="relayed", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                while (data := _receive(connection)) is not None:
                    _send(connection, _encode(self._answer(_orders.decode(data))))
        except (OSError, msgspec.MsgspecError) as error:
            _log.info("a process that handed in commits is gone: %s", error)
        finally:
            self._open.discard(connection)

    def _answer(self, order: _Order) -> _Answer:
        transaction = Transaction(
            conditions=[
                *(Absent(key) for key in order.absent),
                *(Equals(key, value) for key, value in order.equal),
                *(At(key, version) for key, version in order.at),
            ],
            operations=[*(Put(key, value) for key, value in order.puts), *(Delete(key) for key in order.deletes)],
            counts=order.counts,
            reads=order.reads,
            messages=[Publication(topic, body, delay_s) for topic, body, delay_s in order.messages],
        )
        try:
            outcome = self._commit(transaction)
        except StoreUnavailable as error:
            return _Answer(problem=error.message, is_unknown=error.unknown)
        except MrError as error:
            return _Answer(problem=error.message, is_full=isinstance(error, StoreFull))
        entries = {
            key: (one.key, one.value, one.version, one.created) if one is not None else None
            for key, one in outcome.entries.items()
        }
        return _Answer(outcome.succeeded, outcome.revision, dict(outcome.counts), entries)


class Courier:
    """Hands commits to the relay of a file. Safe to call from several threads, which wait meanwhile."""

    def __init__(self, path: str) -> None:
        self._address = _address(path)
        self._idle: deque[socket.socket] = deque()
        self._avoided_until = 0.0

    def hand_in(self, transaction: Transaction) -> Outcome | None:
        """The outcome; None if there is nobody to hand it to, and nothing was sent.

        Raises: StoreUnavailable, with `unknown` set if it may be applied yet; StoreFull.
        """
        if self._address is None or time.monotonic() < self._avoided_until:
            return None
        connection = self._connection(self._address)
        if connection is None:
            return None
        try:
            _send(connection, _encode(_order(transaction)))
            data = _receive(connection)
            if data is None:
                raise ConnectionResetError("it was closed")
            answer = _answers.decode(data)
        except (OSError, msgspec.MsgspecError) as error:
            connection.close()
            self._avoided_until = time.monotonic() + AVOID_S
            raise StoreUnavailable(f"the worker that commits does not answer: {error}", unknown=True) from error
        self._idle.append(connection)
        if answer.problem:
            if answer.is_full:
                raise StoreFull(answer.problem)
            raise StoreUnavailable(answer.problem, unknown=answer.is_unknown)
        entries = {key: Entry(*one) if one is not None else None for key, one in answer.entries.items()}
        return Outcome(succeeded=answer.succeeded, revision=answer.revision, counts=answer.counts, entries=entries)

    def close(self) -> None:
        """Let go of all connections."""
        while self._idle:
            self._idle.pop().close()

    def _connection(self, address: str) -> socket.socket | None:
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                # Nothing is to be read here, unless the relay has ended meanwhile.
                look = select.poll()
                look.register(connection, select.POLLIN)
                if not look.poll(0):
                    return connection
                connection.close()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_S)
        try:
            connection.connect(address)
        except OSError:
            connection.close()
            self._avoided_until = time.monotonic() + RETRY_S
            return None
        return connection


def _order(transaction: Transaction) -> _Order:
    conditions, operations = transaction.conditions, transaction.operations
    return _Order(
        absent=[one.key for one in conditions if isinstance(one, Absent)],
        equal=[(one.key, one.value) for one in conditions if isinstance(one, Equals)],
        at=[(one.key, one.version) for one in conditions if isinstance(one, At)],
        puts=[(one.key, one.value) for one in operations if isinstance(one, Put)],
        deletes=[one.key for one in operations if isinstance(one, Delete)],
        counts=list(transaction.counts),
        reads=list(transaction.reads),
        messages=[(one.topic, one.body, one.delay_s) for one in transaction.messages],
    )


def _address(path: str) -> str | None:
    """Where the relay of a file listens; None if that is too long for a socket."""
    folder = f"{path}.wake"
    address = os.path.join(folder, _NAME)
    if len(os.fsencode(address)) > _PATH_MAX:
        return None
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return address


@contextmanager
def _alone(path: str) -> Iterator[bool]:
    """Whether no other process has the lock; it is held meanwhile, and goes with the process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(_SIZE.pack(len(data)) + data)


def _receive(connection: socket.socket) -> bytes | None:
    """One message; None at the end. Raises: OSError, also where it ends in the middle of one."""
    data = b""
    needed = _SIZE.size
    while len(data) < needed:
        piece = connection.recv(needed - len(data))
        if not piece and data:
            raise ConnectionResetError("it was closed in the middle of a message")
        if not piece:
            return None
        data += piece
        if len(data) == needed == _SIZE.size:
            needed += _SIZE.unpack(data)[0]
            if needed > _SIZE_MAX:
                raise ConnectionError(f"a message of {needed} bytes")
    return data[_SIZE.size :]
