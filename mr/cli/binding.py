"""Binding: whether the front end can listen where it shall, and what stands in its way.

gunicorn finds that out as well, but in a dozen lines of log for each place, and without the next step. So it is tried
before. The hard part is who was killed: its children listen for another second, and whoever starts it anew must not
fail for that. So a place that is taken is tried again for a while, and that is said.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from mr.addresses import Bind, Endpoint
from mr.cli.exits import REFUSED, Refused
from mr.cli.output import shortened

PATIENCE_S = 5.0
LOOK_EVERY_S = 0.25
COMMAND_MAX = 80
_LISTENS = "0A"


def is_inherited(environ: Mapping[str, str]) -> bool:
    """Whether the process was born with its listeners: by systemd's sockets, or a gunicorn that makes room."""
    return "LISTEN_FDS" in environ or "GUNICORN_FD" in environ


def wait_until_free(bind: Bind, command: str, tell: Callable[[str], None]) -> None:
    """Go on once nobody listens there any more; what takes it is told, when it is not free at once.

    Raises: Refused if it stays taken, or for another reason cannot be.
    """
    until = time.monotonic() + PATIENCE_S
    is_told = False
    while problem := _problem(bind):
        if problem.errno != errno.EADDRINUSE or time.monotonic() > until:
            raise _refused(bind, command, problem) from problem
        if not is_told:
            is_told = True
            tell(f"{bind} is taken{_by(bind)}; trying again for {PATIENCE_S:g} s")
        time.sleep(LOOK_EVERY_S)


def free(bind: Bind, command: str) -> Bind:
    """The place, if it is free; for port 0 with a free port in its stead.

    Raises: Refused with the next step if it is not.
    """
    if problem := _problem(bind):
        raise _refused(bind, command, problem) from problem
    if bind.endpoint is None or bind.endpoint.port:
        return bind
    with _bound(bind.endpoint) as probe:
        return Bind(endpoint=Endpoint(bind.endpoint.host, probe.getsockname()[1]))


def _problem(bind: Bind) -> OSError | None:
    """Why nobody could listen there now."""
    try:
        if bind.endpoint is not None:
            _bound(bind.endpoint).close()
        else:
            _try_path(bind.path)
    except OSError as error:
        return error
    return None


def _bound(endpoint: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((endpoint.host, endpoint.port))
    except BaseException:
        probe.close()
        raise
    return probe


def _try_path(path: str) -> None:
    """A socket that nobody listens to any more is replaced, anything else is not ours."""
    folder = os.path.dirname(path) or "."
    os.stat(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket has that name")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _refused(bind: Bind, command: str, problem: OSError) -> Refused:
    place, path, port = bind.endpoint, bind.path, bind.endpoint.port if bind.endpoint else 0
    another = f"{command} --bind {Endpoint(place.host, port % 65535 + 1) if place else 'unix:/another/path'}"
    if problem.errno == errno.EADDRINUSE:
        message = f"{bind} is taken{_by(bind)}"
        hint = f"end what listens there, or take another: {another} (or MR_WEB_BIND)"
    else:
        message = f"cannot listen at {bind}: {problem.strerror}"
        if place is None and problem.errno == errno.ENOENT:
            hint = f"make its directory first: mkdir -p {os.path.dirname(path)}"
        elif place is None:
            hint = f"take another path: {another} (or MR_WEB_BIND)"
        elif problem.errno == errno.EACCES:
            hint = f"ports below 1024 are the system's; take one above, and put a proxy in front: {command} --bind "
            hint += str(Endpoint(place.host, 8080))
        else:
            hint = (
                f"the host must be one of this machine, such as {Endpoint('127.0.0.1', port)} (--bind or MR_WEB_BIND)"
            )
    return Refused(message, hint=hint, exit_code=REFUSED)


def _by(bind: Bind) -> str:
    """Whose process it is, as far as this user may see."""
    with suppress(OSError):  # it may end meanwhile
        pid = next(_holders(bind.endpoint.port), None) if bind.endpoint is not None else None
        if pid is None:
            return ""
        program, *words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        command = " ".join([os.path.basename(program), *words]).strip()
        return f" by process {pid} ({shortened(command, COMMAND_MAX)})"
    return ""


def _holders(port: int) -> Iterator[int]:
    """Processes that listen at a port, the oldest first."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:
            continue
        inodes |= {row[9] for row in rows if row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port}
    names = {f"socket:[{inode}]" for inode in inodes}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            if any(os.readlink(f"/proc/{pid}/fd/{fd}") in names for fd in os.listdir(f"/proc/{pid}/fd")):
                yield pid
        except OSError:
            continue  # it is another user's, or has just ended
