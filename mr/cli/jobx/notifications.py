"""JobX's script that listens for notifications."""

from __future__ import annotations

from contextlib import suppress

from mr.cli.jobx.script import script
from mr.cli.output import echo, say
from mr.errors import ConfigError


@script(example="| grep ERROR")
def mr_http_notification_listen() -> None:
    """Print the notifications that workers send by HTTP (MR_LOG_HTTP_HOOK=1), until Ctrl-C; times are UTC.

    Listens at HTTP_LISTEN_HOSTNAME (localhost) and HTTP_LISTEN_PORT (3333).
    """
    import os
    import signal

    from mr.cli.listening import listening

    host, port = os.environ.get("HTTP_LISTEN_HOSTNAME") or "localhost", os.environ.get("HTTP_LISTEN_PORT") or "3333"
    if not port.isdecimal() or int(port) > 65535:
        raise ConfigError([f"HTTP_LISTEN_PORT: expected a port, got: {port!r}"])
    try:
        server = listening(host, int(port), echo)
    except OSError as error:
        raise ConfigError(
            [f"HTTP_LISTEN_PORT: expected a free port at {host}, got: {port} ({error.strerror})"]
        ) from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say(f"listening on http://{host}:{server.server_address[1]}; Ctrl-C ends it")
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
