"""The writer `email`, against a mail server on the loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mr.adapters.writers.email import EmailWriter
from mr.codec import Items, encode
from mr.errors import NotDelivered, ValueRefused
from mr.ports.result_writer import Origin
from mr.settings import Settings
from tests.receivers import MailServer, mail_server

R = "0123456789" * 4
ORIGIN = Origin(workflow="w", job="j", request_id=R)


@pytest.fixture(scope="module")
def running() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture
def server(running: MailServer) -> MailServer:
    running.mails.clear()
    running.refuses.clear()
    return running


def writer(server: MailServer, **environ: str) -> EmailWriter:
    settings = Settings.from_env(
        {
            "HOME": "/tmp",
            "MR_RESULT_WRITER": "email",
            "MR_RESULT_EMAIL_WRITER_TO_LIST": "ana@example.org,bo@example.org",
            "MR_EMAIL_SMTP_FROM_EMAIL": "mr@example.org",
            "MR_EMAIL_SMTP_HOSTNAME": "127.0.0.1",
            "MR_EMAIL_SMTP_PORT": str(server.port),
            **environ,
        }
    )
    return EmailWriter(settings.mail, settings.results)


def pieces(*pairs: Any) -> Iterator[Items]:
    for pair in pairs:
        yield Items.of([encode(pair)])


def test_JX_82_the_result_is_attached_as_a_list_of_pairs(server: MailServer) -> None:
    told = writer(server).write(ORIGIN, pieces(["a", 1], [[1, 2], {"é": None}]))
    (mail,) = server.mails
    assert mail.sender == "mr@example.org"
    assert mail.recipients == ["ana@example.org", "bo@example.org"]
    assert mail.message["To"] == "ana@example.org, bo@example.org"
    assert mail.message["Subject"] == "Request has completed under job [j] (workflow [w])"
    body = mail.message.get_body()
    assert body is not None
    assert body.get_content().splitlines()[0] == f"Request ID: {R}"
    (attachment,) = mail.message.iter_attachments()
    assert (attachment.get_content_type(), attachment.get_filename()) == ("application/json", "result.json")
    assert json.loads(attachment.get_content()) == [["a", 1], [[1, 2], {"é": None}]]
    assert told == {"to": ["ana@example.org", "bo@example.org"], "message_id": mail.message["Message-ID"]}


def test_an_empty_result_is_an_empty_list(server: MailServer) -> None:
    writer(server).write(ORIGIN, pieces())
    (attachment,) = server.mails[0].message.iter_attachments()
    assert json.loads(attachment.get_content()) == []


def test_JX_82_subject_and_text_are_the_operators(server: MailServer) -> None:
    templates = {
        "MR_RESULT_EMAIL_WRITER_SUBJECT_TEMPLATE": "%(workflow_name)s: 100%% of %(job_name)s ist fertig: ü",
        "MR_RESULT_EMAIL_WRITER_TEXT_BODY_TEMPLATE": "Grüße.\n%(request_id)s",
    }
    writer(server, **templates).write(ORIGIN, pieces())
    (mail,) = server.mails
    assert mail.message["Subject"] == "w: 100% of j ist fertig: ü"
    body = mail.message.get_body()
    assert body is not None
    assert body.get_content().splitlines() == ["Grüße.", R]


def test_a_repeat_is_the_same_mail_once_more(server: MailServer) -> None:
    one = writer(server)
    for _ in range(2):
        one.write(ORIGIN, pieces(["a", 1]))
    one.write(Origin(workflow="w", job="j", request_id="f" * 40), pieces(["a", 1]))
    names = [mail.message["Message-ID"] for mail in server.mails]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("name", ["j\r\nBcc: eve@example.org", "j\nX: y", "j\r.\r\n"])
def test_no_name_becomes_a_header(server: MailServer, name: str) -> None:
    """Names are checked when they are given; should one get past that, no mail is sent."""
    with pytest.raises(ValueError, match=r"[Hh]eader"):
        writer(server).write(Origin(workflow="w", job=name, request_id=R), pieces())
    assert server.mails == []


def test_a_result_too_big_for_a_mail_is_refused_before_anything_is_sent(server: MailServer) -> None:
    small = writer(server, MR_RESULT_EMAIL_WRITER_MAX_MB="0.001")
    small.write(ORIGIN, pieces(["a", "x" * 1000]))
    with pytest.raises(ValueRefused, match="MR_RESULT_EMAIL_WRITER_MAX_MB"):
        small.write(ORIGIN, pieces(["a", "x" * 1000], ["b", "x" * 1000]))
    assert len(server.mails) == 1


def test_who_is_refused_beside_others_is_told(server: MailServer) -> None:
    server.refuses = {"bo@example.org"}
    told = writer(server).write(ORIGIN, pieces())
    assert told["refused"] == {"bo@example.org": "550 no such user"}
    assert server.mails[0].recipients == ["ana@example.org"]


def test_what_a_server_says_is_the_error(server: MailServer) -> None:
    server.refuses = {"ana@example.org", "bo@example.org"}
    with pytest.raises(NotDelivered, match=r"takes it for nobody: ana@example\.org: 550 no such user"):
        writer(server).write(ORIGIN, pieces())
    server.refuses = set()
    server.answers = ["452 disk full"]
    with pytest.raises(NotDelivered, match=rf"127\.0\.0\.1:{server.port} answers 452 disk full"):
        writer(server).write(ORIGIN, pieces())


def test_no_server_is_an_error_with_its_address(server: MailServer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(NotDelivered, match=rf"127\.0\.0\.1:{port}"):
            writer(server, MR_EMAIL_SMTP_PORT=str(port)).write(ORIGIN, pieces())


def test_without_the_protection_that_was_asked_for_nothing_is_sent(server: MailServer) -> None:
    with pytest.raises(NotDelivered, match="STARTTLS"):
        writer(server, MR_EMAIL_SMTP_SECURITY="starttls").write(ORIGIN, pieces())
    assert server.mails == []
