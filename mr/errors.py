"""Every exception that mr raises on purpose.

MrError
├── ConfigError            settings are wrong; all problems listed at once
├── DefinitionError        what a workflow defines is wrong or in the way
│   ├── UnknownWorkflow  UnknownJob  UnknownStep  UnknownHandler
│   ├── InvalidName  InvalidHandler  InvalidStep
│   └── DefinitionInUse
├── RequestError           a posted request, or what was asked about one, is wrong
│   ├── InvalidArguments  InvalidDocument  NobodyOffers
│   ├── RequestNotFound  RequestEnded
│   ├── RequestFailed      the request ended as failed; carries the report of the handler
│   └── ResultTimeout
├── ValueRefused           a value cannot be stored: not JSON, or over a limit
├── PathRefused            a path leads out of the directory of its workflow
├── StateError             the store holds something else than expected
│   └── InvalidTransition  VersionConflict  AlreadyExists  NotFound  WatchLost
└── BackendError           a server, file or program does not do its part
    ├── StoreUnavailable
    │   └── BlobStoreUnavailable
    └── StoreFull  BrokerUnavailable  CorruptEntry  PictureUnavailable  NotDelivered

`code` is the stable machine word that HTTP and `--json` show; the text is for people and may change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class MrError(Exception):
    """Base of all; `code` names the problem for machines, `hint` the next step for people."""

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(MrError):
    """Settings are wrong. `problems` has one line for each, naming the variable."""

    code = "config"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class DefinitionError(MrError):
    """A workflow, job, step or handler cannot be defined, found or removed as asked."""

    code = "definition"


class UnknownWorkflow(DefinitionError):
    """No workflow has this name; create it, or mend the name."""

    code = "unknown_workflow"


class UnknownJob(DefinitionError):
    """The workflow has no job of this name."""

    code = "unknown_job"


class UnknownStep(DefinitionError):
    """The workflow, or the definition set of the request, has no step of this name."""

    code = "unknown_step"


class UnknownHandler(DefinitionError):
    """The workflow has no handler of this name."""

    code = "unknown_handler"


class InvalidName(DefinitionError):
    """A name breaks the rule for names (`model.names`)."""

    code = "invalid_name"


class InvalidHandler(DefinitionError):
    """A handler's source or header is wrong; the text has file and line."""

    code = "invalid_handler"


class InvalidStep(DefinitionError):
    """A step binds handlers of the wrong kind, or a job names no good initial step.

    `role` is `mapper`, `combiner` or `reducer` where one name that was given for it is the problem, else empty.
    """

    code = "invalid_step"

    def __init__(self, message: str, *, role: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.role = role


class DefinitionInUse(DefinitionError):
    """What should go is still named by something else; `users` lists by what."""

    code = "in_use"

    def __init__(self, message: str, users: Sequence[str], *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.users = tuple(users)


class RequestError(MrError):
    """A posted request is wrong, or a request is not in the state asked for."""

    code = "request"


class NobodyOffers(RequestError):
    """No live worker can begin the job, and the client wanted to be told instead of waiting."""

    code = "nobody_offers"


class InvalidArguments(RequestError):
    """The body of a POST is JSON, but not what a job takes."""

    code = "invalid_arguments"


class InvalidDocument(RequestError):
    """Bytes are no JSON document that mr accepts: syntax, duplicate keys, NaN, depth, surrogates."""

    code = "invalid_json"


class RequestNotFound(RequestError):
    """No request has this id: never accepted, or cleaned away."""

    code = "request_not_found"


class RequestEnded(RequestError):
    """The request is over already, so it cannot be cancelled."""

    code = "request_ended"


class RequestFailed(RequestError):
    """The request ended as failed or cancelled. `report` is the error of the first failed invocation."""

    code = "request_failed"

    def __init__(self, message: str, report: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.report = dict(report)


class ResultTimeout(RequestError):
    """The request was not over in the time given; it goes on."""

    code = "result_timeout"


class ValueRefused(MrError):
    """A value cannot be kept; the text names the place inside the value and the reason."""

    code = "not_serialisable"


class PathRefused(MrError, ValueError):
    """A path leads out of its directory, that of a workflow or of the blobs, or means what must stay."""

    code = "path_refused"


class StateError(MrError):
    """The store holds something else than the caller expected."""

    code = "state"


class InvalidTransition(StateError):
    """A state machine was asked for a move that its table does not have."""

    code = "invalid_transition"


class VersionConflict(StateError):
    """Somebody changed the entry since it was read; read again and decide again."""

    code = "version_conflict"


class AlreadyExists(StateError):
    """The entry exists and was not overwritten."""

    code = "already_exists"


class NotFound(StateError):
    """The entry does not exist."""

    code = "not_found"


class WatchLost(StateError):
    """A watch cannot go on without a gap; read the state, then watch from its revision."""

    code = "watch_lost"


class BackendError(MrError):
    """A store, a broker, or a program that is needed does not do its part."""

    code = "backend"


class StoreUnavailable(BackendError):
    """The store does not answer. If `unknown`, the write may have been applied, or be applied yet."""

    code = "store_unavailable"

    def __init__(self, message: str, *, unknown: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.unknown = unknown


class BlobStoreUnavailable(StoreUnavailable):
    """What keeps the data that is too much for the store does not answer, or is not known to this process."""

    code = "blob_store_unavailable"


class StoreFull(BackendError):
    """The store refuses writes for want of space; deleting still works."""

    code = "store_full"


class BrokerUnavailable(BackendError):
    """The broker does not take messages now; the sweeper publishes later what is recorded as due."""

    code = "broker_unavailable"


class CorruptEntry(BackendError):
    """An entry does not have the form that its key promises; somebody wrote by hand, or a disk failed."""

    code = "corrupt_entry"


class PictureUnavailable(BackendError):
    """The program that draws pictures is not installed, fails, or takes too long."""

    code = "picture_unavailable"


class NotDelivered(BackendError):
    """A mail or web server did not take what was sent to it, or nobody can say whether it did."""

    code = "not_delivered"
