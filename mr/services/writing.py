"""Writing: the last step of a request whose result leaves by a writer.

The root's record and the state WRITING are committed first; then a message asks for the write, and is published again
when it is lost, like any other. The write reads only what is committed, and may happen twice: before the end is
recorded nobody knows whether it did. The end is one transaction under the request's fence, so it happens once.

Where a job's result stays in the store, while those of others leave, there is nothing to write, only to end.

The hard part is what must not be written: a request that is not WRITING in the epoch of the message has failed, was
resumed, or is over. So the record is looked at right before; only a process that stands still between that look and
the write can be too late, and writes what was right when it looked.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from itertools import count

import msgspec

from mr import codec
from mr.errors import NotFound, StoreFull, StoreUnavailable
from mr.model import ids
from mr.model.invocation import ErrorReport
from mr.model.message import Message
from mr.model.request import Active, Request, RequestState
from mr.ports.result_writer import Origin, ResultWriter
from mr.ports.store import Store
from mr.rules import keys, retry
from mr.services.committer import Committer
from mr.services.datasets import Datasets
from mr.services.unit import End, Fact, Unit, Verdict

_log = logging.getLogger(__name__)

MESSAGE_MAX = 4096
"""Characters of an exception's text that are kept."""


class Writers(msgspec.Struct, frozen=True):
    """The writers of a deployment: those of single jobs, by `workflow/job`, and that of all others.

    None: the result stays in the store until it is fetched.
    """

    default: ResultWriter | None
    jobs: Mapping[str, ResultWriter | None] = {}

    @property
    def names(self) -> str:
        """All of them, for the record of the worker."""
        found = {writer.name for writer in (self.default, *self.jobs.values()) if writer is not None}
        return ", ".join(sorted(found))

    def of(self, workflow: str, job: str) -> ResultWriter | None:
        """The writer of a job."""
        return self.jobs.get(f"{workflow}/{job}", self.default)


class Writing:
    """Does what messages of kind `write` ask for. Safe to call from several threads."""

    def __init__(
        self,
        store: Store,
        datasets: Datasets,
        committer: Committer,
        writers: Writers,
        *,
        worker: str,
        stamp: Callable[[], str],
    ) -> None:
        self._store, self._datasets, self._committer, self._writers = store, datasets, committer, writers
        self._worker, self._stamp = worker, stamp
        self._counter = count(1)

    def write(self, message: Message) -> float | None:
        """Write the result of a request and end it; None if the message is done with, else when it should come again.

        A repeat is harmless: it writes the same once more, or finds that the request is over.
        Raises: StoreUnavailable, StoreFull; the message should come again.
        """
        w, r = message.w, message.r
        active = self._store.get(keys.active(w, r))
        entry = self._store.get(keys.request(w, r))
        if active is None or entry is None:
            return None
        if codec.decode(active.value, Active, where=active.key).epoch != message.epoch:
            return None
        request = codec.decode(entry.value, Request, where=entry.key)
        if request.state.is_final:
            # Its end is only half written: a store without transactions comes here.
            self._end(message, End(state=request.state, after=RequestState.WRITING))
            return None
        if request.state is not RequestState.WRITING:
            return None
        writer = self._writers.of(w, request.job_name)
        if writer is None:
            self._end(message, End(state=RequestState.SUCCEEDED, after=RequestState.WRITING))
            return None
        origin = Origin(workflow=w, job=request.job_name, request_id=r, context=request.context)
        try:
            told = writer.write(origin, self._datasets.pairs(w, r))
            written = {"writer": writer.name, "host": socket.gethostname(), **(told or {})}
            codec.dumps(written)
        except NotFound:
            return None  # cleaned away
        except (StoreUnavailable, StoreFull):
            raise
        except Exception as error:  # an operator's own class may raise anything
            return self._failed(message, writer, error)
        self._end(message, End(state=RequestState.SUCCEEDED, after=RequestState.WRITING, written=written))
        return None

    def _end(self, message: Message, end: End) -> None:
        self._committer.commit([Unit(workflow=message.w, request_id=message.r, epoch=message.epoch, end=end)])

    def _failed(self, message: Message, writer: ResultWriter, error: Exception) -> float | None:
        """Record the attempt; the last one is the end of the request, whose result stays for a resume."""
        w, r = message.w, message.r
        report = self._report(writer, error)
        budget = retry.budget(report.class_, None)
        prefix = keys.attempts(w, r, ids.ROOT, budget.name)
        key = keys.attempt(w, r, ids.ROOT, budget.name, f"{self._worker}.w{next(self._counter)}")
        fact = Fact(key, codec.encode(report))
        unit = Unit(workflow=w, request_id=r, epoch=message.epoch, facts=[fact], counts=[prefix])
        (receipt,) = self._committer.commit([unit])
        if receipt.verdict is not Verdict.COMMITTED:
            return None
        attempts = receipt.counts[prefix]
        _log.warning("attempt %d to write the result of request %s: %s: %s", attempts, r, report.type, report.message)
        if attempts < budget.attempts:
            return retry.write_pause_s(attempts)
        report = msgspec.structs.replace(report, attempt=attempts)
        self._end(message, End(state=RequestState.FAILED, after=RequestState.WRITING, report=report))
        return None

    def _report(self, writer: ResultWriter, error: Exception) -> ErrorReport:
        text = f"the result cannot be written ({writer.name}): {error}"[:MESSAGE_MAX]
        return ErrorReport(
            class_="result_writer",
            type=type(error).__name__,
            message=text.encode("utf-8", "backslashreplace").decode(),
            worker=self._worker,
            at=self._stamp(),
        )
