"""What systemd is told over `NOTIFY_SOCKET`: that we are ready, that we live, that we end.

A datagram of `NAME=value` lines is the whole protocol. Without a manager that listens, nothing is told, and nothing
ever fails for it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Manager:
    """The one who started this process, if he wants to hear of it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.beat_s = _beat_s(environ) if address else None

    def ready(self, status: str) -> None:
        """The start is over; `status` is a line for `systemctl status`."""
        self._tell("READY=1", f"STATUS={status}")

    def alive(self) -> None:
        """To be said every `beat_s` seconds, by whatever stands still when the process does."""
        self._tell("WATCHDOG=1")

    def ending(self) -> None:
        """The process was asked to end, and is at it."""
        self._tell("STOPPING=1", "STATUS=ending")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one:
            one.setblocking(False)  # a manager that does not read must not hold us up
            one.sendto("\n".join(lines).encode(), self._address)


def _beat_s(environ: Mapping[str, str]) -> float | None:
    """Half of the time after which the manager would give us up; None if he does not watch this process."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        return int(environ["WATCHDOG_USEC"]) / 2e6 or None
    except (KeyError, ValueError):
        return None
