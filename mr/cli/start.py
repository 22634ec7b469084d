"""Where the program `mr` begins: it makes Ctrl-C quiet, then imports the commands.

The hard part is the first tenth of a second, in which Python imports and a Ctrl-C would be told with a traceback.
Nothing has begun then that would have to end in order, so the signal may simply end the process.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Run `mr` with the arguments of this process."""
    usual = signal.getsignal(signal.SIGINT)  # ignored, where a shell has started us in the background
    if usual is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mr.cli.main import main as begin

    signal.signal(signal.SIGINT, usual)
    begin()
