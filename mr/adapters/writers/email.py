"""Results by mail: one mail for each request, with the pairs attached as `result.json`.

Nobody can take a mail back, and a server may have taken one whose answer was lost. So a repeat is the same mail once
more, under the same Message-ID, by which mail programs know what they have already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mr.adapters import mail
from mr.codec import Items
from mr.errors import ValueRefused
from mr.ports.result_writer import Origin, ResultWriter
from mr.settings import MailSettings, ResultSettings


class EmailWriter(ResultWriter):
    """Sends to the recipients of the settings."""

    name = "email"

    def __init__(self, server: MailSettings, settings: ResultSettings) -> None:
        self._server, self._settings = server, settings

    def write(self, origin: Origin, pairs: Iterator[Items]) -> dict[str, Any]:
        """One mail; those of its recipients that were refused, while others were not, are told."""
        values = {
            "request_id": origin.request_id,
            "job_name": origin.job,
            "workflow_name": origin.workflow,
        }
        recipients = self._settings.recipients
        message_id = f"<{origin.request_id}.result@{self._server.sender.rpartition('@')[2]}>"
        subject, text = self._settings.subject.fill(values), self._settings.text.fill(values)
        made = mail.message(self._server.sender, recipients, subject, text, message_id)
        made.add_attachment(self._attachment(pairs), maintype="application", subtype="json", filename="result.json")
        refused = mail.send(self._server, made)
        return {"to": list(recipients), "message_id": message_id, **({"refused": refused} if refused else {})}

    def _attachment(self, pairs: Iterator[Items]) -> bytes:
        documents: list[bytes] = []
        size = 0
        for items in pairs:
            size += items.size_bytes
            if size > self._settings.mail_max_bytes:
                raise ValueRefused(
                    f"the result has more than {self._settings.mail_max_mb:g} MB, too much for a mail",
                    hint="raise MR_RESULT_EMAIL_WRITER_MAX_MB, or let this job write by file or http",
                )
            documents.extend(items)
        return b"[" + b",".join(documents) + b"]"
