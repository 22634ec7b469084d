"""A front end over a SQLite store of its own, and a thread that plays the worker by ending requests in the store."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import msgspec
from flask.testing import FlaskClient

from mr import codec
from mr.clock import SystemClock
from mr.codec import Items
from mr.http.app import create_app
from mr.http.front_end import FrontEnd
from mr.model.dataset import Chunks, Payload
from mr.model.handler import Handler
from mr.model.invocation import PARTS, Done, ErrorReport, Part, WorkerRecord, report_as_dict
from mr.model.request import Active, Reply, Request, RequestState
from mr.ports.store import Delete, Equals, Put, Store, Transaction
from mr.rules import keys, lifecycle
from mr.services.retention import Retention
from mr.settings import Settings
from mr.wiring import Parts

DEADLINE_S = 20.0
REPORT = ErrorReport(
    class_="exception",
    type="ValueError",
    message="no\nsuch word: жук",
    handler="count",
    invocation="i.0",
    traceback="T",
)
Ending = Callable[[Store, Retention, str, str, Request], None]


def parts(folder: Path, **variables: str) -> Parts:
    """Parts over a new file, with the workflow `w` and its job `j`."""
    made = Parts(Settings.from_env({"MR_STORE": f"sqlite:///{folder}/mr.db", **variables}))
    define(made)
    return made


def define(made: Parts, workflow: str = "w") -> None:
    """A workflow with the least that makes a job."""
    made.registry.create_workflow(workflow, "")
    for name in ("mapper", "reducer"):
        made.registry.store_handlers(workflow, {name: handler(name)})
    made.registry.create_step(workflow, "s", "", "mapper", None, "reducer")
    made.registry.create_job(workflow, "j", "", "s")


def handler(kind: Any) -> Handler:
    return Handler(
        description="",
        argument_spec=[("arguments" if kind == "mapper" else "results", "list")],
        source_type="python",
        source_code="yield 1, 2\n",
        handler_type=kind,
        required_capability="none",
    )


def end(
    store: Store,
    retention: Retention,
    w: str,
    r: str,
    state: RequestState,
    *,
    inline: list[Any] | None = None,
    chunks: list[list[Any]] | None = None,
    error: ErrorReport | None = None,
    replies: bool = True,
) -> None:
    """What a worker's last transaction does: the record of the root, the end of the request, the reply."""
    entry = store.get(keys.request(w, r))
    assert entry is not None
    request = codec.decode(entry.value, Request)
    now = SystemClock().now()
    ended = lifecycle.advance(
        request,
        state,
        now,
        due_at=retention.due_at(request, state, now),
        error=report_as_dict(error) if error else None,
    )
    operations: list[Put | Delete] = [
        Put(keys.request(w, r), codec.encode(ended)),
        Delete(keys.active(w, r)),
    ]
    if ended.due_at is not None:
        operations.append(Put(keys.due(ended.due_at, w, r), b"{}"))
    pairs = None if inline is None else Items.of([codec.dumps(pair) for pair in inline])
    if pairs is not None:
        done = Done(execution="e.1", results=Payload(inline=Items.of([pairs.array()]).raw()))
        operations.append(Put(keys.done(w, r, "-", 0), codec.encode(done)))
    for number, chunk in enumerate(chunks or []):
        store.commit(Transaction(operations=[Put(keys.chunk(w, r, "e.1", "pairs", number), codec.dumps(chunk))]))
    if chunks is not None:
        payload = Payload(chunks=Chunks(execution="e.1", kind="pairs", counts=[len(chunk) for chunk in chunks]))
        operations.append(Put(keys.done(w, r, "-", 0), PARTS))
        operations.append(Put(keys.part(w, r, "-", 0, 0), codec.encode(Part(execution="e.1", result=payload))))
    if replies and request.reply_to is not None:
        reply = Reply(workflow_name=w, state=state, error=ended.error)
        if pairs is not None:
            reply = msgspec.structs.replace(reply, pairs=pairs.raw())
        operations.append(Put(keys.replies(request.reply_to, r), codec.encode(reply)))
    fence = Equals(keys.active(w, r), codec.encode(Active(request.epoch)))
    assert store.commit(Transaction(conditions=[fence], operations=operations)).succeeded


def succeeds(*pairs: Any) -> Ending:
    """The request yields these pairs, which stand in the reply."""

    def ending(store: Store, retention: Retention, w: str, r: str, request: Request) -> None:
        end(store, retention, w, r, RequestState.SUCCEEDED, inline=[list(pair) for pair in pairs])

    return ending


def succeeds_in_chunks(*chunks: list[Any]) -> Ending:
    """The request yields pairs too big for the reply."""

    def ending(store: Store, retention: Retention, w: str, r: str, request: Request) -> None:
        end(store, retention, w, r, RequestState.SUCCEEDED, chunks=list(chunks))

    return ending


def fails(report: ErrorReport = REPORT) -> Ending:
    """The request fails with this report."""

    def ending(store: Store, retention: Retention, w: str, r: str, request: Request) -> None:
        end(store, retention, w, r, RequestState.FAILED, error=report)

    return ending


def ends_silently(*pairs: Any) -> Ending:
    """The request succeeds, and its reply is lost."""

    def ending(store: Store, retention: Retention, w: str, r: str, request: Request) -> None:
        end(store, retention, w, r, RequestState.SUCCEEDED, inline=[list(pair) for pair in pairs], replies=False)

    return ending


@contextmanager
def worker(made: Parts, ending: Ending) -> Iterator[None]:
    """A thread that ends each request that is accepted, while the block runs."""
    closed = threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with made.store.watch(keys.ACTIVE, 0) as watch:
                while not closed.is_set():
                    for change in watch.next(0.1):
                        if change.entry is not None:
                            _, w, r = change.key.split("/")
                            ending(made.store, made.retention, w, r, made.results.request(w, r))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join(DEADLINE_S)
    assert not errors, errors


class Site:
    """A front end with a test client. Greenlets of one thread may use it at the same time."""

    def __init__(self, made: Parts, **options: Any) -> None:
        self.parts = made
        self.front_end = FrontEnd(made, **options)
        self.app = create_app(self.front_end)

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def post(self, arguments: Any = None, query: str = "", path: str = "/job/w/j", **options: Any) -> Any:
        """POST a job as JSON."""
        body = {"arguments": {"a": 1} if arguments is None else arguments}
        options = {"buffered": True, **options}  # buffered: read to its end
        return self.client.post(path + query, data=json.dumps(body), content_type="application/json", **options)

    def in_background(self, call: Callable[[], Any]) -> gevent.Greenlet:
        """Make a call in a greenlet of its own."""
        greenlet = gevent.spawn(call)
        gevent.sleep(0)
        return greenlet

    def until(self, condition: Callable[[], Any]) -> Any:
        """Let others run until the condition holds; what it said."""
        with gevent.Timeout(DEADLINE_S, AssertionError("it did not come to pass")):
            while not (found := condition()):
                gevent.sleep(0.005)
        return found

    def requests(self) -> Mapping[str, Request]:
        """Ids and records of all requests of the workflow."""
        return dict(self.parts.results.requests("w"))

    def keys_below(self, prefix: str) -> list[str]:
        """Keys in the store."""
        return [entry.key for entry in self.parts.store.range(prefix).entries]

    def close(self) -> None:
        self.front_end.close()


def enlist(store: Store) -> None:
    """A live worker on record, which offers what most handlers require; else clients are sent away soon."""
    record = WorkerRecord(
        host="h", pid=1, capabilities=["general"], workflows=[], slots=1, version="0", started_at="", serves_all=True
    )
    store.commit(Transaction(operations=[Put(keys.worker("enlisted"), codec.encode(record))]))
