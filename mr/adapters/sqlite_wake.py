"""Wake-ups between processes that share one SQLite file.

Whoever waits hangs up a **bell**: a Unix datagram socket beside the file, whose address and purpose it writes
into the file. Whoever commits something of interest rings it with one datagram. A ring carries nothing and
promises nothing: the woken looks into the file, and a sleeper looks by itself every second.

The hard part is what may go wrong quietly. The kernel queues ten datagrams for a socket and refuses more: ten
unread rings wake as well as eleven, so a refusal is ignored. A killed process leaves its socket file behind:
ringing it is refused, which tells the ringer to clear it away. A path of a socket has at most 107 bytes: below a
long directory the bell takes a name in the kernel's abstract space; the file holds the address either way.
"""

from __future__ import annotations

import _socket
import contextlib
import os
import secrets
import socket
from collections.abc import Iterable

_PATH_MAX = 107
_RING = b"!"


class Bell:
    """A socket to be woken by. Used by one thread, or by one event loop through `fileno` and `drain`."""

    def __init__(self, directory: str) -> None:
        name = secrets.token_hex(8)
        path = os.path.join(directory, name)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if len(os.fsencode(path)) <= _PATH_MAX:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self.address = path
        else:
            self.address = f"@mr-{name}"
        self._socket.bind(_kernel_address(self.address))
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor that becomes readable when somebody rings."""
        return self._socket.fileno()

    def wait(self, timeout_s: float) -> bool:
        """Sleep until somebody rings or the time is over; says whether somebody rang."""
        self._socket.settimeout(max(timeout_s, 0.000_001))
        try:
            self._socket.recv(1)
        except TimeoutError:
            return False
        finally:
            self._socket.setblocking(False)
        self.drain()
        return True

    def drain(self) -> None:
        """Forget all rings so far. Look into the file after this, never before."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)

    def ring(self) -> None:
        """Wake whoever waits for this bell, from any thread."""
        with contextlib.suppress(OSError):
            self._socket.sendto(_RING, _kernel_address(self.address))

    def close(self) -> None:
        """Take the bell down. Twice is harmless."""
        self._socket.close()
        remove(self.address)


class Ringer:
    """Rings bells from the writer thread, never waiting."""

    def __init__(self) -> None:
        # The C-level socket: in a process patched by gevent the other one belongs to the event loop's thread.
        self._socket = _socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def ring(self, addresses: Iterable[str]) -> list[str]:
        """Ring each; returns those behind which nobody lives any more."""
        dead = []
        for address in addresses:
            try:
                self._socket.sendto(_RING, _kernel_address(address))
            except (ConnectionRefusedError, FileNotFoundError):
                dead.append(address)
            except OSError:
                continue  # its queue is full, so it wakes anyway; or a fault that the slow poll covers
        return dead

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()


def remove(address: str) -> None:
    """Remove what a bell left in the file system."""
    if not address.startswith("@"):
        with contextlib.suppress(OSError):
            os.unlink(address)


def _kernel_address(address: str) -> str:
    return "\0" + address[1:] if address.startswith("@") else address
