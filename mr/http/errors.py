"""From exceptions to answers: one table of status codes, one shape of body.

    {"error": {"code": "unknown_job", "message": "…", "hint": "…", "request_id": "…"}}

`code` is for machines and stays, `message` and `hint` are for people; `request_id` stands there when a request
exists or may exist. The failure of a handler has a shape of its own, see `failure`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from mr import codec
from mr import errors as mr_errors
from mr.errors import MrError, RequestFailed, StoreFull, StoreUnavailable

_log = logging.getLogger(__name__)

JSON = "application/json"
RETRY_AFTER_S = "1"
HEADER_MAX = 1000

STATUS: Mapping[type[MrError], int] = {
    mr_errors.InvalidName: 404,  # nothing can have this name
    mr_errors.UnknownWorkflow: 404,
    mr_errors.UnknownJob: 404,
    mr_errors.RequestNotFound: 404,
    mr_errors.NotFound: 404,
    mr_errors.InvalidDocument: 400,
    mr_errors.InvalidArguments: 400,
    mr_errors.ValueRefused: 400,
    mr_errors.RequestError: 409,
    mr_errors.StateError: 409,
    mr_errors.VersionConflict: 503,  # definitions that never stop changing; nothing was accepted
    mr_errors.StoreUnavailable: 503,
    mr_errors.StoreFull: 503,
    mr_errors.BrokerUnavailable: 503,
    mr_errors.PictureUnavailable: 503,
}
"""By class, the nearest one counts; 500 where there is none."""

FAILURE_FIELDS: Mapping[str, Any] = {
    "class": "exception",
    "type": "",
    "message": "",
    "handler": "",
    "version": "",
    "invocation": "",
    "attempt": 1,
    "traceback": "",
}
"""What a client gets of a failed invocation's report, with what stands for a field the report leaves out."""


class ClientError(MrError):
    """A request of HTTP itself is wrong: its query, its headers. Answered with 400."""

    code = "bad_request"


def status_of(error: MrError) -> int:
    """The status code of an error."""
    if isinstance(error, ClientError):
        return 400
    if isinstance(error, StoreUnavailable) and error.unknown:
        return 504
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def register(app: Flask) -> None:
    """Answer every exception of the routes."""
    app.register_error_handler(Exception, lambda error: answer(error, g.get("request_id")))


def answer(error: Exception, request_id: str | None = None) -> Response:
    """The answer to any exception, about a request if it exists or may exist."""
    if isinstance(error, RequestFailed):
        return _failure(error)
    if isinstance(error, MrError):
        return _problem(error, request_id)
    if isinstance(error, HTTPException):
        return _protocol_problem(error, request_id)
    _log.error("a request could not be answered", exc_info=error)
    message = "this should not have happened; the log of the front end says more"
    return _error("internal", message, 500, request_id=request_id)


def _failure(error: RequestFailed) -> Response:
    """The failure of a handler: what it raised, in the headers for JobX's clients and whole in the body."""
    report = {name: error.report.get(name, missing) for name, missing in FAILURE_FIELDS.items()}
    answer = _json({"error": report}, 500)
    answer.headers["X-MR-EXCEPTION-TYPE"] = header_safe(report["type"])
    answer.headers["X-MR-EXCEPTION-MESSAGE"] = header_safe(report["message"])
    return answer


def _problem(error: MrError, request_id: str | None) -> Response:
    status = status_of(error)
    if status >= 500:
        _log.warning("answered %d: %s", status, error)
    code = "outcome_unknown" if status == 504 else error.code
    hint = error.hint or ("which there are: /ui/job/" if isinstance(error, mr_errors.UnknownWorkflow) else "")
    answer = _error(code, error.message, status, hint, request_id)
    if status in (503, 504):
        answer.headers["Retry-After"] = RETRY_AFTER_S
    return answer


def _protocol_problem(error: HTTPException, request_id: str | None) -> Response:
    """What Flask refuses by itself: no such route, another method, a body too large."""
    status = error.code or 500
    message, hint = error.description or error.name, ""
    if isinstance(error, RequestEntityTooLarge):
        hint = "put big input on the shared file system or behind a URL and pass its name"
    elif isinstance(error, NotFound):
        message = "there is no such route"
        hint = "POST /job/<workflow>/<job>, GET /request/<workflow>/<id>/result; pages for people: /ui/job/"
    elif isinstance(error, MethodNotAllowed):
        message = f"this route takes {', '.join(sorted(error.valid_methods or ()))}"
    code = error.name.lower().replace(" ", "_")
    answer = _error(code, message, status, hint, request_id)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            answer.headers[name] = value
    return answer


def header_safe(text: object) -> str:
    """One line of printable ASCII, at most 1,000 characters; other characters are escaped as in Python."""
    line = " ".join(str(text).split())
    plain = line[:HEADER_MAX].encode("ascii", "backslashreplace").decode("ascii")
    return "".join(character if " " <= character <= "~" else "?" for character in plain)[:HEADER_MAX]


def _error(code: str, message: str, status: int, hint: str = "", request_id: str | None = None) -> Response:
    body = {"code": code, "message": message}
    if hint:
        body["hint"] = hint
    if request_id is not None:
        body["request_id"] = request_id
    return _json({"error": body}, status)


def _json(value: Any, status: int) -> Response:
    return Response(codec.encode(value), status, content_type=JSON)


def may_exist(error: MrError) -> bool:
    """Whether a request may have been accepted although submitting it raised this."""
    return (isinstance(error, StoreUnavailable) and error.unknown) or isinstance(error, StoreFull)
