"""The names that every handler finds in its scope, and `ctx`.

One executor runs one invocation at a time, so the names are bound once to one `Current`, which the runner moves from
child to child; that keeps the price of a child at copying a dict.

What is not configured is present all the same, and says which setting is missing when it is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from mr.addresses import FileSystemUrl
from mr.codec import dumps, encode
from mr.errors import ValueRefused
from mr.model.ids import child as child_path
from mr.rules import limits
from mr.worker.log import Hooks, Missing, Tell, loggers
from mr.worker.mount import SharedFiles
from mr.worker.output import Capture

SEP = "/"
COLLECTIONS = "COLLECTIONS"
"""Under this name a handler that uses it finds what its workflow shares."""
READ_ONLY = "Session writes are disabled from the current context."

_decode: Callable[[bytes], Any] = msgspec.json.Decoder().decode


class Refused(Exception):
    """What a handler gave or asked for is refused; `class_` is one of `model.invocation.ERROR_CLASSES`."""

    def __init__(self, class_: str, message: str) -> None:
        super().__init__(message)
        self.class_ = class_


class SessionError(Exception):
    """A handler used its session in a way that is not allowed here."""


class MapTo:
    """What `MrConfigureToMap(step)` gives: further pairs become children that run `step`."""

    __slots__ = ("step",)

    def __init__(self, step: str) -> None:
        if type(step) is not str or not step:
            raise Refused("protocol", f"MrConfigureToMap takes the name of a step, not {type(step).__name__}")
        self.step = step


class Return:
    """What `MrConfigureToReturn()` gives: further pairs are data."""

    __slots__ = ()


RETURN = Return()


def configure_to_return() -> Return:
    """`MrConfigureToReturn()`."""
    return RETURN


class Session:
    """The session values of the running invocation, as JSON by key; looks like a mapping to handlers.

    `used` tells the runner that there is something to send, or that a write was refused, without asking further.
    """

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.used = False
        self.refused = False
        self.writable = True
        self.limit_bytes = 0
        self._size = 0

    def begin(self, values: dict[str, bytes], *, writable: bool) -> None:
        """Start with these values for the next invocation."""
        self.values = values
        self.used = self.refused = False
        self.writable = writable
        self._size = sum(len(key) + len(value) for key, value in values.items())

    def raw(self) -> dict[str, msgspec.Raw]:
        """The values, to stand in a frame."""
        return {key: msgspec.Raw(value) for key, value in self.values.items()}

    def set(self, key: str, value: Any) -> None:
        """Keep a value under a key; a later one replaces it. Raises: SessionError from a reducer."""
        self.used = True
        if not self.writable:
            self.refused = True
            raise SessionError(READ_ONLY)
        if type(key) is not str or not key:
            raise TypeError(f"a session key is a str that is not empty, not {type(key).__name__}")
        try:
            if len(encode(key)) > limits.SESSION_KEY_MAX:
                raise Refused("output_limit", f"a session key has at most {limits.SESSION_KEY_MAX} bytes, as JSON")
            data = dumps(value)
        except UnicodeEncodeError as error:
            raise Refused("not_serialisable", "a session key holds a lone surrogate") from error
        except ValueRefused as error:
            raise Refused("not_serialisable", f"the session value {key!r} cannot be kept: {error}") from error
        size = self._size + len(key) + len(data)
        if key in self.values:
            size -= len(key) + len(self.values[key])
        if size > self.limit_bytes:
            raise Refused("output_limit", f"the session would hold {size} bytes; the limit is {self.limit_bytes}")
        self.values[key] = data
        self._size = size

    def __getitem__(self, key: str) -> Any:
        """The value of a key. Raises: KeyError naming the key."""
        if key not in self.values:
            raise KeyError(key)
        return _decode(self.values[key])

    def __setitem__(self, key: str, value: Any) -> None:
        self.set(key, value)

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default."""
        return self[key] if key in self.values else default

    def list(self) -> list[tuple[str, Any]]:
        """All (key, value) pairs, in the order in which the keys were first set."""
        return [(key, _decode(data)) for key, data in self.values.items()]

    items = list

    def keys(self) -> Sequence[str]:
        """All keys."""
        return [*self.values]

    def __contains__(self, key: object) -> bool:
        return key in self.values

    def __iter__(self) -> Iterator[str]:
        return iter([*self.values])

    def __len__(self) -> int:
        return len(self.values)


class Current:
    """What runs now. For a map `path` is that of the parent and `child` a number, else `path` is its own.

    `tell` passes on what a handler wants somebody to be told, `collections` gives those of a workflow; `file_system` is
    where the shared one is.
    """

    def __init__(self, capture: Capture, tell: Tell, collections: Callable[[str], Any]) -> None:
        self.capture, self.tell, self.collections = capture, tell, collections
        self.session = Session()
        self.request = ""
        self.path = ""
        self.step = ""
        self.child: int | None = None
        self.context: Context | None = None
        self.file_system: FileSystemUrl | None = None

    @property
    def invocation(self) -> str:
        """Id of the running invocation."""
        return invocation_id(self.request, self.path, self.child)


def invocation_id(request: str, path: str, child: int | None) -> str:
    """`<request>.<path>`, with `.r` for a reduce, which has no `child`."""
    return f"{request}.{path}.r" if child is None else f"{request}.{child_path(path, child)}"


class Context(msgspec.Struct):
    """The `ctx` of a `def handle` module; a new one for each call, made in a tenth of a microsecond."""

    _current: Current
    _scope: Mapping[str, Any]
    request: str
    _path: str
    _child: int | None
    step: str | None = None
    closed: bool = False

    @property
    def invocation(self) -> str:
        """Id of the invocation that this is the context of."""
        return invocation_id(self.request, self._path, self._child)

    def map_to(self, step: str) -> None:
        """Make the pairs that follow children of `step`; only a mapper, before its first yield."""
        if self.closed:
            raise Refused("protocol", f"ctx.map_to({step!r}) came after the first yield; expected before it")
        self.step = MapTo(step).step

    @property
    def session(self) -> Session:
        """The session of this invocation; a reducer can only read it."""
        return self._current.session

    @property
    def fs(self) -> Any:
        """The shared file system."""
        return self._scope["FS"]

    @property
    def collections(self) -> Any:
        """Queues and trees that all invocations of the workflow share."""
        return self._scope[COLLECTIONS]

    @property
    def log(self) -> Any:
        """Writes lines to the output of this invocation."""
        return self._scope["LOG"]

    @property
    def notify(self) -> Any:
        """Tells people in every way that is configured, see `NOTIFY`."""
        return self._scope["NOTIFY"]

    @property
    def email(self) -> Any:
        """Tells people by mail."""
        return self._scope["EMAIL"]

    @property
    def http(self) -> Any:
        """Tells people by HTTP."""
        return self._scope["HTTP"]

    @property
    def run(self) -> Any:
        """Runs a command, see `RUN`."""
        return self._scope["RUN"]


def _runner(capture: Capture) -> Callable[..., int]:
    def run(
        cmd: Sequence[str],
        input_data: str | bytes | None = None,
        success_code: int | None = 0,
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Run a command, its output going to the handler's; return its exit code.

        Raises: ValueError `Command failed: […]` when the exit code is not `success_code`, unless that is None.
        """
        import subprocess
        import threading

        command = list(cmd)
        # A pipe, not the capture file itself: a script that opens /dev/stderr anew would empty the file.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if input_data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else dict(env),
        )
        assert process.stdout is not None
        feeder = None
        if process.stdin is not None and input_data is not None:
            data = input_data.encode() if isinstance(input_data, str) else bytes(input_data)
            feeder = threading.Thread(target=_feed, args=(process.stdin, data), daemon=True)
            feeder.start()
        with process:
            while piece := os.read(process.stdout.fileno(), 65536):
                os.write(capture.descriptor, piece)
            code = process.wait()
        if feeder is not None:
            feeder.join()
        if success_code is not None and code != success_code:
            raise ValueError(f"Command failed: {command} ended with {code}, expected {success_code}")
        return code

    return run


def _feed(stream: Any, data: bytes) -> None:
    try:
        stream.write(data)
        stream.close()
    except (OSError, ValueError):
        pass  # the command did not want all of its input; its exit code tells


def build(
    current: Current,
    name: str,
    workflow: str,
    hooks: Hooks,
    builtins: dict[str, Any],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """The globals of a handler before it runs; names of the site's scope factory come last and may replace ours."""
    session, url = current.session, current.file_system
    label = f"handler({name})"
    scope: dict[str, Any] = {
        "__builtins__": builtins,
        "__name__": label,
        "MrConfigureToMap": MapTo,
        "MrConfigureToReturn": configure_to_return,
        "S_GET": session.__getitem__,
        "S_SET": session.set,
        "S_LIST": session.list,
        "FS": Missing("no filesystem configured: set MR_FS_URL") if url is None else SharedFiles(url, workflow),
        "SEP": SEP,
        "JOIN": lambda *parts: SEP.join(parts),
        "PRINT": lambda message: print(message, file=sys.stdout),
        "RUN": _runner(current.capture),
        **loggers(current.capture, name, hooks, current.tell),
    }
    scope.update(given)
    return scope
