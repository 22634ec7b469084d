"""Notices by mail: the text and the message of the error; the traceback is a page that few want to be sent."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from mr.adapters import mail
from mr.errors import NotDelivered
from mr.ports.notifier import Notice, Notifier
from mr.settings import MailSettings


class EmailNotifier(Notifier):
    """Sends to the recipients, under one subject."""

    name = "email"

    def __init__(self, server: MailSettings, recipients: Sequence[str], subject: str) -> None:
        self._server, self._recipients, self._subject = server, recipients, subject

    def notify(self, notice: Notice) -> None:
        """One mail."""
        about = [
            ("Level", notice.level.upper()),
            ("Workflow", notice.workflow),
            ("Request", notice.request),
            ("Invocation", notice.invocation),
            ("Handler", notice.handler),
        ]
        paragraphs = [notice.text, notice.message, "\n".join(f"{noun}: {name}" for noun, name in about if name)]
        text = "\n\n".join(part for part in paragraphs if part)
        message_id = f"<{secrets.token_hex(16)}@{self._server.sender.rpartition('@')[2]}>"
        refused = mail.send(
            self._server, mail.message(self._server.sender, self._recipients, self._subject, text, message_id)
        )
        if refused:
            raise NotDelivered("; ".join(f"{to}: {why}" for to, why in refused.items()))
