"""Mail by SMTP: the one door to smtplib, for results and notifications.

A mail is one connection, so nothing is kept that a server may close meanwhile. Every step of it has a time-out; a
server that answers a little at a time is ended by whoever called.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime

from mr.errors import NotDelivered
from mr.settings import MailSettings

TIMEOUT_S = 30.0


def message(sender: str, recipients: Sequence[str], subject: str, text: str, message_id: str) -> EmailMessage:
    """A mail of plain text; a line break in anything but the text is refused by its policy."""
    made = EmailMessage(policy=SMTP)
    made["From"], made["To"], made["Subject"] = sender, ", ".join(recipients), subject
    made["Date"] = format_datetime(localtime())
    made["Message-ID"] = message_id
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(text)
    return made


def send(server: MailSettings, mail: EmailMessage) -> Mapping[str, str]:
    """Hand the mail to the server; who was refused of its recipients, and why, if others were not.

    Raises: NotDelivered if the server took it for nobody.
    """
    try:
        with _connect(server) as connection:
            refused = connection.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        told = "; ".join(f"{to}: {_told(answer)}" for to, answer in error.recipients.items())
        raise NotDelivered(f"{server.host}:{server.port} takes it for nobody: {told}") from error
    except smtplib.SMTPResponseException as error:
        raise NotDelivered(
            f"{server.host}:{server.port} answers {_told((error.smtp_code, error.smtp_error))}"
        ) from error
    except (smtplib.SMTPException, OSError) as error:
        raise NotDelivered(f"{server.host}:{server.port}: {error or type(error).__name__}") from error
    return {to: _told(answer) for to, answer in refused.items()}


def _connect(server: MailSettings) -> smtplib.SMTP:
    if server.security == "tls":
        context = _context(server)
        connection: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT_S, context=context)
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_S)
    try:
        if server.security == "starttls":
            connection.starttls(context=_context(server))
        if server.username and server.password is not None:
            connection.login(server.username, server.password.value)
    except BaseException:
        connection.close()
        raise
    return connection


def _context(server: MailSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if server.certificate:
        context.load_cert_chain(server.certificate, server.key or None)
    return context


def _told(answer: tuple[int, bytes | str]) -> str:
    """What a server said, as one line."""
    code, text = answer
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(words.split())}"[:500]
