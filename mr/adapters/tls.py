"""TLS to servers, by the files that the settings name."""

from __future__ import annotations

import ssl

from mr.addresses import Tls
from mr.errors import ConfigError


def security(tls: Tls) -> ssl.SSLContext:
    """Whom to trust, and who we are.

    Raises: ConfigError naming the file that cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(path for path in (tls.ca, tls.cert, tls.key) if path)
        raise ConfigError([f"MR_STORE: expected certificates in PEM, got: {files} ({error})"]) from error
    return context
