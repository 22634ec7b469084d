"""Notices: who is told, how it looks to them, and that nobody ever waits for it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

import pytest

from mr.errors import ConfigError, NotDelivered
from mr.model.invocation import ErrorReport
from mr.ports.notifier import Notice, Notifier
from mr.services import notices
from mr.services.notices import Notices, Way, of_failure
from mr.settings import Settings
from mr.wiring import Parts
from tests.receivers import Listener, MailServer, listener, mail_server

R = "0123456789" * 4
NOTICE = Notice(
    level="info", text="half way", at=1_000_000_000.25, workflow="w", request=R, invocation=f"{R}.0", handler="h"
)


class Keeping(Notifier):
    """Keeps what it is told; waits for the gate before each."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.told: list[str] = []
        self.gate = threading.Event()
        self.came = threading.Semaphore(0)
        self.error: Exception | None = None

    def notify(self, notice: Notice) -> None:
        self.came.release()
        assert self.gate.wait(60)
        if self.error is not None:
            raise self.error
        self.told.append(notice.text)


@pytest.fixture
def keeping() -> Iterator[Callable[[str], Keeping]]:
    made: list[Keeping] = []

    def make(name: str = "email") -> Keeping:
        made.append(Keeping(name))
        return made[-1]

    yield make
    for one in made:
        one.gate.set()


def notice(text: str, level: str = "info") -> Notice:
    return Notice(level=level, text=text, at=0.0)


def test_each_way_has_its_level_and_its_name(keeping: Callable[[str], Keeping]) -> None:
    mail, http = keeping("email"), keeping("http")
    mail.gate.set()
    http.gate.set()
    both = Notices([Way(mail, "warning"), Way(http, "debug")])
    for text, level, by in [
        ("a", "info", "notify"), ("b", "error", "notify"), ("c", "warning", "email"), ("d", "debug", "http"),
        ("e", "info", "email"),
    ]:  # fmt: skip
        both.tell(notice(text, level), by)
    both.close(60)
    assert (mail.told, http.told) == (["b", "c"], ["a", "b", "d"])


def test_JX_95_without_a_hook_nobody_is_told() -> None:
    Notices().tell(NOTICE)
    Notices().close()


def test_JX_95_nobody_waits_for_a_notifier_that_hangs_and_what_is_too_much_is_counted(
    keeping: Callable[[str], Keeping], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notices, "QUEUE_MAX", 2)
    slow, quick = keeping("email"), keeping("http")
    quick.gate.set()
    way = Way(slow, "info")
    both = Notices([way, Way(quick, "info")])
    both.tell(notice("0"))
    assert slow.came.acquire(timeout=60)
    for number in range(1, 6):
        both.tell(notice(str(number)), "email")
    assert way.dropped == 3
    assert "notifications by email are lost, 1 so far: more come than can be sent" in caplog.text
    assert caplog.text.count("are lost") == 1
    both.tell(notice("quick"), "http")
    slow.gate.set()
    both.close(60)
    assert slow.told == ["0", "1", "2"]
    assert quick.told == ["0", "quick"]


@pytest.mark.parametrize("error", [NotDelivered("no such host"), ValueError("a line break in a header")])
def test_JX_95_a_notifier_that_fails_is_asked_again_next_time(
    keeping: Callable[[str], Keeping], error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    one = keeping("http")
    one.gate.set()
    one.error = error
    way = Way(one, "info")
    way.tell(notice("lost"))
    way.close(60)
    one.error = None
    way.tell(notice("told"))
    way.close(60)
    assert (one.told, way.dropped) == (["told"], 1)
    assert str(error) in caplog.text


def test_the_end_does_not_wait_for_a_notifier_that_hangs(keeping: Callable[[str], Keeping]) -> None:
    one = keeping("email")
    way = Way(one, "info")
    way.tell(NOTICE)
    assert one.came.acquire(timeout=60)
    way.close(0.01)
    assert one.told == []


@pytest.mark.parametrize("kind", ["mapper", "reducer"])
def test_JX_92_a_failure_is_told_in_these_words(kind: str) -> None:
    report = ErrorReport(
        class_="exception", type="KeyError", message="'x'", handler="h", handler_type=kind, invocation=f"{R}.0.1",
        traceback="Traceback …",
    )  # fmt: skip
    made = of_failure("w", R, report, 1.0)
    assert made.text == f"{kind.capitalize()} invocation [{R}.0.1] under request [{R}] failed. HANDLER=[h]"
    assert (made.level, made.name, made.message, made.traceback) == ("error", "mr.w.h", "KeyError: 'x'", "Traceback …")


def test_JX_85_a_result_that_cannot_be_written_is_told_without_a_handler() -> None:
    made = of_failure("w", R, ErrorReport(class_="result_writer", type="OSError", message="disk full"), 1.0)
    assert (made.text, made.message, made.name) == (f"Request [{R}] failed.", "OSError: disk full", "mr.w")


# As they are sent, by the parts of a process


@pytest.fixture(scope="module")
def mails() -> Iterator[MailServer]:
    with mail_server() as server:
        yield server


@pytest.fixture(scope="module")
def posts() -> Iterator[Listener]:
    with listener() as server:
        yield server


def parts(**environ: str) -> Parts:
    return Parts(Settings.from_env({"HOME": "/tmp", **environ}))


FAILURE = of_failure(
    "w", R,
    ErrorReport(class_="exception", type="KeyError", message="'x'", handler="h", handler_type="mapper",
                invocation=f"{R}.0", traceback='Traceback (most recent call last):\n  File "handler(h)", line 1\n'),
    1_000_000_000.25,
)  # fmt: skip


def test_JX_93_by_http_a_notice_is_a_form_of_log_record_fields_with_the_traceback(posts: Listener) -> None:
    posts.posted.clear()
    one = parts(
        MR_LOG_HTTP_HOOK="1", MR_LOG_HTTP_HOSTNAME="127.0.0.1", MR_LOG_HTTP_PORT=str(posts.port), MR_LOG_HTTP_PATH="/n"
    )
    one.notices.tell(FAILURE)
    one.close()
    (posted,) = posts.wait(1)
    assert posted.path == "/n"
    assert posted.headers["content-type"] == "application/x-www-form-urlencoded"
    form = {name: value for name, (value,) in parse_qs(posted.body.decode(), strict_parsing=True).items()}
    assert form == {
        "name": "mr.w.h",
        "levelname": "ERROR",
        "levelno": "40",
        "msg": f"Mapper invocation [{R}.0] under request [{R}] failed. HANDLER=[h]\n{FAILURE.traceback}",
        "created": "1000000000.250000",
        "workflow": "w",
        "request": R,
        "invocation": f"{R}.0",
        "handler": "h",
    }


def test_JX_93_by_mail_a_notice_has_the_message_and_no_traceback(mails: MailServer) -> None:
    mails.mails.clear()
    one = parts(
        MR_LOG_EMAIL_HOOK="1", MR_LOG_EMAIL_TO="ana@example.org", MR_LOG_EMAIL_HOSTNAME="127.0.0.1",
        MR_LOG_EMAIL_HOST_PORT=str(mails.port),
    )  # fmt: skip
    one.notices.tell(FAILURE)
    one.notices.close(60)
    one.close()
    (mail,) = mails.mails
    assert (mail.sender, mail.recipients) == ("mapreduce@local", ["ana@example.org"])
    assert mail.message["Subject"] == "JobX Notification"
    body = mail.message.get_body()
    assert body is not None
    assert body.get_content().splitlines() == [
        f"Mapper invocation [{R}.0] under request [{R}] failed. HANDLER=[h]", "", "KeyError: 'x'", "",
        "Level: ERROR", "Workflow: w", f"Request: {R}", f"Invocation: {R}.0", "Handler: h",
    ]  # fmt: skip


def test_JX_96_every_way_has_its_least_level(posts: Listener, mails: MailServer) -> None:
    posts.posted.clear()
    mails.mails.clear()
    one = parts(
        MR_LOG_EMAIL_HOOK="1", MR_LOG_EMAIL_TO="ana@example.org", MR_LOG_EMAIL_HOSTNAME="127.0.0.1",
        MR_LOG_EMAIL_HOST_PORT=str(mails.port), MR_HANDLER_EMAIL_LOG_LEVEL="critical",
        MR_LOG_HTTP_HOOK="1", MR_LOG_HTTP_HOSTNAME="127.0.0.1", MR_LOG_HTTP_PORT=str(posts.port),
        MR_HANDLER_HTTP_LOG_LEVEL="warning",
    )  # fmt: skip
    for level in ("debug", "info", "warning", "error", "critical"):
        one.notices.tell(notice(level, level))
    one.notices.close(60)
    one.close()
    assert [parse_qs(posted.body.decode())["msg"] for posted in posts.posted] == [["warning"], ["error"], ["critical"]]
    assert len(mails.mails) == 1


# By apprise, which imports what Python will drop one day

OLD = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@OLD
def test_a_chat_is_told_in_short(posts: Listener) -> None:
    pytest.importorskip("apprise")
    posts.posted.clear()
    posts.answers = [(200, b"")]
    one = parts(MR_NOTIFY_URLS=f"json://127.0.0.1:{posts.port}/chat")
    one.notices.tell(notice("too little", "info"))
    one.notices.tell(FAILURE)
    one.notices.close(60)
    one.close()
    (posted,) = posts.posted
    assert posted.path.startswith("/chat")
    told = json.loads(posted.body)
    assert told["title"] == f"mr: error in w {R[:12]} h"
    assert told["message"].splitlines()[0] == f"Mapper invocation [{R}.0] under request [{R}] failed. HANDLER=[h]"
    assert "KeyError: 'x'" in told["message"]
    assert "Traceback" not in told["message"]


@OLD
def test_a_chat_that_cannot_be_reached_is_counted_and_its_address_not_told(
    posts: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("apprise")
    posts.answers = [(500, b"")]
    one = parts(MR_NOTIFY_URLS=f"json://127.0.0.1:{posts.port}/hush")
    one.notices.tell(FAILURE)
    one.notices.close(60)
    one.close()
    assert "notifications by apprise are lost, 1 so far" in caplog.text
    assert "hush" not in caplog.text


@OLD
def test_an_address_that_apprise_does_not_know_stops_the_start_by_its_place() -> None:
    pytest.importorskip("apprise")
    with pytest.raises(ConfigError) as caught:
        _ = parts(MR_NOTIFY_URLS="json://localhost/a hush://b").notices
    assert caught.value.problems == ("MR_NOTIFY_URLS: expected addresses that apprise knows; not so number 2",)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError, match=r"MR_NOTIFY_URLS: expected the extra notify: pip install"):
        _ = parts(MR_NOTIFY_URLS="json://localhost/a").notices
