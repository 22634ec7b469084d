"""What a deployment decides, as frozen values in groups: read once from the environment, then handed in.

`Settings.from_env` takes a mapping, so importing reads nothing, and a test passes a dict. How text becomes values
stands in `environment.py`; here are the values, their defaults with the reasons, and the rules across fields.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from mr.addresses import Bind, BrokerUrl, Endpoint, FileSystemUrl, HttpUrl, Password, StoreUrl, may_reach, webhook_key
from mr.environment import VARIABLES, Reading
from mr.errors import ConfigError
from mr.model.event import KINDS
from mr.model.template import Template

Level = Literal["debug", "info", "warning", "error", "critical"]

MEGABYTE = 1024 * 1024
"""What `_mb` means here, in bytes."""

DAY_S = 86400.0
NOTICE_SENDER = "mapreduce@local"


class Machine(msgspec.Struct, frozen=True):
    """What the defaults that follow the machine are made of."""

    cores: int
    memory_mb: float

    @classmethod
    def here(cls) -> Machine:
        """This machine: the cores this process may use, and the memory that it or its container has."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        try:
            memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
        except (OSError, ValueError):
            pass  # no container, or one without a limit ("max")
        return cls(len(os.sched_getaffinity(0)), memory / MEGABYTE)


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the truth is kept. `request_max_mb` bounds one request, so that none can fill the store for all."""

    url: StoreUrl
    request_max_mb: float = 256.0

    @property
    def request_max_bytes(self) -> int:
        """`request_max_mb` in bytes."""
        return int(self.request_max_mb * MEGABYTE)


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where messages go. nsqd gives at most 2,500 at a time to one connection, so more would be no use."""

    url: BrokerUrl
    channel: str = "general_worker"
    max_in_flight: int = 2500


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker takes on, and how it lets go.

    `workflows` None: all, new ones included. `capabilities` are names, or amounts as `gpu=2`; `auto` stands for what
    the machine shows. `batch_size` None: sizes follow the measured rate. `drain_s` is
    short because handed-back work runs elsewhere at once. `definitions_check_s` is only the fallback of a watch.
    """

    workflows: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] = ("general",)
    consume: bool = True
    executors: int
    batch_size: int | None = None
    drain_s: float = 10.0
    definitions_check_s: float = 10.0


class HandlerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one invocation, where neither handler nor step says otherwise.

    `timeout_s` is wall clock, None: no limit; an hour, because a hung handler holds an executor for as long.
    `scope_factory` is the path of the class that gives handlers names of the site's own.
    `memory_mb` is the address space of an executor. Output beyond `output_max_mb` is cut; pairs beyond
    `dataset_max_mb` fail the invocation. `languages` is a file that describes more languages than mr brings.
    """

    timeout_s: float | None = 3600.0
    memory_mb: float
    output_max_mb: float = 1.0
    dataset_max_mb: float = 1024.0
    scope_factory: str = ""
    debug: bool = False
    log_level: Level = "debug"
    languages: str = ""

    @property
    def memory_bytes(self) -> int:
        """`memory_mb` in bytes."""
        return int(self.memory_mb * MEGABYTE)

    @property
    def output_max_bytes(self) -> int:
        """`output_max_mb` in bytes."""
        return int(self.output_max_mb * MEGABYTE)

    @property
    def dataset_max_bytes(self) -> int:
        """`dataset_max_mb` in bytes."""
        return int(self.dataset_max_mb * MEGABYTE)


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The front end. On the loopback by default, because who may push handlers owns the executors."""

    bind: Bind = Bind(Endpoint("127.0.0.1", 8080))
    body_max_mb: float = 1.0
    wait_max_s: float = 3600.0
    remote_addr_header: str = "HTTP_X_FORWARDED_FOR"
    auth: Literal["off", "token"] = "off"

    @property
    def body_max_bytes(self) -> int:
        """`body_max_mb` in bytes."""
        return int(self.body_max_mb * MEGABYTE)


class ResultSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How results leave: `inline`, `file`, `email`, `http`, or the path of a class; `jobs` has those of single jobs.

    The destinations are the operator's: no definition can choose one. `timeout_s` ends one attempt to write, None:
    never; ten minutes, because a big result to a slow disk takes that long, and a hung server may not hold its
    request for ever.
    file: `folder` gets a file for each request, or with `as_folders` a folder. email: the result goes to `recipients`
    as an attachment of at most `mail_max_mb`, which is what mail servers usually take. http: it is posted to `url`,
    as one list or as lines.
    """

    writer: str = "inline"
    jobs: dict[str, str] = {}
    timeout_s: float | None = 600.0
    folder: str = "/tmp/mr_results"
    as_folders: bool = False
    recipients: tuple[str, ...] = ()
    subject: Template = Template("Request has completed under job [%(job_name)s] (workflow [%(workflow_name)s])")
    text: Template = Template(
        "Request ID: %(request_id)s\nJob: %(job_name)s\nWorkflow: %(workflow_name)s\n\n"
        "The result is attached as result.json."
    )
    mail_max_mb: float = 10.0
    url: HttpUrl | None = None
    format: Literal["json", "ndjson"] = "json"

    @property
    def mail_max_bytes(self) -> int:
        """`mail_max_mb` in bytes."""
        return int(self.mail_max_mb * MEGABYTE)

    @property
    def used(self) -> frozenset[str]:
        """All writers that some job may have."""
        return frozenset({self.writer, *self.jobs.values()})


class MailSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A mail server, and who sends. `security` none: in clear, as to a relay on the same machine.

    `key` and `certificate` are files by which this side says who it is, where the server asks for that.
    """

    host: str = "localhost"
    port: int = 25
    security: Literal["none", "starttls", "tls"] = "none"
    username: str = ""
    password: Password | None = None
    sender: str = ""
    key: str = ""
    certificate: str = ""

    def problems(self) -> list[str]:
        """What does not fit together; a line for each begins with the end of its variable's name."""
        found = []
        if self.username and self.password is None:
            found.append("PASSWORD: expected one beside the user name, got: nothing")
        if (self.username or self.certificate) and self.security == "none":
            found.append(
                "SECURITY: expected starttls or tls beside a user name or a certificate, because neither is sent in "
                "clear, got: none"
            )
        if self.key and not self.certificate:
            found.append("SECURE_CERTIFICATE_FILEPATH: expected the certificate of the key, got: nothing")
        return found


class NoticeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told what handlers say, and that one has failed: by mail, by HTTP, by `services`, from a level on.

    All are off; a mail for every failure is something to be asked for. `services` are addresses of chats and pagers as
    apprise writes them, with tokens in them.
    """

    email: bool = False
    recipients: tuple[str, ...] = ()
    subject: str = "JobX Notification"
    email_level: Level = "info"
    http: bool = False
    host: str = "localhost"
    port: int = 3333
    path: str = "/"
    verb: Literal["post", "put", "get"] = "post"
    http_level: Level = "info"
    services: tuple[Password, ...] = ()
    services_level: Level = "warning"


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where events go: to these URLs alone, in public networks, or where `private` has the host or its network.

    Each is signed with every one of `signing`; the first is the one to keep while they are changed.
    """

    urls: tuple[HttpUrl, ...] = ()
    signing: tuple[Password, ...] = ()
    kinds: tuple[str, ...] = KINDS
    mode: Literal["structured", "binary"] = "structured"
    private: tuple[str, ...] = ()

    @property
    def keys(self) -> list[bytes]:
        """The secrets as bytes."""
        return [webhook_key(secret) for secret in self.signing]

    def problems(self) -> list[str]:
        """What does not fit together, a line for each."""
        found = []
        if self.urls and not self.signing:
            found.append("MR_WEBHOOK_SECRETS: expected a secret beside MR_WEBHOOK_URLS, got: nothing")
        for url in self.urls:
            host = url.endpoint.host
            with suppress(ValueError):  # a name, which is looked at when it is resolved
                if not may_reach(host, host, self.private):
                    found.append(
                        f"MR_WEBHOOK_URLS: expected public addresses, or {host} in MR_WEBHOOK_PRIVATE_HOSTS, got: {url}"
                    )
        return found


class CleaningSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When finished requests go. `enabled` False: never. A `quiet_period_s` is used for all of them."""

    enabled: bool = True
    quiet_period_s: float | None = None
    answered_keep_s: float = 5.0
    result_keep_s: float = DAY_S
    failed_keep_s: float = DAY_S

    @property
    def answered_s(self) -> float:
        """How long a request stays whose result was answered, or written elsewhere."""
        return self.answered_keep_s if self.quiet_period_s is None else self.quiet_period_s

    @property
    def unread_s(self) -> float:
        """How long an inline result stays that nobody has read yet."""
        return self.result_keep_s if self.quiet_period_s is None else self.quiet_period_s

    @property
    def failed_s(self) -> float:
        """How long a failed or cancelled request stays."""
        return self.failed_keep_s if self.quiet_period_s is None else self.quiet_period_s


class FileSettings(msgspec.Struct, frozen=True, kw_only=True):
    """File systems: the one that handlers share, and the one for data too big for the store."""

    shared: FileSystemUrl | None = None
    blobs: FileSystemUrl | None = None


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The service's own log; what handlers print belongs to their invocations."""

    debug: bool = False
    stream: bool = True
    path: str = ""


class Shown(msgspec.Struct, frozen=True):
    """A row of `mr config show`: the variable, its value without secrets, where that is from, what it means."""

    name: str
    value: str
    origin: str
    meaning: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a process. `notices` are lines to print at start-up; `origins` says who set what."""

    store: StoreSettings
    broker: BrokerSettings
    worker: WorkerSettings
    handlers: HandlerSettings
    http: HttpSettings = HttpSettings()
    results: ResultSettings = ResultSettings()
    mail: MailSettings = MailSettings()
    notice: NoticeSettings = NoticeSettings()
    webhooks: WebhookSettings = WebhookSettings()
    notice_mail: MailSettings = MailSettings(sender=NOTICE_SENDER)
    cleaning: CleaningSettings = CleaningSettings()
    files: FileSettings = FileSettings()
    log: LogSettings = LogSettings()
    development: bool = False
    notices: tuple[str, ...] = ()
    origins: Mapping[str, str] = {}

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str],
        *,
        flags: Mapping[str, str] | None = None,
        development: bool = False,
        machine: Machine | None = None,
    ) -> Settings:
        """Read the settings.

        `flags` are what the command line gave, under the names of the variables they stand for. `development`
        is `mr dev`: everything is kept for a day, and only the loopback is served.
        Raises: ConfigError with one line for each problem: variable, expectation, value.
        """
        reading = Reading(environ, flags or {})
        machine = machine or Machine.here()
        fields = reading.table()
        store, broker = reading.backends()
        executors = fields["worker"].setdefault("executors", machine.cores)
        fields["handlers"].setdefault("memory_mb", max(64.0, float(int(0.8 * machine.memory_mb / executors))))
        if development:
            fields["cleaning"].setdefault("answered_keep_s", DAY_S)
        settings = cls(
            store=StoreSettings(url=store, **fields["store"]),
            broker=BrokerSettings(url=broker, **fields["broker"]),
            worker=WorkerSettings(**fields["worker"]),
            handlers=HandlerSettings(**fields["handlers"]),
            http=HttpSettings(**fields["http"]),
            results=ResultSettings(**fields["results"] | reading.result_writer()),
            mail=MailSettings(**fields["mail"]),
            notice=NoticeSettings(**fields["notice"]),
            notice_mail=MailSettings(**{"sender": NOTICE_SENDER} | fields["notice_mail"]),
            webhooks=WebhookSettings(**fields["webhooks"]),
            cleaning=CleaningSettings(**fields["cleaning"]),
            files=FileSettings(**reading.file_system() | fields["files"]),
            log=LogSettings(**fields["log"]),
            development=development,
            origins=reading.origins,
        )
        problems = reading.problems + [
            # A default stands in for a value that could not be read: what follows from it is not the user's.
            problem
            for problem in settings.problems()
            if not any(line.startswith(problem.partition(":")[0] + ":") for line in reading.problems)
        ]
        if problems:
            raise ConfigError(problems)
        return msgspec.structs.replace(settings, notices=(*reading.notices(), *settings.remarks()))

    def problems(self) -> list[str]:
        """Rules across fields that are broken, a line for each."""
        found = []
        if self.development and not self.http.bind.is_local:
            found.append(
                f"MR_WEB_BIND: expected an address of this machine's loopback for mr dev, got: {self.http.bind}"
            )
        if self.http.auth == "token":
            # Accepting it would promise a protection that does not exist.
            found.append("MR_AUTH: expected off, because tokens do not exist yet, got: token")
        if self.files.blobs is not None and self.files.blobs.scheme == "memory":
            expected = "expected a place that front end and workers share; each process has a memory of its own"
            found.append(f"MR_BLOB_URL: {expected}, got: {self.files.blobs}")
        found.extend(self._missing())
        if self.broker.url.kind == "nsq" and self.broker.max_in_flight < len(self.broker.url.nodes):
            found.append(
                f"MR_NSQ_MAX_IN_FLIGHT: expected at least one for each nsqd ({len(self.broker.url.nodes)}), "
                f"got: {self.broker.max_in_flight}"
            )
        return found

    def _missing(self) -> list[str]:
        """What the chosen writers cannot do without."""
        results, found = self.results, []
        if "email" in results.used and not results.recipients:
            found.append("MR_RESULT_EMAIL_WRITER_TO_LIST: expected an address, for the writer email, got: nothing")
        if "email" in results.used and not self.mail.sender:
            found.append("MR_EMAIL_SMTP_FROM_EMAIL: expected an address, for the writer email, got: nothing")
        if "http" in results.used and results.url is None:
            found.append("MR_RESULT_HTTP_WRITER_SERVER_URL: expected a URL, for the writer http, got: nothing")
        if self.notice.email and not self.notice.recipients:
            found.append("MR_LOG_EMAIL_TO: expected an address beside MR_LOG_EMAIL_HOOK, got: nothing")
        for prefix, mail in (("MR_EMAIL_SMTP_", self.mail), ("MR_LOG_EMAIL_", self.notice_mail)):
            found.extend(f"{prefix}{problem}" for problem in mail.problems())
        return found + self.webhooks.problems()

    def validate(self) -> None:
        """Check the rules across fields; `from_env` has done so already.

        Raises: ConfigError with one line for each problem.
        """
        if found := self.problems():
            raise ConfigError(found)

    def remarks(self) -> list[str]:
        """What is allowed, and still worth a line at start-up."""
        found: list[str] = []
        if self.cleaning.quiet_period_s is not None:
            beside = [name for name in ("MR_RESULT_KEEP_S", "MR_FAILED_KEEP_S") if name in self.origins]
            found.extend(f"{name}: no effect beside MR_CLEANUP_MANDATORY_QUIET_PERIOD_S" for name in beside)
        for hook, is_on in (("EMAIL", self.notice.email), ("HTTP", self.notice.http)):
            beside = [name for name in self.origins if name.startswith(f"MR_LOG_{hook}_")]
            if not is_on:
                idle = [name for name in beside if name != f"MR_LOG_{hook}_HOOK"]
                found.extend(f"{name}: no effect without MR_LOG_{hook}_HOOK=1" for name in sorted(idle))
        for writer in ("file", "email", "http"):
            if writer not in self.results.used:
                beside = [name for name in self.origins if name.startswith(f"MR_RESULT_{writer.upper()}_WRITER_")]
                found.extend(f"{name}: no effect without MR_RESULT_WRITER={writer}" for name in sorted(beside))
        return found

    def exposure(self) -> list[str]:
        """What is allowed, and worth a line for who listens: others have no part in it."""
        if self.http.bind.is_local or self.http.auth != "off":
            return []
        return [f"MR_WEB_BIND: {self.http.bind} may be reached from other machines, and MR_AUTH is off"]

    def shown(self) -> list[Shown]:
        """Every setting with its value and origin, for `mr config show`."""
        rows = [
            Shown(
                "MR_STORE",
                str(self.store.url),
                self.origins.get("MR_STORE", "default"),
                "sqlite:///file, etcd3://host:port,… or etcd2://…",
            ),
            Shown(
                "MR_BROKER",
                str(self.broker.url),
                self.origins.get("MR_BROKER", "default"),
                "sqlite:///file, or nsq://host:port,…",
            ),
        ]
        for variable in VARIABLES:
            value = getattr(getattr(self, variable.group), variable.field)
            origin = self.origins.get(variable.name, "default")
            text = variable.none if value is None else _text(value)
            rows.append(Shown(variable.name, text, origin, variable.meaning))
        writer_origin = self.origins.get("MR_RESULT_WRITER", "default")
        rows.append(
            Shown(
                "MR_RESULT_WRITER",
                self.results.writer,
                writer_origin,
                "how results leave: inline, file, email, http, or a class",
            )
        )
        return rows


def _text(value: Any) -> str:
    """A value as its variable would spell it."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return ",".join(f"{key}={one}" for key, one in value.items())
    return str(value)
