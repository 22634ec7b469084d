"""`POST /job/<workflow>/<job>`: accept a request, and by default wait for its result."""

from __future__ import annotations

import io
import select
from collections.abc import Iterator, Mapping
from typing import Any

import gevent
from flask import Blueprint, Response, g, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout
from werkzeug.sansio.utils import get_content_length

from mr import codec
from mr.errors import InvalidArguments, MrError, NobodyOffers, RequestFailed, StoreUnavailable
from mr.http import answers
from mr.http.errors import JSON, ClientError, may_exist
from mr.http.front_end import FrontEnd
from mr.http.grouped import Call
from mr.http.replies import Waiter
from mr.model import ids, names
from mr.model.request import Reply, Request, RequestState
from mr.services.acceptance import Accepted, Posting
from mr.services.placement import Placement

BODY_S = 30.0
"""A body that takes longer to arrive is not waited for."""
PLACE_AFTER_S = 0.7
"""A client that waits longer than this is told if nobody could even begin its job."""
LOOK_FIRST_S, LOOK_MAX_S = 10.0, 80.0
"""How long a client waits before its request's own record is looked at, in case no reply ever comes; it doubles."""
ADDRESS_MAX = 1000
SMALL_BYTES = 16 * 1024
"""A body up to this size is parsed at once."""

_YES, _NO = frozenset({"true", "1", "yes"}), frozenset({"false", "0", "no"})


def routes(front_end: FrontEnd) -> Blueprint:
    """The route of jobs."""
    blueprint = Blueprint("jobs", __name__)

    @blueprint.post("/job/<workflow>/<job>")
    def post(workflow: str, job: str) -> Response:
        blocking = asks("blocking", request.args.getlist("blocking"), unless_said=True)
        strict = asks("strict", request.args.getlist("strict"), unless_said=False)
        check_headers(request.mimetype, request.mimetype_params, request.headers.get("Content-Encoding", ""))
        posted = Posted(front_end, workflow, job, request.environ, blocking=blocking, strict=strict)
        try:
            reply = posted.serve()
        finally:
            if posted.request_id is not None:
                g.request_id = posted.request_id
        if reply is None:
            return answers.pending(202 if blocking else 200, posted.placement)
        return finished(front_end, workflow, posted.new_id, reply)

    return blueprint


class Posted:
    """One job that a client posts. `request_id` is None as long as no request of it can exist.

    `placement` says what of the job nobody could run, where that was looked for. With `strict` a job that nobody could
    begin is refused.
    """

    def __init__(
        self,
        front_end: FrontEnd,
        workflow: str,
        job: str,
        environ: dict[str, Any],
        *,
        blocking: bool,
        strict: bool = False,
    ) -> None:
        self._front_end, self._workflow, self._job = front_end, workflow, job
        self._environ, self._blocking, self._strict = environ, blocking, strict
        self.placement = Placement()
        self.new_id = ids.new_request_id()
        self.request_id: str | None = None

    def serve(self) -> Reply | None:
        """Accept the request, and wait for its end where that was asked for; None if it is not over.

        Raises: MrError, HTTPException.
        """
        front_end, w, r = self._front_end, self._workflow, self.new_id
        names.check("workflow", w)
        names.check("job", self._job)
        body = read_body(self._environ, front_end.settings.body_max_bytes)
        # A megabyte of JSON in the event loop would hold up everybody else.
        arguments = arguments_of(body) if len(body) <= SMALL_BYTES else front_end.threads.call(arguments_of, body)
        posting = Posting(
            request_id=r,
            workflow=w,
            job=self._job,
            arguments=arguments,
            context={"requester_ip": requester_ip(self._environ, front_end.settings.remote_addr_header)},
            is_blocking=self._blocking,
            reply_to=front_end.id if self._blocking else None,
        )
        if self._strict and (unplaced := self._place().initial) is not None:
            raise NobodyOffers(str(unplaced), hint=unplaced.help)
        if not self._blocking:
            self._accepted(front_end.accepting.begin(posting))
            self._place()
            return None
        with front_end.room.expect(r) as waiter:
            # Mostly the reply is the first that comes, and where there is one the request was accepted.
            call = front_end.accepting.begin(posting, waiter.leave)
            reply = waiter.wait(min(PLACE_AFTER_S, front_end.settings.wait_max_s))
            if reply is None:
                self._accepted(call)
                if self._place().initial is None:
                    reply = wait(front_end, waiter, self._environ, w, r)
        self.request_id = r
        if reply is not None and (reply.state is not RequestState.SUCCEEDED or reply.is_written):
            front_end.deliveries.forget(w, r)
        return reply

    def _place(self) -> Placement:
        self.placement = self._front_end.placing.place(self._workflow, self._job)
        return self.placement

    def _accepted(self, call: Call[Posting, Accepted]) -> None:
        """See that the request was accepted. Raises: MrError."""
        try:
            self._front_end.accepting.finish(call)
        except MrError as error:
            if may_exist(error):
                self.request_id = self.new_id
            raise
        self.request_id = self.new_id


def asks(name: str, values: list[str], *, unless_said: bool) -> bool:
    """What `?name=` says.

    Raises: ClientError.
    """
    if not values:
        return unless_said
    word = values[0].lower() if len(values) == 1 else ""
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise ClientError(f"expected ?{name}= once, true or false", hint="1, 0, yes and no will do")


def check_headers(kind: str, parameters: Mapping[str, str], encoding: str) -> None:
    """Whether the headers say that the body is JSON in UTF-8, as it is.

    Raises: ClientError.
    """
    charset = parameters.get("charset", "utf-8").lower()
    if not (kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))):
        raise ClientError(f"expected the content type {JSON}, got: {kind[:100] or 'none'}")
    if charset not in ("utf-8", "utf8"):
        raise ClientError(f"expected the charset utf-8, got: {charset[:100]}")
    if encoding.lower() not in ("", "identity"):
        raise ClientError("expected a body without Content-Encoding")


def read_body(environ: dict[str, Any], limit: int) -> bytes:
    """The body of a request, of at most `limit` bytes.

    Raises: RequestEntityTooLarge, RequestTimeout; ClientError if it breaks off.
    """
    length = get_content_length(environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING"))
    if isinstance(environ["wsgi.input"], io.BytesIO):  # it came together with the head
        return read_limited(environ["wsgi.input"], length, limit)
    with gevent.Timeout(BODY_S, RequestTimeout(f"the body did not arrive in {BODY_S:g} s")):
        return read_limited(environ["wsgi.input"], length, limit)


def read_limited(stream: Any, length: int | None, limit: int) -> bytes:
    """The body as it comes; `length` is None for one in chunks, whose end the server tells.

    Raises: RequestEntityTooLarge, without reading what is announced as too large; ClientError if it breaks off.
    """
    if length is None or length <= limit:
        body = bytearray()
        try:
            while len(body) <= limit and (piece := stream.read(limit + 1 - len(body))):
                body += piece
        except (ParseException, OSError) as error:
            raise ClientError(f"the body cannot be read: {error}") from error
        if length is not None and len(body) < length:
            raise ClientError(f"the body broke off after {len(body)} of {length} bytes")
        if len(body) <= limit:
            return bytes(body)
    raise RequestEntityTooLarge(f"the body is over the limit of {limit} bytes")


def arguments_of(body: bytes) -> dict[str, Any]:
    """The arguments in `{"arguments": {…}}`.

    Raises: InvalidDocument, InvalidArguments.
    """
    document = codec.loads(body)
    if not isinstance(document, dict) or "arguments" not in document:
        raise InvalidArguments('expected an object with "arguments"', hint='{"arguments": {"key": "value"}}')
    if unknown := sorted(name[:100] for name in document if name != "arguments"):
        raise InvalidArguments(f'expected nothing beside "arguments", got: {", ".join(unknown[:10])}')
    arguments = document["arguments"]
    if not isinstance(arguments, dict):
        raise InvalidArguments('expected "arguments" to be an object', hint='{"arguments": {"key": "value"}}')
    return arguments


def requester_ip(environ: dict[str, Any], header: str) -> str:
    """The whole header that the settings name, else the address of the peer; empty behind a Unix socket."""
    return str(environ.get(header) or environ.get("REMOTE_ADDR") or "")[:ADDRESS_MAX]


def wait(front_end: FrontEnd, waiter: Waiter, environ: dict[str, Any], w: str, r: str) -> Reply | None:
    """The end of a request; None if it is not over when the wait must end.

    It ends after MR_WAIT_MAX_S, when this process drains, and soon after the client has gone.
    """
    clock, room = front_end.parts.clock, front_end.room
    started = clock.monotonic()
    look_after_s = LOOK_FIRST_S
    look_at = started + look_after_s
    while not room.is_draining:
        now = clock.monotonic()
        left_s = started + front_end.settings.wait_max_s - now
        reply = waiter.wait(max(0.0, min(left_s, front_end.probe_every_s)))
        if reply is not None:
            return reply
        if left_s <= front_end.probe_every_s or has_gone(environ.get("gunicorn.socket")):
            return None
        if clock.monotonic() >= look_at:
            look_after_s = min(2 * look_after_s, LOOK_MAX_S)
            look_at = clock.monotonic() + look_after_s
            reply = look(front_end, w, r)
            if reply is not None:
                return reply
    return None


def look(front_end: FrontEnd, w: str, r: str) -> Reply | None:
    """The end of a request, from its own record."""
    try:
        record = front_end.threads.call(front_end.parts.results.request, w, r)
    except StoreUnavailable:
        return None
    return reply_of(record) if record.state.is_final else None


def reply_of(record: Request) -> Reply:
    """What is said to those who wait for a request that is over, from its record."""
    is_written = record.written is not None
    return Reply(workflow_name=record.workflow_name, state=record.state, error=record.error, is_written=is_written)


def has_gone(socket: Any) -> bool:
    """Whether the client has closed its side; a waiting server learns that only by asking the kernel."""
    if socket is None:
        return False
    poll = select.poll()
    try:
        poll.register(socket.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True  # the socket is closed already


def finished(front_end: FrontEnd, w: str, r: str, reply: Reply) -> Response:
    """The answer for a request that is over.

    Raises: RequestFailed.
    """
    if reply.state is not RequestState.SUCCEEDED:
        report = reply.error or {"class": "cancelled", "type": "Cancelled", "message": f"request {reply.state.value}"}
        raise RequestFailed(f"request {r} {reply.state.value}: {report['message']}", report)
    if reply.is_written:
        return answers.written()
    inline = bytes(reply.pairs)
    pieces = [inline[1:-1]] if inline else read_pairs(front_end, w, r)
    return answers.result(pieces, lambda: front_end.deliveries.delivered(w, r))


def read_pairs(front_end: FrontEnd, w: str, r: str) -> Iterator[bytes]:
    """The pairs of a succeeded request, each piece read in a native thread when it is asked for."""
    call = front_end.reading.call
    pieces = call(front_end.parts.results.pairs, w, r)
    while (piece := call(next, pieces, None)) is not None:
        yield piece.blob
