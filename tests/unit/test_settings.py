"""Settings: defaults, precedence, every problem at once, and what is said about names that do nothing."""

from __future__ import annotations

import re

import pytest

from mr.addresses import BrokerUrl, Endpoint, StoreUrl, Tls
from mr.environment import VARIABLES
from mr.errors import ConfigError
from mr.settings import Machine, Settings

MACHINE = Machine(cores=4, memory_mb=10_000)
HOME = {"HOME": "/home/ana"}


def read(environ: dict[str, str] | None = None, *, development: bool = False, **flags: str) -> Settings:
    return Settings.from_env(HOME | (environ or {}), flags=flags, development=development, machine=MACHINE)


def problems_of(environ: dict[str, str], *, development: bool = False, **flags: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        read(environ, development=development, **flags)
    return caught.value.problems


def test_JX_110_an_empty_environment_has_a_working_default_for_everything() -> None:
    settings = read()
    assert settings.store.url == StoreUrl(kind="sqlite", path="/home/ana/.local/state/mr/mr.db")
    assert settings.broker.url == BrokerUrl(kind="sqlite", path="/home/ana/.local/state/mr/mr.db")
    assert settings.worker.workflows is None
    assert settings.worker.capabilities == ("general",)
    assert (settings.worker.executors, settings.worker.drain_s, settings.worker.batch_size) == (4, 10, None)
    assert settings.handlers.timeout_s == 3600
    assert settings.handlers.memory_mb == 2000
    assert settings.http.bind.endpoint == Endpoint("127.0.0.1", 8080)
    assert settings.http.body_max_bytes == 1024 * 1024
    assert settings.notices == ()


def test_this_machine_has_cores_and_memory() -> None:
    machine = Machine.here()
    assert machine.cores >= 1
    assert machine.memory_mb > 16
    assert Settings.from_env(HOME).worker.executors == machine.cores


def test_memory_is_shared_by_the_executors_and_never_too_small_to_start_one() -> None:
    assert read({"MR_EXECUTORS": "2"}).handlers.memory_mb == 4000
    assert read({"MR_EXECUTORS": "1000"}).handlers.memory_mb == 64
    assert read({"MR_HANDLER_MEMORY_MB": "100"}).handlers.memory_bytes == 100 * 1024 * 1024


def test_the_default_store_lies_in_the_state_folder() -> None:
    assert read({"XDG_STATE_HOME": "/s"}).store.url.path == "/s/mr/mr.db"


def test_a_relative_state_folder_is_ignored() -> None:
    assert read({"XDG_STATE_HOME": "s"}).store.url.path == "/home/ana/.local/state/mr/mr.db"


def test_without_a_home_folder_the_user_database_is_asked() -> None:
    assert Settings.from_env({}, machine=MACHINE).store.url.path.endswith("/.local/state/mr/mr.db")


def test_an_empty_variable_counts_as_unset() -> None:
    settings = read({"MR_STORE": "", "MR_WORKFLOW_NAMES": " ", "MR_EXECUTORS": ""})
    assert settings == read()


def test_a_flag_wins_over_the_variable_and_both_over_the_default() -> None:
    settings = read({"MR_EXECUTORS": "2", "MR_BATCH_SIZE": "7"}, MR_EXECUTORS="3")
    assert (settings.worker.executors, settings.worker.batch_size) == (3, 7)
    origins = {row.name: row.origin for row in settings.shown()}
    assert origins["MR_EXECUTORS"] == "flag"
    assert origins["MR_BATCH_SIZE"] == "environment"
    assert origins["MR_CONSUME"] == "default"


def test_the_broker_follows_the_store() -> None:
    assert read({"MR_STORE": "sqlite:////a/b.db"}).broker.url == BrokerUrl(kind="sqlite", path="/a/b.db")
    cluster = read({"MR_STORE": "etcd3://e:1"})
    assert str(cluster.broker.url) == "nsq://127.0.0.1:4150"


@pytest.mark.parametrize("name", ["MR_ETCD_HOST", "MR_ETCD_PORT", "MR_NSQD_HOSTS"])
def test_any_variable_of_jobx_selects_the_cluster_pair(name: str) -> None:
    settings = read({name: "4001" if name == "MR_ETCD_PORT" else "127.0.0.1"})
    assert settings.store.url.kind == "etcd3"
    assert settings.store.url.endpoints == (Endpoint("127.0.0.1", 4001 if name == "MR_ETCD_PORT" else 2379),)
    assert str(settings.broker.url) == "nsq://127.0.0.1:4150"
    assert settings.origins["MR_STORE"] == settings.origins["MR_BROKER"] == f"environment ({name})"


def test_JX_110_the_three_exports_of_jobx_are_enough() -> None:
    settings = read({"MR_ETCD_HOST": "e", "MR_NSQD_HOSTS": "n,m:5", "MR_WORKFLOW_NAMES": "test_workflow"})
    assert str(settings.store.url) == "etcd3://e:2379"
    assert str(settings.broker.url) == "nsq://n:4150,m:5"
    assert settings.worker.workflows == ("test_workflow",)
    assert settings.notices == ()


def test_the_older_interface_of_etcd_is_asked_for_by_number() -> None:
    assert str(read({"MR_ETCD_HOST": "e", "MR_ETCD_API": "2"}).store.url) == "etcd2://e:2379"


def test_urls_win_over_the_variables_of_jobx() -> None:
    settings = read({"MR_STORE": "sqlite:///a", "MR_BROKER": "nsq://b:1", "MR_ETCD_HOST": "e", "MR_NSQD_HOSTS": "n"})
    assert (str(settings.store.url), str(settings.broker.url)) == ("sqlite:///a", "nsq://b:1")
    assert settings.origins["MR_STORE"] == "environment"


def test_tls_to_etcd_is_asked_for_by_the_url_or_by_jobx_s_name() -> None:
    url = read({"MR_ETCD_HOST": "e", "MR_ETCD_IS_SSL": "1"}).store.url
    assert (url.tls, str(url)) == (Tls(), "etcd3://e:2379?tls=1")
    url = read({"MR_STORE": "etcd3://u:p@e:1,f:2?tls=1&ca=/ca.pem&cert=/me.pem&key=/me.key"}).store.url
    assert url.tls == Tls("/ca.pem", "/me.pem", "/me.key")
    assert url.username == "u"
    assert [endpoint.host for endpoint in url.endpoints] == ["e", "f"]


@pytest.mark.parametrize("options", ["tls=2", "ca=/ca.pem", "tls=1&ca=ca.pem", "tls=1&cert=/me.pem", "ssl=1"])
def test_half_of_what_tls_needs_is_refused(options: str) -> None:
    (problem,) = problems_of({"MR_STORE": f"etcd3://e?{options}"})
    assert problem.startswith("MR_STORE: expected ")


def test_capabilities_are_lower_case_and_may_have_slots() -> None:
    found = read({"MR_SYSTEM_CAPABILITIES": "General, GPU=2"}).worker.capabilities
    assert found == ("general", "gpu=2")


def test_zero_is_no_timeout() -> None:
    assert read({"MR_HANDLER_TIMEOUT_S": "0"}).handlers.timeout_s is None
    assert read({"MR_HANDLER_TIMEOUT_S": "0.5"}).handlers.timeout_s == 0.5


def test_finished_requests_go_by_what_became_of_them() -> None:
    cleaning = read().cleaning
    assert (cleaning.answered_s, cleaning.unread_s, cleaning.failed_s) == (5, 86400, 86400)
    cleaning = read({"MR_RESULT_KEEP_S": "60", "MR_FAILED_KEEP_S": "70"}).cleaning
    assert (cleaning.answered_s, cleaning.unread_s, cleaning.failed_s) == (5, 60, 70)


def test_in_development_everything_is_kept_for_a_day() -> None:
    cleaning = read(development=True).cleaning
    assert (cleaning.answered_s, cleaning.unread_s, cleaning.failed_s) == (86400, 86400, 86400)


@pytest.mark.parametrize("development", [False, True])
def test_the_quiet_period_of_jobx_is_used_for_all(development: bool) -> None:
    environ = {"MR_CLEANUP_MANDATORY_QUIET_PERIOD_S": "0", "MR_RESULT_KEEP_S": "60"}
    settings = read(environ, development=development)
    cleaning = settings.cleaning
    assert (cleaning.answered_s, cleaning.unread_s, cleaning.failed_s) == (0, 0, 0)
    assert settings.notices == ("MR_RESULT_KEEP_S: no effect beside MR_CLEANUP_MANDATORY_QUIET_PERIOD_S",)


@pytest.mark.parametrize(
    ("environ", "writer"),
    [
        ({}, "inline"),
        ({"MR_RESULT_WRITER": "file"}, "file"),
        ({"MR_RESULT_WRITER": "own.module.Writer"}, "own.module.Writer"),
        ({"MR_RESULT_WRITER_FQ_CLASS": "mr.result_writers.file.FileResultWriter"}, "file"),
        ({"MR_RESULT_WRITER_FQ_CLASS": "mr.result_writers.inline.InlineResultWriter"}, "inline"),
        ({"MR_RESULT_WRITER": "file", "MR_RESULT_WRITER_FQ_CLASS": "a.B"}, "file"),
    ],
)
def test_a_result_writer_has_a_name_or_a_class(environ: dict[str, str], writer: str) -> None:
    assert read(environ).results.writer == writer


MAIL = {"MR_RESULT_EMAIL_WRITER_TO_LIST": "ana@example.org, bo@example.org", "MR_EMAIL_SMTP_FROM_EMAIL": "mr@e.org"}


@pytest.mark.parametrize("text", ["email", "mr.result_writers.email.EmailResultWriter"])
def test_JX_82_the_writer_email_needs_recipients_and_a_sender(text: str) -> None:
    assert [line.partition(":")[0] for line in problems_of({"MR_RESULT_WRITER": text})] == [*MAIL]
    settings = read({"MR_RESULT_WRITER": text} | MAIL)
    assert settings.results.recipients == ("ana@example.org", "bo@example.org")
    assert (settings.mail.host, settings.mail.port, settings.mail.sender) == ("localhost", 25, "mr@e.org")
    assert settings.notices == ()


def test_JX_83_the_writer_http_needs_a_url() -> None:
    (line,) = problems_of({"MR_RESULT_WRITER_JOBS": "words/count=http"})
    assert line.startswith("MR_RESULT_HTTP_WRITER_SERVER_URL: expected a URL")
    url = {"MR_RESULT_HTTP_WRITER_SERVER_URL": "http://u:secret@h/in"}
    settings = read({"MR_RESULT_WRITER": "http"} | url)
    assert str(settings.results.url) == "http://u:***@h:80/in"
    assert read(url).notices == ("MR_RESULT_HTTP_WRITER_SERVER_URL: no effect without MR_RESULT_WRITER=http",)


def test_single_jobs_have_writers_of_their_own() -> None:
    results = read({"MR_RESULT_WRITER": "file", "MR_RESULT_WRITER_JOBS": "words/count=inline, a/b=own.Writer"}).results
    assert results.jobs == {"words/count": "inline", "a/b": "own.Writer"}
    assert results.used == {"file", "inline", "own.Writer"}


@pytest.mark.parametrize(
    "text", ["count=file", "words/count", "words/count=printer", "a/b=file,a/b=inline", "a/../b=file"]
)
def test_a_writer_of_a_single_job_is_read_strictly(text: str) -> None:
    (line,) = problems_of({"MR_RESULT_WRITER_JOBS": text})
    assert line.startswith("MR_RESULT_WRITER_JOBS: expected workflow/job=writer")


def test_a_password_for_mail_does_not_go_in_clear_and_is_not_printed() -> None:
    user = {"MR_EMAIL_SMTP_USERNAME": "mr"}
    names = [line.partition(":")[0] for line in problems_of(user)]
    assert names == ["MR_EMAIL_SMTP_PASSWORD", "MR_EMAIL_SMTP_SECURITY"]
    settings = read(user | {"MR_EMAIL_SMTP_PASSWORD": "hush hush", "MR_EMAIL_SMTP_SECURITY": "starttls"})
    assert settings.mail.password is not None
    assert settings.mail.password.value == "hush hush"
    assert "hush" not in repr(settings)
    assert not [row for row in settings.shown() if "hush" in row.value]


@pytest.mark.parametrize("name", ["SUBJECT_TEMPLATE", "TEXT_BODY_TEMPLATE"])
@pytest.mark.parametrize("text", ["%(id)s", "100%", "%s", "%(request_id)9999999999s", "%(request_id)d"])
def test_JX_82_a_template_that_cannot_be_filled_in_stops_the_start(name: str, text: str) -> None:
    (line,) = problems_of({f"MR_RESULT_EMAIL_WRITER_{name}": text})
    assert line.startswith(f"MR_RESULT_EMAIL_WRITER_{name}: expected ")
    assert "%(request_id)s, %(job_name)s and %(workflow_name)s" in line


def test_JX_82_a_subject_is_one_line() -> None:
    (line,) = problems_of({"MR_RESULT_EMAIL_WRITER_SUBJECT_TEMPLATE": "a\r\nBcc: eve@example.org"})
    assert line.startswith("MR_RESULT_EMAIL_WRITER_SUBJECT_TEMPLATE: expected one line")


def test_JX_93_hooks_are_off_until_they_are_asked_for() -> None:
    settings = read()
    assert (settings.notice.email, settings.notice.http) == (False, False)
    assert (settings.notice.host, settings.notice.port, settings.notice.path) == ("localhost", 3333, "/")
    assert (settings.notice.verb, settings.notice.subject) == ("post", "JobX Notification")
    assert (settings.notice_mail.host, settings.notice_mail.sender) == ("localhost", "mapreduce@local")
    assert read({"MR_LOG_HTTP_HOOK": "1", "MR_LOG_HTTP_PORT": "80"}).notices == ()
    assert read({"MR_LOG_HTTP_PORT": "80"}).notices == ("MR_LOG_HTTP_PORT: no effect without MR_LOG_HTTP_HOOK=1",)


def test_JX_93_the_hook_of_mail_needs_an_address() -> None:
    (line,) = problems_of({"MR_LOG_EMAIL_HOOK": "1"})
    assert line.startswith("MR_LOG_EMAIL_TO: expected an address")
    user = {"MR_LOG_EMAIL_HOOK": "1", "MR_LOG_EMAIL_TO": "ana@example.org", "MR_LOG_EMAIL_USERNAME": "mr"}
    names = [line.partition(":")[0] for line in problems_of(user | {"MR_LOG_EMAIL_SECURE_KEY_FILEPATH": "/k"})]
    assert names == [f"MR_LOG_EMAIL_{end}" for end in ("PASSWORD", "SECURITY", "SECURE_CERTIFICATE_FILEPATH")]


SECRETS = {"MR_WEBHOOK_SECRETS": "whsec_" + "c2VjcmV0" * 4}


def test_webhooks_need_a_secret_and_public_addresses() -> None:
    (line,) = problems_of({"MR_WEBHOOK_URLS": "https://example.org/in"})
    assert line.startswith("MR_WEBHOOK_SECRETS: expected a secret")
    for url in (
        "http://127.0.0.1/",
        "http://10.1.2.3:8080/in",
        "http://169.254.169.254/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
    ):
        (line,) = problems_of({"MR_WEBHOOK_URLS": url} | SECRETS)
        assert line.startswith("MR_WEBHOOK_URLS: expected public addresses")
    allowed = {"MR_WEBHOOK_URLS": "http://10.1.2.3/,http://hook.local/", "MR_WEBHOOK_PRIVATE_HOSTS": "10.1.0.0/16"}
    webhooks = read(allowed | SECRETS).webhooks
    assert [str(url) for url in webhooks.urls] == ["http://10.1.2.3:80/", "http://hook.local:80/"]
    assert webhooks.keys == [b"secret" * 4]
    assert webhooks.kinds == ("request.succeeded", "request.failed", "request.cancelled", "invocation.failed")
    assert "c2VjcmV0" not in repr(webhooks)


def test_a_hung_writer_has_an_end() -> None:
    assert read().results.timeout_s == 600
    assert read({"MR_RESULT_WRITER_TIMEOUT_S": "0"}).results.timeout_s is None


def test_the_file_writer_has_a_folder() -> None:
    results = read({"MR_RESULT_WRITER": "file"}).results
    assert (results.folder, results.as_folders) == ("/tmp/mr_results", False)
    given = {"MR_RESULT_FILE_WRITER_OUTPUT_PATH": "/srv/out", "MR_RESULT_FILE_WRITER_WRITE_AS_DIRECTORY": "1"}
    results = read({"MR_RESULT_WRITER": "file"} | given).results
    assert (results.folder, results.as_folders) == ("/srv/out", True)
    assert read({"MR_RESULT_WRITER": "file"} | given).notices == ()
    assert "no effect" in read(given).notices[0]


WRONG = {
    "MR_STORE": "mysql://x",
    "MR_BROKER": "nsq://",
    "MR_REQUEST_STORE_MB": "-1",
    "MR_CHANNEL": "a b",
    "MR_NSQ_MAX_IN_FLIGHT": "0",
    "MR_WORKFLOW_NAMES": "a,,b",
    "MR_SYSTEM_CAPABILITIES": "general,gpu=0",
    "MR_CONSUME": "maybe",
    "MR_EXECUTORS": "1e3",
    "MR_BATCH_SIZE": "1025",
    "MR_WORKER_DRAIN_S": "inf",
    "MR_HANDLER_UPDATE_CHECK_INTERVAL_S": "0",
    "MR_HANDLER_TIMEOUT_S": "-3",
    "MR_HANDLER_MEMORY_MB": "63",
    "MR_HANDLER_OUTPUT_MB": "1 MB",
    "MR_DATASET_MAX_MB": "0",
    "MR_HANDLER_DEBUG": "2",
    "MR_HANDLER_LOG_LEVEL": "loud",
    "MR_WEB_BIND": "8080",
    "MR_BODY_MAX_MB": "nan",
    "MR_WAIT_MAX_S": "٣",
    "MR_REMOTE_ADDR_HEADER": "X-Forwarded-For",
    "MR_AUTH": "none",
    "MR_DO_CLEANUP_REQUESTS": "never",
    "MR_CLEANUP_MANDATORY_QUIET_PERIOD_S": "5s",
    "MR_RESULT_KEEP_S": "a day",
    "MR_FAILED_KEEP_S": "-0",
    "MR_RESULT_FILE_WRITER_OUTPUT_PATH": "results",
    "MR_RESULT_FILE_WRITER_WRITE_AS_DIRECTORY": "both",
    "MR_RESULT_WRITER_JOBS": "count=file",
    "MR_RESULT_WRITER_TIMEOUT_S": "0.01",
    "MR_RESULT_EMAIL_WRITER_TO_LIST": "ana@example.org, <bo@example.org>",
    "MR_RESULT_EMAIL_WRITER_SUBJECT_TEMPLATE": "%(job)s",
    "MR_RESULT_EMAIL_WRITER_TEXT_BODY_TEMPLATE": "50 %",
    "MR_RESULT_EMAIL_WRITER_MAX_MB": "0",
    "MR_RESULT_HTTP_WRITER_SERVER_URL": "ftp://u:secret@h",
    "MR_RESULT_HTTP_WRITER_FORMAT": "xml",
    "MR_EMAIL_SMTP_HOSTNAME": "mail:25",
    "MR_EMAIL_SMTP_PORT": "smtp",
    "MR_EMAIL_SMTP_SECURITY": "ssl",
    "MR_EMAIL_SMTP_USERNAME": "a\nb",
    "MR_EMAIL_SMTP_FROM_EMAIL": "nobody",
    "MR_LOG_EMAIL_HOOK": "on!",
    "MR_LOG_EMAIL_TO": "ana@",
    "MR_LOG_EMAIL_SUBJECT": "a\x00b",
    "MR_HANDLER_EMAIL_LOG_LEVEL": "all",
    "MR_LOG_EMAIL_HOSTNAME": "a b",
    "MR_LOG_EMAIL_HOST_PORT": "65536",
    "MR_LOG_EMAIL_FROM": "ana example",
    "MR_LOG_EMAIL_SECURITY": "yes",
    "MR_LOG_EMAIL_USERNAME": "a\tb",
    "MR_LOG_EMAIL_SECURE_KEY_FILEPATH": "key.pem",
    "MR_LOG_EMAIL_SECURE_CERTIFICATE_FILEPATH": "cert.pem",
    "MR_LOG_HTTP_HOOK": "http",
    "MR_LOG_HTTP_HOSTNAME": "h/x",
    "MR_LOG_HTTP_PORT": "-1",
    "MR_LOG_HTTP_PATH": "x",
    "MR_LOG_HTTP_VERB": "delete",
    "MR_HANDLER_HTTP_LOG_LEVEL": "trace",
    "MR_NOTIFY_URLS": "slack",
    "MR_NOTIFY_LEVEL": "loud",
    "MR_WEBHOOK_URLS": "http://a/,ftp://b/",
    "MR_WEBHOOK_SECRETS": "whsec_c2hvcnQ=",
    "MR_WEBHOOK_EVENTS": "request.succeeded,request.begun",
    "MR_WEBHOOK_MODE": "batch",
    "MR_WEBHOOK_PRIVATE_HOSTS": "10.0.0.0/33",
    "MR_WORKFLOW_SCOPE_FACTORY_FQ_CLASS": "Factory",
    "MR_FS_URL": "/srv",
    "MR_BLOB_URL": "srv",
    "MR_DO_STREAM_LOG": "x",
    "MR_PROCESSORS": "processors.toml",
    "MR_LOG_FILEPATH": "mr.log",
    "MR_RESULT_WRITER": "printer",
    "MR_RESULT_WRITER_FQ_CLASS": "a.b c",
}


SECRET = {variable.name for variable in VARIABLES if variable.secret}
ANY = {"DEBUG", "MR_EMAIL_SMTP_PASSWORD", "MR_LOG_EMAIL_PASSWORD"}
"""What no text is wrong for."""


@pytest.mark.parametrize(("name", "text"), WRONG.items(), ids=WRONG)
def test_a_wrong_value_is_one_line_with_variable_expectation_and_value(name: str, text: str) -> None:
    (line,) = problems_of({name: text})
    shown = r"\(hidden\)" if name in SECRET else re.escape(repr(text))
    assert re.fullmatch(rf"{name}: expected [^\n]+, got: {shown}", line)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MR_ETCD_HOST", "a:x"),
        ("MR_ETCD_PORT", "0"),
        ("MR_NSQD_HOSTS", ","),
        ("MR_ETCD_API", "4"),
        ("MR_FS_FACTORY_FQ_CLASS", "nodots"),
    ],
)
def test_wrong_values_of_jobx_are_named_too(name: str, text: str) -> None:
    (line,) = problems_of({"MR_ETCD_HOST": "e"} | {name: text})
    assert line.startswith(f"{name}: expected ")


def test_JX_109_every_variable_of_the_table_can_be_wrong() -> None:
    assert {variable.name for variable in VARIABLES} - ANY <= set(WRONG)


def test_all_problems_are_reported_at_once() -> None:
    lines = problems_of(WRONG, MR_EXECUTORS="0")
    assert {line.partition(":")[0] for line in lines} == set(WRONG)
    assert len(lines) == len(WRONG)


def test_a_password_in_a_wrong_url_is_not_repeated() -> None:
    (line,) = problems_of({"MR_STORE": "etcd3://mr:secret@a:0"})
    assert "secret" not in line
    assert line.startswith("MR_STORE: expected ")


def test_no_secret_appears_in_what_is_printed() -> None:
    settings = read(
        {"MR_STORE": "etcd3://mr:secret@a:1", "MR_FS_URL": "s3://key:secret@b", "MR_BLOB_URL": "x://secret"}
    )
    assert settings.store.url.password == "secret"
    assert "secret" not in repr(settings)
    assert not [row for row in settings.shown() if "secret" in row.value]


def test_development_serves_the_loopback_only() -> None:
    (line,) = problems_of({}, development=True, MR_WEB_BIND="0.0.0.0:8080")
    assert line.startswith("MR_WEB_BIND: ")
    assert read(development=True, MR_WEB_BIND="127.0.0.1:9").http.bind.endpoint == Endpoint("127.0.0.1", 9)


def test_a_front_end_open_to_others_is_remarked_upon_by_who_listens() -> None:
    settings = read({"MR_WEB_BIND": "0.0.0.0:80"})
    assert settings.exposure() == ["MR_WEB_BIND: 0.0.0.0:80 may be reached from other machines, and MR_AUTH is off"]
    assert settings.notices == ()
    assert read({}).exposure() == []


def test_a_protection_that_does_not_exist_is_not_promised() -> None:
    assert problems_of({"MR_AUTH": "token"}) == ("MR_AUTH: expected off, because tokens do not exist yet, got: token",)


def test_every_nsqd_needs_a_message_in_flight() -> None:
    broker = {"MR_BROKER": "nsq://a,b,c"}
    assert read(broker | {"MR_NSQ_MAX_IN_FLIGHT": "3"}).broker.max_in_flight == 3
    (line,) = problems_of(broker | {"MR_NSQ_MAX_IN_FLIGHT": "2"})
    assert line == "MR_NSQ_MAX_IN_FLIGHT: expected at least one for each nsqd (3), got: 2"


def test_an_unknown_name_is_reported_with_the_nearest_known_one() -> None:
    assert read({"MR_EXECUTER": "3", "MR_ZZZ": "1", "OTHER": "x"}).notices == (
        "MR_EXECUTER: no such setting; did you mean MR_EXECUTORS?",
        "MR_ZZZ: no such setting",
    )


def test_names_of_jobx_without_meaning_are_accepted_and_named_once() -> None:
    environ = {"MR_CACHE_TYPE": "redis", "MR_KV_CACHE": "1", "MR_MULTITHREADED": "1", "MR_FAKE_QUEUE_WRITE": "1"}
    assert read(environ).notices == (
        "MR_CACHE_TYPE, MR_FAKE_QUEUE_WRITE, MR_KV_CACHE, MR_MULTITHREADED: of JobX, without meaning here; ignored",
    )


def test_details_of_tahoe_beside_another_factory_are_said_to_do_nothing() -> None:
    (line,) = read({"MR_FS_TAHOE_DIR_URI": "URI:secret", "MR_FS_FACTORY_FQ_CLASS": "a.B"}).notices
    assert line.startswith("MR_FS_TAHOE_DIR_URI: no effect")


TAHOE = {
    "MR_FS_FACTORY_FQ_CLASS": "mr.fs.backend.tahoe.TahoeFilesystemFactory",
    "MR_FS_TAHOE_DIR_URI": "URI:DIR2:secret:secret",
    "MR_FS_TAHOE_WEBAPI_URL_PREFIX": "http://host:3456/",
}


def test_JX_101_tahoe_is_configured_as_in_jobx() -> None:
    settings = read(TAHOE)
    assert settings.files.shared is not None
    assert settings.files.shared.text == "tahoe+http://host:3456/URI:DIR2:secret:secret"
    assert settings.notices == ()
    (row,) = [row for row in settings.shown() if row.name == "MR_FS_URL"]
    assert (row.value, row.origin) == ("tahoe+http://***", "environment (MR_FS_FACTORY_FQ_CLASS)")


def test_JX_101_another_factory_is_named_by_its_class() -> None:
    settings = read({"MR_FS_FACTORY_FQ_CLASS": "site.files.Factory"})
    assert str(settings.files.shared) == "class://site.files.Factory"


@pytest.mark.parametrize("name", ["MR_FS_TAHOE_DIR_URI", "MR_FS_TAHOE_WEBAPI_URL_PREFIX"])
def test_JX_101_what_tahoe_needs_is_named_when_it_is_missing_or_wrong(name: str) -> None:
    (line,) = problems_of({key: text for key, text in TAHOE.items() if key != name})
    assert line == f"{name}: expected a value beside MR_FS_FACTORY_FQ_CLASS, got: nothing"
    (line,) = problems_of(TAHOE | {name: "secret"})
    assert line.startswith(f"{name}: expected ")
    assert ("(hidden)" in line) == (name == "MR_FS_TAHOE_DIR_URI")


def test_a_url_wins_over_jobx_names_of_file_systems() -> None:
    settings = read(TAHOE | {"MR_FS_URL": "file:///srv"})
    assert str(settings.files.shared) == "file:///srv"
    (notice,) = settings.notices
    assert notice.startswith("MR_FS_FACTORY_FQ_CLASS, MR_FS_TAHOE_DIR_URI, MR_FS_TAHOE_WEBAPI_URL_PREFIX: no effect")


def test_a_blob_store_is_for_several_processes() -> None:
    assert read({"MR_BLOB_URL": "file:///srv"}).notices == ()
    with pytest.raises(ConfigError, match=r"MR_BLOB_URL: expected a place that .* share.* got: memory://any"):
        read({"MR_BLOB_URL": "memory://any"})


def test_details_of_etcd_without_its_host_are_said_to_do_nothing() -> None:
    (line,) = read({"MR_ETCD_API": "2"}).notices
    assert line.startswith("MR_ETCD_API: no effect")


def test_another_programs_debug_is_no_problem_of_ours() -> None:
    assert read({"DEBUG": "express:*"}).notices == ("DEBUG: expected 1 or 0, got: 'express:*'; ignored",)
    assert read({"DEBUG": "1"}).log.debug


def test_names_for_the_scripts_are_none_of_the_settings_business() -> None:
    assert read({"MR_VENV": "/v", "MR_CACHE_DIR": "/c"}).notices == ()


def test_what_is_shown_reads_back_as_the_same_settings() -> None:
    environ = {"MR_STORE": "etcd3://a:1", "MR_SYSTEM_CAPABILITIES": "a,b=2", "MR_HANDLER_TIMEOUT_S": "0"}
    settings = read(environ)
    again = read({row.name: row.value for row in settings.shown()})
    for name in settings.__struct_fields__:
        if name not in ("origins", "notices"):
            assert getattr(again, name) == getattr(settings, name)
