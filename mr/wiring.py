"""The composition root: from settings to objects. Who gets what is decided here and nowhere else.

Adapters are imported when they are asked for, so that a command pays only for what it uses.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from mr.addresses import Endpoint, HttpUrl
from mr.clock import SystemClock
from mr.errors import ConfigError
from mr.ports.blob_store import BlobStore
from mr.ports.broker import Consumer, Publisher
from mr.ports.file_system import FileSystem
from mr.ports.result_writer import ResultWriter
from mr.ports.store import Store
from mr.services.blobs import Blobs
from mr.services.cleaner import Cleaner
from mr.services.datasets import Datasets
from mr.services.events import Events, destination
from mr.services.notices import Notices, Way
from mr.services.patience import PatientWriter
from mr.services.pins import Pins
from mr.services.postman import Postman
from mr.services.receipts import Receipts
from mr.services.registry import Registry
from mr.services.results import Results
from mr.services.retention import Retention
from mr.services.secrets import message_key
from mr.services.submission import Submission
from mr.services.sync import Sync
from mr.services.tracing import Tracing
from mr.services.writing import Writers
from mr.settings import Settings

if TYPE_CHECKING:
    from mr.adapters.sqlite_file import SqliteFile
    from mr.model.language import Language
    from mr.services.collections import Collections
    from mr.services.dump import Dump
    from mr.services.excerpts import Excerpts
    from mr.services.fleet import Fleet
    from mr.services.pictures import Pictures
    from mr.services.prints import Prints
    from mr.services.sessions import Sessions
    from mr.services.timeline import Timelines
    from mr.services.waits import Waits


class Parts:
    """The object graph of one process; each part is built when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        if settings.store.url.kind == "sqlite" and settings.broker.url.kind == "sqlite":
            same = settings.store.url.path == settings.broker.url.path
        else:
            same = settings.broker.url.kind != "sqlite"
        if not same:
            raise ConfigError(
                [f"MR_BROKER: expected NSQ, or the SQLite file that is the store, got: {settings.broker.url}"]
            )

    @cached_property
    def store(self) -> Store:
        """The store."""
        url = self.settings.store.url
        if url.kind == "sqlite":
            from mr.adapters.stores.sqlite import SqliteStore

            return SqliteStore(self._file)
        endpoints = [str(endpoint) for endpoint in url.endpoints]
        if url.kind == "etcd2":
            from mr.adapters.stores.etcd2 import Etcd2Store

            return Etcd2Store(endpoints, username=url.username, password=url.password, tls=url.tls)
        from mr.adapters.stores.etcd3 import Etcd3Store

        return Etcd3Store(endpoints, username=url.username, password=url.password, tls=url.tls)

    def share_commits(self, *, takes: bool) -> None:
        """Write for other processes (`takes`) or have them write, where that spares them waiting for each other."""
        if self.settings.store.url.kind == "sqlite":
            from mr.adapters.stores.sqlite import SqliteStore

            assert isinstance(self.store, SqliteStore)
            (self.store.take_commits if takes else self.store.hand_over_commits)()

    @cached_property
    def maintain(self) -> Callable[[], None] | None:
        """What one worker does for the store every minute; None where the store looks after itself."""
        if self.settings.store.url.kind != "etcd3":
            return None
        from mr.adapters.stores.etcd3 import Etcd3Store, Maintenance

        assert isinstance(self.store, Etcd3Store)
        return Maintenance(self.store)

    @cached_property
    def publisher(self) -> Publisher:
        """The sending side of the broker."""
        url = self.settings.broker.url
        if url.kind == "sqlite":
            from mr.adapters.brokers.sqlite import SqlitePublisher

            return SqlitePublisher(self._file)
        from mr.adapters.brokers.nsq import NsqPublisher

        return NsqPublisher(self._nsqds(), self._lookupds(), channel=self.settings.broker.channel)

    def consumer(self) -> Consumer:
        """A new receiving side of the broker."""
        url = self.settings.broker.url
        if url.kind == "sqlite":
            from mr.adapters.brokers.sqlite import SqliteConsumer

            return SqliteConsumer(self._file)
        from mr.adapters.brokers.nsq_consumer import NsqConsumer

        return NsqConsumer(self._nsqds(), self._lookupds(), channel=self.settings.broker.channel)

    def _nsqds(self) -> list[tuple[str, int, int]]:
        return [(node.tcp.host, node.tcp.port, node.http.port) for node in self.settings.broker.url.nodes]

    def _lookupds(self) -> list[tuple[str, int]]:
        return [(lookupd.host, lookupd.port) for lookupd in self.settings.broker.url.lookupds]

    @cached_property
    def _file(self) -> SqliteFile:
        from mr.adapters.sqlite_file import SqliteFile

        return SqliteFile(self.settings.store.url.path)

    @cached_property
    def writers(self) -> Writers | None:
        """What results leave by; None where all of them stay in the store until they are fetched.

        Raises: ConfigError.
        """
        results = self.settings.results
        if results.used == {"inline"}:
            return None
        made = {name: self._writer(name) for name in results.used}
        return Writers(made[results.writer], {job: made[name] for job, name in results.jobs.items()})

    def _writer(self, name: str) -> ResultWriter | None:
        results = self.settings.results
        if name == "inline":
            return None
        if name == "file":
            from mr.adapters.writers.file import FileWriter

            writer: ResultWriter = FileWriter(results.folder, as_folders=results.as_folders)
        elif name == "email":
            from mr.adapters.writers.email import EmailWriter

            writer = EmailWriter(self.settings.mail, results)
        elif name == "http":
            from mr.adapters.writers.http import HttpWriter

            assert results.url is not None
            writer = HttpWriter(results.url, results.format)
        else:
            variable = "MR_RESULT_WRITER" if name == results.writer else "MR_RESULT_WRITER_JOBS"
            writer = _writer_of_class(name, variable)
        return writer if results.timeout_s is None else PatientWriter(writer, results.timeout_s)

    @cached_property
    def notices(self) -> Notices:
        """Telling people."""
        notice, ways = self.settings.notice, []
        if notice.email:
            from mr.adapters.notifiers.email import EmailNotifier

            by_mail = EmailNotifier(self.settings.notice_mail, notice.recipients, notice.subject)
            ways.append(Way(by_mail, notice.email_level))
        if notice.http:
            from mr.adapters.notifiers.http import HttpNotifier

            url = HttpUrl(scheme="http", endpoint=Endpoint(notice.host, notice.port), target=notice.path)
            ways.append(Way(HttpNotifier(url, notice.verb), notice.http_level))
        if notice.services:
            from mr.adapters.notifiers.apprise import AppriseNotifier

            services = AppriseNotifier([service.value for service in notice.services])
            ways.append(Way(services, notice.services_level))
        return Notices(ways)

    @cached_property
    def registry(self) -> Registry:
        """Definitions."""
        from mr.adapters.processors.command import CommandProcessor
        from mr.adapters.processors.python import PythonProcessor

        others = [CommandProcessor(language) for language in self.languages.values()]
        return Registry(self.store, [PythonProcessor(), *others], self.clock)

    @cached_property
    def languages(self) -> dict[str, Language]:
        """Languages other than Python, by name.

        Raises: ConfigError.
        """
        from mr.adapters.language_file import languages

        return languages(self.settings.handlers.languages)

    @cached_property
    def sync(self) -> Sync:
        """Folders of handlers."""
        return Sync(self.registry)

    @cached_property
    def retention(self) -> Retention:
        """How long finished requests stay."""
        cleaning = self.settings.cleaning
        return Retention(
            enabled=cleaning.enabled,
            quiet_s=cleaning.quiet_period_s,
            answered_s=cleaning.answered_s,
            result_keep_s=cleaning.unread_s,
            failed_keep_s=cleaning.failed_s,
        )

    @cached_property
    def message_key(self) -> bytes:
        """The key that seals messages."""
        return message_key(self.store)

    @cached_property
    def datasets(self) -> Datasets:
        """Data of requests."""
        return Datasets(self.store, self.blobs)

    @cached_property
    def blob_store(self) -> BlobStore | None:
        """Where data lies that is too much for the store; None where no place is configured."""
        url = self.settings.files.blobs
        if url is None:
            return None
        from mr.adapters.blob_stores.files import open_blob_store

        return open_blob_store(url)

    @cached_property
    def blobs(self) -> Blobs:
        """Chunks that lie there."""
        return Blobs(self.blob_store)

    @cached_property
    def collections(self) -> Collections:
        """What handlers share."""
        from mr.services.collections import Collections

        return Collections(self.store)

    @cached_property
    def submission(self) -> Submission:
        """Accepting and cancelling."""
        return Submission(
            self.store, self.publisher, self.registry, self.clock, self.retention, self.message_key, self.events
        )

    @cached_property
    def events(self) -> Events:
        """What other systems are to hear of."""
        return Events([destination(url) for url in self.settings.webhooks.urls], self.settings.webhooks.kinds)

    @cached_property
    def postman(self) -> Postman | None:
        """Who tells them; None where nobody listens."""
        webhooks = self.settings.webhooks
        if not webhooks.urls:
            return None
        from mr.adapters.event_senders.http import HttpEventSender

        destinations = {destination(url): url for url in webhooks.urls}
        sender = HttpEventSender(webhooks.private)
        return Postman(self.store, self.clock, sender, destinations, webhooks.keys, webhooks.mode)

    @cached_property
    def results(self) -> Results:
        """Waiting and reading."""
        return Results(self.store, self.datasets, self.clock)

    @cached_property
    def tracing(self) -> Tracing:
        """Looking at the trees of requests."""
        return Tracing(self.store, self.registry.definitions)

    @cached_property
    def pictures(self) -> Pictures:
        """Drawing requests."""
        from mr.adapters.renderers.graphviz import GraphvizRenderer
        from mr.services.pictures import Pictures

        return Pictures(self.tracing, GraphvizRenderer())

    @cached_property
    def dump(self) -> Dump:
        """All that is kept of a request, data included."""
        from mr.services.dump import Dump

        return Dump(self.tracing, self.datasets)

    @cached_property
    def sessions(self) -> Sessions:
        """What mappers kept for their reducers."""
        from mr.services.sessions import Sessions

        return Sessions(self.store, self.results)

    @cached_property
    def waits(self) -> Waits:
        """What unfinished requests wait for."""
        from mr.services.waits import Waits

        return Waits(self.store, self.tracing, self.fleet, self.prints, self.publisher, self.clock)

    @cached_property
    def timelines(self) -> Timelines:
        """When what ran where."""
        from mr.services.timeline import Timelines

        return Timelines(self.tracing, self.clock)

    @cached_property
    def prints(self) -> Prints:
        """What handlers printed."""
        from mr.services.prints import Prints

        return Prints(self.store)

    @cached_property
    def excerpts(self) -> Excerpts:
        """What went into invocations and came out."""
        from mr.services.excerpts import Excerpts

        return Excerpts(self.datasets)

    @cached_property
    def fleet(self) -> Fleet:
        """Looking at workers and queues."""
        from mr.services.fleet import Fleet

        return Fleet(self.store, self.publisher, self.registry, self.clock)

    @cached_property
    def receipts(self) -> Receipts:
        """Notes of what was published."""
        return Receipts(self.store, self.publisher, self.clock)

    @cached_property
    def pins(self) -> Pins:
        """Keeping requests from being removed."""
        return Pins(self.store, self.clock)

    @cached_property
    def cleaner(self) -> Cleaner:
        """Removing finished requests."""
        return Cleaner(self.store, self.clock, self.blobs)

    def file_system(self, w: str) -> FileSystem:
        """What the handlers of a workflow share. Raises: ConfigError if there is none, or no driver for it."""
        url = self.settings.files.shared
        if url is None:
            raise ConfigError(["MR_FS_URL: expected a URL such as file:///srv/shared, got: nothing"])
        from mr.adapters.file_systems.opening import open_file_system

        return open_file_system(url, w)

    def check_file_system(self) -> None:
        """See whether what is configured has a driver. Raises: ConfigError."""
        if self.settings.files.shared is not None:
            from mr.adapters.file_systems.opening import check

            check(self.settings.files.shared)

    def check_blob_store(self) -> None:
        """See whether what is configured has a driver and, on this machine, a directory. Raises: ConfigError."""
        if self.settings.files.blobs is not None:
            from mr.adapters.blob_stores.files import check

            check(self.settings.files.blobs)

    def reach_file_system(self) -> None:
        """See whether what is configured answers; nothing is made there. Raises: ConfigError, OSError."""
        if self.settings.files.shared is not None:
            from mr.adapters.file_systems.opening import open_file_system

            open_file_system(self.settings.files.shared, "any").reach()

    def close(self) -> None:
        """Let go of everything that was opened. Twice is harmless."""
        for name in ("notices", "publisher", "store", "_file"):
            part = self.__dict__.pop(name, None)
            if part is not None:
                part.close()


def _writer_of_class(path: str, variable: str) -> ResultWriter:
    """An operator's own writer: `package.module.Class`, made without arguments."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
        if isinstance(found, type) and issubclass(found, ResultWriter):
            return found()
    except ConfigError:
        raise
    except Exception as error:  # code of the operator's own may raise anything
        problem = f"expected a class that can be made, got: {path} ({type(error).__name__}: {error})"
        raise ConfigError([f"{variable}: {problem}"]) from error
    raise ConfigError([f"{variable}: expected a class that extends mr.ports.result_writer.ResultWriter, got: {path}"])
