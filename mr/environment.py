"""The environment: which variable fills which field of the settings, and how its text is read.

The table `VARIABLES` has a row for each. The few that several variables decide together (the store, the broker,
the result writer) are read by hand below it. Flags come first, then variables; an empty one counts as unset.
Nothing is refused at once: problems are collected, so that one start shows them all.
"""

from __future__ import annotations

import difflib
import os
import pwd
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mr import addresses
from mr.addresses import BrokerUrl, Endpoint, FileSystemUrl, StoreUrl, Tls
from mr.errors import InvalidName
from mr.model import capability, names, template
from mr.model.event import KINDS


def _flag(text: str) -> bool:
    word = text.lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError("1 or 0")


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch(r"\d{1,9}", text, re.ASCII) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"a whole number from {low} to {high}")

    return parse


def _number(unit: str, low: float, *, zero_is_none: bool = False) -> Callable[[str], float | None]:
    def parse(text: str) -> float | None:
        expectation = f"a number of {unit}, at least {low:g}" + (", or 0 for no limit" if zero_is_none else "")
        if not re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text, re.ASCII):
            raise ValueError(expectation)
        value = float(text)
        if zero_is_none and value == 0:
            return None
        if value < low:
            raise ValueError(expectation)
        return value

    return parse


def _choice(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() in words:
            return text.lower()
        raise ValueError(f"one of {', '.join(words)}")

    return parse


def _names(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(","))
    if not all(map(names.is_name, found)):
        raise ValueError("names with commas between, of ASCII letters, digits, '_', '-' and '.' (not first)")
    return tuple(dict.fromkeys(found))


def _capabilities(text: str) -> tuple[str, ...]:
    try:
        return tuple(capability.written(capability.offer(text.split(","))))
    except InvalidName as error:
        raise ValueError(error.hint) from error


def _matching(pattern: str, expectation: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if re.fullmatch(pattern, text, re.ASCII):
            return text
        raise ValueError(expectation)

    return parse


def _absolute_path(text: str) -> str:
    if not os.path.isabs(text):
        raise ValueError("an absolute path")
    return text


def _class(text: str) -> str:
    if not _CLASS_PATH.fullmatch(text):
        raise ValueError("package.module.Class")
    return text


def _services(text: str) -> tuple[addresses.Password, ...]:
    found = text.split()
    if not all(re.match(r"[a-zA-Z0-9]+://.", one) for one in found):
        raise ValueError("addresses such as slack://TokenA/TokenB/TokenC, with blanks between")
    return tuple(map(addresses.Password, found))


def _kinds(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not set(found) <= set(KINDS):
        raise ValueError(f"some of {', '.join(KINDS)}, with commas between")
    return found


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("one line of printable text")
    return text


def _host(text: str) -> str:
    try:
        if ":" in text:
            raise ValueError
        return addresses.parse_endpoint(text, default_port=25).host
    except ValueError:
        raise ValueError("the name or the IPv4 address of a host") from None


def _template(lines: bool) -> Callable[[str], template.Template]:
    return lambda text: template.parse(text, RESULT_VALUES, lines=lines)


def _writers(text: str) -> dict[str, str]:
    expectation = "workflow/job=writer with commas between, each job once: words/count=file,logs/daily=email"
    found: dict[str, str] = {}
    for part in text.split(","):
        job, equals, writer = (word.strip() for word in part.partition("="))
        workflow, slash, name = job.partition("/")
        if not (equals and slash and names.is_name(workflow) and names.is_name(name)) or job in found:
            raise ValueError(expectation)
        try:
            found[job] = _writer(writer)
        except ValueError as error:
            raise ValueError(f"{expectation}; a writer is {error}") from error
    return found


class Variable(msgspec.Struct, frozen=True):
    """A variable of the environment and the field that it fills; `parse` raises ValueError(expectation).

    `none` is how the variable spells a field that is None.
    """

    name: str
    group: str
    field: str
    parse: Callable[[str], Any]
    meaning: str
    secret: bool = False
    none: str = ""


LEVELS = ("debug", "info", "warning", "error", "critical")
SECURITY = ("none", "starttls", "tls")

VARIABLES = (
    Variable("MR_REQUEST_STORE_MB", "store", "request_max_mb", _number("MB", 0.001), "store space of one request"),
    Variable(
        "MR_CHANNEL",
        "broker",
        "channel",
        _matching(r"[.A-Za-z0-9_-]{1,64}", "1 to 64 ASCII letters, digits, '.', '_' and '-'"),
        "channel of every topic",
    ),
    Variable("MR_NSQ_MAX_IN_FLIGHT", "broker", "max_in_flight", _whole(1, 100_000), "unfinished messages at a time"),
    Variable("MR_WORKFLOW_NAMES", "worker", "workflows", _names, "workflows to serve; empty: all"),
    Variable(
        "MR_SYSTEM_CAPABILITIES", "worker", "capabilities", _capabilities, "what the worker offers; auto: what it finds"
    ),
    Variable("MR_CONSUME", "worker", "consume", _flag, "0: no worker beside the front end"),
    Variable("MR_EXECUTORS", "worker", "executors", _whole(1, 1024), "executor processes of a worker"),
    Variable("MR_BATCH_SIZE", "worker", "batch_size", _whole(1, 1024), "invocations per message; empty: self-sizing"),
    Variable("MR_WORKER_DRAIN_S", "worker", "drain_s", _number("seconds", 0), "time to finish what runs, at the end"),
    Variable(
        "MR_HANDLER_UPDATE_CHECK_INTERVAL_S",
        "worker",
        "definitions_check_s",
        _number("seconds", 0.1),
        "how often to look for new definitions, beside the watch",
    ),
    Variable(
        "MR_HANDLER_TIMEOUT_S",
        "handlers",
        "timeout_s",
        _number("seconds", 0.001, zero_is_none=True),
        "wall clock of one invocation; 0: no limit",
        none="0",
    ),
    Variable("MR_HANDLER_MEMORY_MB", "handlers", "memory_mb", _number("MB", 64), "address space of an executor"),
    Variable("MR_HANDLER_OUTPUT_MB", "handlers", "output_max_mb", _number("MB", 0), "printed output kept"),
    Variable("MR_DATASET_MAX_MB", "handlers", "dataset_max_mb", _number("MB", 0.001), "pairs of one invocation"),
    Variable(
        "MR_WORKFLOW_SCOPE_FACTORY_FQ_CLASS",
        "handlers",
        "scope_factory",
        _class,
        "class that gives handlers more names",
    ),
    Variable("MR_HANDLER_DEBUG", "handlers", "debug", _flag, "1: more of each invocation is logged"),
    Variable(
        "MR_HANDLER_LOG_LEVEL",
        "handlers",
        "log_level",
        _choice(*LEVELS),
        "what handlers log is kept from this level on",
    ),
    Variable("MR_PROCESSORS", "handlers", "languages", _absolute_path, "file that describes further languages"),
    Variable("MR_WEB_BIND", "http", "bind", addresses.parse_bind, "where the front end listens"),
    Variable("MR_BODY_MAX_MB", "http", "body_max_mb", _number("MB", 0.001), "size of a POST"),
    Variable("MR_WAIT_MAX_S", "http", "wait_max_s", _number("seconds", 0), "longest wait of a blocking POST"),
    Variable(
        "MR_REMOTE_ADDR_HEADER",
        "http",
        "remote_addr_header",
        _matching(r"[A-Z][A-Z0-9_]*", "a WSGI key such as HTTP_X_FORWARDED_FOR"),
        "WSGI key with the client's address",
    ),
    Variable("MR_AUTH", "http", "auth", _choice("off", "token"), "who may do what; only off so far"),
    Variable("MR_DO_CLEANUP_REQUESTS", "cleaning", "enabled", _flag, "0: nothing is ever removed"),
    Variable(
        "MR_CLEANUP_MANDATORY_QUIET_PERIOD_S",
        "cleaning",
        "quiet_period_s",
        _number("seconds", 0),
        "if set, every finished request goes that long after its end",
    ),
    Variable("MR_RESULT_KEEP_S", "cleaning", "result_keep_s", _number("seconds", 0), "an inline result not yet read"),
    Variable("MR_FAILED_KEEP_S", "cleaning", "failed_keep_s", _number("seconds", 0), "a failed request"),
    Variable("MR_RESULT_FILE_WRITER_OUTPUT_PATH", "results", "folder", _absolute_path, "where the writer file writes"),
    Variable("MR_RESULT_WRITER_JOBS", "results", "jobs", _writers, "writers of single jobs: words/count=email"),
    Variable(
        "MR_RESULT_WRITER_TIMEOUT_S",
        "results",
        "timeout_s",
        _number("seconds", 0.1, zero_is_none=True),
        "wall clock of one write of a result; 0: no limit",
        none="0",
    ),
    Variable(
        "MR_RESULT_FILE_WRITER_WRITE_AS_DIRECTORY",
        "results",
        "as_folders",
        _flag,
        "1: a folder for each request, a file for each key",
    ),
    Variable(
        "MR_RESULT_EMAIL_WRITER_TO_LIST",
        "results",
        "recipients",
        addresses.parse_mail_addresses,
        "who gets the mails of the writer email",
    ),
    Variable(
        "MR_RESULT_EMAIL_WRITER_SUBJECT_TEMPLATE", "results", "subject", _template(lines=False), "subject of its mails"
    ),
    Variable("MR_RESULT_EMAIL_WRITER_TEXT_BODY_TEMPLATE", "results", "text", _template(lines=True), "their text"),
    Variable("MR_RESULT_EMAIL_WRITER_MAX_MB", "results", "mail_max_mb", _number("MB", 0.001), "the biggest attachment"),
    Variable(
        "MR_RESULT_HTTP_WRITER_SERVER_URL",
        "results",
        "url",
        addresses.parse_http,
        "where the writer http posts",
        secret=True,
    ),
    Variable(
        "MR_RESULT_HTTP_WRITER_FORMAT",
        "results",
        "format",
        _choice("json", "ndjson"),
        "json: one list of pairs; ndjson: a line for each pair",
    ),
    Variable("MR_EMAIL_SMTP_HOSTNAME", "mail", "host", _host, "mail server"),
    Variable("MR_EMAIL_SMTP_PORT", "mail", "port", _whole(1, 65535), "its port"),
    Variable(
        "MR_EMAIL_SMTP_SECURITY",
        "mail",
        "security",
        _choice(*SECURITY),
        "how the connection to it is protected",
    ),
    Variable("MR_EMAIL_SMTP_USERNAME", "mail", "username", _line, "user to log in there as; empty: nobody"),
    Variable("MR_EMAIL_SMTP_PASSWORD", "mail", "password", addresses.Password, "password of that user", secret=True),
    Variable("MR_EMAIL_SMTP_FROM_EMAIL", "mail", "sender", addresses.parse_mail_address, "sender of results"),
    Variable("MR_LOG_EMAIL_HOOK", "notice", "email", _flag, "1: notifications go out by mail"),
    Variable("MR_LOG_EMAIL_TO", "notice", "recipients", addresses.parse_mail_addresses, "who gets those mails"),
    Variable("MR_LOG_EMAIL_SUBJECT", "notice", "subject", _line, "their subject"),
    Variable("MR_HANDLER_EMAIL_LOG_LEVEL", "notice", "email_level", _choice(*LEVELS), "the least level told by mail"),
    Variable("MR_LOG_EMAIL_HOSTNAME", "notice_mail", "host", _host, "mail server for notifications"),
    Variable("MR_LOG_EMAIL_HOST_PORT", "notice_mail", "port", _whole(1, 65535), "its port"),
    Variable("MR_LOG_EMAIL_FROM", "notice_mail", "sender", addresses.parse_mail_address, "sender of notifications"),
    Variable(
        "MR_LOG_EMAIL_SECURITY", "notice_mail", "security", _choice(*SECURITY), "how that connection is protected"
    ),
    Variable("MR_LOG_EMAIL_USERNAME", "notice_mail", "username", _line, "user to log in there as; empty: nobody"),
    Variable(
        "MR_LOG_EMAIL_PASSWORD", "notice_mail", "password", addresses.Password, "password of that user", secret=True
    ),
    Variable("MR_LOG_EMAIL_SECURE_KEY_FILEPATH", "notice_mail", "key", _absolute_path, "key of a client certificate"),
    Variable(
        "MR_LOG_EMAIL_SECURE_CERTIFICATE_FILEPATH",
        "notice_mail",
        "certificate",
        _absolute_path,
        "client certificate for that server",
    ),
    Variable("MR_LOG_HTTP_HOOK", "notice", "http", _flag, "1: notifications go out by HTTP"),
    Variable("MR_LOG_HTTP_HOSTNAME", "notice", "host", _host, "who listens for them"),
    Variable("MR_LOG_HTTP_PORT", "notice", "port", _whole(1, 65535), "its port"),
    Variable(
        "MR_LOG_HTTP_PATH",
        "notice",
        "path",
        _matching(r"/[!-~]*", "a path that begins with '/', without spaces"),
        "path that they are sent to",
    ),
    Variable("MR_LOG_HTTP_VERB", "notice", "verb", _choice("post", "put", "get"), "how they are sent"),
    Variable("MR_HANDLER_HTTP_LOG_LEVEL", "notice", "http_level", _choice(*LEVELS), "the least level told by HTTP"),
    Variable("MR_NOTIFY_URLS", "notice", "services", _services, "chats and pagers to tell, by apprise", secret=True),
    Variable("MR_NOTIFY_LEVEL", "notice", "services_level", _choice(*LEVELS), "the least level told to them"),
    Variable(
        "MR_WEBHOOK_URLS", "webhooks", "urls", addresses.parse_webhooks, "who is sent events of requests", secret=True
    ),
    Variable(
        "MR_WEBHOOK_SECRETS",
        "webhooks",
        "signing",
        addresses.parse_webhook_secrets,
        "what events are signed with",
        secret=True,
    ),
    Variable("MR_WEBHOOK_EVENTS", "webhooks", "kinds", _kinds, "which events are sent"),
    Variable(
        "MR_WEBHOOK_MODE",
        "webhooks",
        "mode",
        _choice("structured", "binary"),
        "how CloudEvents are sent: structured, or binary (attributes in headers)",
    ),
    Variable(
        "MR_WEBHOOK_PRIVATE_HOSTS",
        "webhooks",
        "private",
        addresses.parse_private,
        "hosts and networks that events may go to although they are not public",
    ),
    Variable("MR_FS_URL", "files", "shared", addresses.parse_file_system, "shared file system", secret=True),
    Variable(
        "MR_BLOB_URL",
        "files",
        "blobs",
        addresses.parse_file_system,
        "data too big for the store; not used yet",
        secret=True,
    ),
    Variable("DEBUG", "log", "debug", _flag, "1: the service logs in detail"),
    Variable("MR_DO_STREAM_LOG", "log", "stream", _flag, "log to the terminal"),
    Variable("MR_LOG_FILEPATH", "log", "path", _absolute_path, "log to this file"),
)

RESULT_VALUES = ("request_id", "job_name", "workflow_name")
"""What the templates of the writer email may name."""

JOINED = ("MR_STORE", "MR_BROKER", "MR_RESULT_WRITER", "MR_RESULT_WRITER_FQ_CLASS")
FILES = ("MR_FS_FACTORY_FQ_CLASS", "MR_FS_TAHOE_DIR_URI", "MR_FS_TAHOE_WEBAPI_URL_PREFIX")
CLUSTER = ("MR_ETCD_HOST", "MR_ETCD_PORT", "MR_NSQD_HOSTS")
CLUSTER_DETAILS = ("MR_ETCD_API", "MR_ETCD_IS_SSL")
IGNORED = re.compile(r"MR_(MULTITHREADED|USE_FAKE_QUEUE|FAKE_QUEUE_\w+|CACHE_(TYPE|REDIS_\w+)|KV_CACHE)")
"""JobX's variables for parts that mr does not have."""
ELSEWHERE = ("MR_CACHE_DIR", "MR_NO_COLOR", "MR_VENV")
"""Read by scripts and the terminal, not by the settings."""

_JOBX_WRITERS = {
    f"mr.result_writers.{kind}.{kind.capitalize()}ResultWriter": kind for kind in ("inline", "file", "email", "http")
}
_JOBX_TAHOE = "mr.fs.backend.tahoe.TahoeFilesystemFactory"
_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


class Reading:
    """One pass over environment and flags; collects values, problems and origins."""

    def __init__(self, environ: Mapping[str, str], flags: Mapping[str, str]) -> None:
        self.environ = environ
        self.flags = flags
        self.problems: list[str] = []
        self.origins: dict[str, str] = {}
        self.ignored: list[str] = []

    def get(self, name: str) -> str | None:
        """The text of a variable, with who gave it noted; None where unset or empty."""
        for source, mapping in (("flag", self.flags), ("environment", self.environ)):
            if text := mapping.get(name, "").strip():
                self.origins[name] = source
                return text
        return None

    def value(self, name: str, parse: Callable[[str], Any], *, secret: bool = False) -> Any:
        """The parsed value of a variable; None where unset, or wrong (then there is a problem)."""
        text = self.get(name)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            if name == "DEBUG":  # other programs use the name too, with words of their own
                self.ignored.append(f"DEBUG: expected {error}, got: {text!r}; ignored")
                del self.origins[name]
            else:
                self.problems.append(f"{name}: expected {error}, got: {'(hidden)' if secret else repr(text[:200])}")
            return None

    def table(self) -> dict[str, dict[str, Any]]:
        """Fields by group, as far as variables set them."""
        fields: dict[str, dict[str, Any]] = {variable.group: {} for variable in VARIABLES}
        for variable in VARIABLES:
            before = len(self.problems)
            value = self.value(variable.name, variable.parse, secret=variable.secret)
            if variable.name in self.origins and len(self.problems) == before:
                fields[variable.group][variable.field] = value
        return fields

    def backends(self) -> tuple[StoreUrl, BrokerUrl]:
        """Store and broker: named by URL, or by any of JobX's variables, or embedded."""
        cluster = [name for name in CLUSTER if self.get(name) is not None]
        store = self.value("MR_STORE", addresses.parse_store, secret="@" in (self.get("MR_STORE") or ""))
        broker = self.value("MR_BROKER", addresses.parse_broker)
        by_cluster = f"{self.origins[cluster[0]]} ({', '.join(cluster)})" if cluster else ""
        if store is None:
            store = self._etcd() if cluster else self._embedded()
            if cluster and store is not None and "MR_STORE" not in self.origins:
                self.origins["MR_STORE"] = by_cluster
        if broker is None:
            if cluster or (store is not None and store.kind != "sqlite"):
                broker = self.value("MR_NSQD_HOSTS", addresses.nsq) or addresses.nsq("127.0.0.1")
                if cluster and "MR_BROKER" not in self.origins:
                    self.origins["MR_BROKER"] = by_cluster
            elif store is not None:
                broker = BrokerUrl(kind="sqlite", path=store.path)
        # Only reached with None after a problem was noted: the caller raises before anybody sees the stand-in.
        return store or StoreUrl(kind="sqlite", path="mr.db"), broker or BrokerUrl(kind="sqlite", path="mr.db")

    def _etcd(self) -> StoreUrl:
        port = self.value("MR_ETCD_PORT", _whole(1, 65535)) or addresses.ETCD_PORT
        endpoints = self.value("MR_ETCD_HOST", lambda text: addresses.parse_endpoints(text, default_port=port))
        api = self.value("MR_ETCD_API", _choice("2", "3")) or "3"
        return StoreUrl(
            kind="etcd2" if api == "2" else "etcd3",
            endpoints=endpoints or (Endpoint("127.0.0.1", port),),
            tls=Tls() if self.value("MR_ETCD_IS_SSL", _flag) else None,
        )

    def _embedded(self) -> StoreUrl | None:
        """`mr/mr.db` in the state folder of the user; a relative XDG_STATE_HOME is ignored, as its standard says."""
        state = self.environ.get("XDG_STATE_HOME", "")
        if not os.path.isabs(state):
            home = self.environ.get("HOME", "") or _home_of_user()
            if not os.path.isabs(home):
                self.problems.append("MR_STORE: expected a URL, because there is no home directory, got: nothing")
                return None
            state = os.path.join(home, ".local", "state")
        return StoreUrl(kind="sqlite", path=os.path.join(state, "mr", "mr.db"))

    def result_writer(self) -> dict[str, str]:
        """The writer by its name or class; JobX's class paths are mapped to names."""
        for name in ("MR_RESULT_WRITER", "MR_RESULT_WRITER_FQ_CLASS"):
            if (writer := self.value(name, _writer)) is not None:
                self.origins["MR_RESULT_WRITER"] = self.origins[name]
                return {"writer": writer}
        return {}

    def file_system(self) -> dict[str, FileSystemUrl]:
        """The shared file system as JobX names it: by a factory, which for Tahoe is just an address."""
        if "MR_FS_URL" in self.origins or (factory := self.value(FILES[0], _class)) is None:
            return {}
        self.origins["MR_FS_URL"] = f"{self.origins[FILES[0]]} ({FILES[0]})"
        if factory != _JOBX_TAHOE:
            return {"shared": FileSystemUrl(f"class://{factory}")}
        before = len(self.problems)
        uri = self.value(FILES[1], _matching(r"URI:DIR2(-MDMF)?:\S+", "URI:DIR2:…"), secret=True)
        webapi = self.value(FILES[2], _matching(r"https?://[^/?#\s]+/?", "http://host:port"))
        missing = [name for name in FILES[1:] if name not in self.origins]
        self.problems += [f"{name}: expected a value beside {FILES[0]}, got: nothing" for name in missing]
        if len(self.problems) > before:
            return {}
        return {"shared": FileSystemUrl(f"tahoe+{webapi.rstrip('/')}/{uri}")}

    def notices(self) -> list[str]:
        """Variables that are set and do nothing, in one line for each reason, and unknown ones."""
        found = list(self.ignored)
        mine = sorted(name for name in {*self.environ, *self.flags} if name.startswith("MR_"))
        known = {variable.name for variable in VARIABLES} | {*JOINED, *FILES, *CLUSTER, *CLUSTER_DETAILS, *ELSEWHERE}
        if ignored := [name for name in mine if IGNORED.fullmatch(name)]:
            found.append(f"{', '.join(ignored)}: of JobX, without meaning here; ignored")
        if idle := [name for name in CLUSTER_DETAILS if self.environ.get(name) and name not in self.origins]:
            found.append(f"{', '.join(idle)}: no effect without MR_ETCD_HOST, or beside MR_STORE")
        if idle := [name for name in FILES if self.environ.get(name) and name not in self.origins]:
            found.append(f"{', '.join(idle)}: no effect beside MR_FS_URL, or without {FILES[0]}={_JOBX_TAHOE}")
        for name in mine:
            if name not in known and not IGNORED.fullmatch(name):
                near = difflib.get_close_matches(name, sorted(known), n=1)
                found.append(f"{name}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
        return found


def _writer(text: str) -> str:
    if text in _JOBX_WRITERS.values():
        return text
    if _CLASS_PATH.fullmatch(text):
        return _JOBX_WRITERS.get(text, text)
    raise ValueError("inline, file, email, http or package.module.Class")


def _home_of_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a container may run under a number that has no entry
        return ""
