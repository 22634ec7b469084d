"""Notices to chat and pager services, by apprise, which knows a hundred of them; the extra `notify` installs it.

An address has a token in it, as a rule, and apprise writes addresses into its log when they fail; so it logs nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mr.errors import ConfigError, NotDelivered
from mr.ports.notifier import Notice, Notifier

VARIABLE = "MR_NOTIFY_URLS"
TEXT_MAX = 1500
"""Characters; most services take about two thousand."""
_TYPES = {"debug": "info", "info": "info", "warning": "warning", "error": "failure", "critical": "failure"}


class AppriseNotifier(Notifier):
    """Sends to all of the addresses.

    Raises: ConfigError if apprise is not installed, or does not know an address; it is told by its place in the list.
    """

    name = "apprise"

    def __init__(self, addresses: Sequence[str]) -> None:
        try:
            import apprise
        except ImportError as error:
            raise ConfigError([f"{VARIABLE}: expected the extra notify: pip install 'mr-jobs[notify]'"]) from error
        logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
        self._services = apprise.Apprise()
        wrong = [str(place) for place, address in enumerate(addresses, 1) if not self._services.add(address)]
        if wrong:
            raise ConfigError([f"{VARIABLE}: expected addresses that apprise knows; not so number {', '.join(wrong)}"])

    def notify(self, notice: Notice) -> None:
        """One message to each service: the text, and the message of an error."""
        about = " ".join(part for part in (notice.workflow, notice.request[:12], notice.handler) if part)
        text = "\n".join(part for part in (notice.text, notice.message) if part)
        title = f"mr: {notice.level}" + (f" in {about}" if about else "")
        if not self._services.notify(body=text[:TEXT_MAX], title=title, notify_type=_TYPES[notice.level]):
            raise NotDelivered("apprise could not reach every service")
