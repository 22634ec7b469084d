"""The one hot route, before Flask: a plain `POST /job/<workflow>/<job>` that is answered with a small result.

Routing, contexts and response objects cost more than accepting a job does. So a post without a query, with plain
headers, is served from its WSGI environment; everything else goes to Flask, whose own route does the same with the
same functions (`jobs.Posted`), and whatever is no small result is answered with the same responses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wrappers import Response

from mr.http import answers, errors, jobs
from mr.http.front_end import FrontEnd
from mr.model.request import RequestState

Wsgi = Callable[[dict[str, Any], Any], Iterable[bytes]]

_PATH = re.compile(r"/job/([A-Za-z0-9._-]+)/([A-Za-z0-9._-]+)")


class Direct:
    """A WSGI application in front of another one."""

    def __init__(self, front_end: FrontEnd, otherwise: Wsgi) -> None:
        self._front_end, self._otherwise = front_end, otherwise

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        place = _PATH.fullmatch(environ["PATH_INFO"])
        is_plain = (
            environ["REQUEST_METHOD"] == "POST"
            and environ.get("CONTENT_TYPE") == errors.JSON
            and not environ.get("QUERY_STRING")
            and "HTTP_CONTENT_ENCODING" not in environ
        )
        if place is None or not is_plain:
            return self._otherwise(environ, start_response)
        front_end, workflow = self._front_end, place[1]
        posted = jobs.Posted(front_end, workflow, place[2], environ, blocking=True)
        answer: Response
        try:
            reply = posted.serve()
            if reply is None:
                answer = answers.pending(202, posted.placement)
            elif reply.state is RequestState.SUCCEEDED and len(pairs := bytes(reply.pairs)) > 1:
                body = answers.small(pairs[1:-1])
                start_response(
                    "200 OK",
                    [
                        ("Content-Type", errors.JSON),
                        ("Content-Length", str(len(body))),
                        *answers.about(posted.new_id, front_end.host),
                    ],
                )
                return answers.sent([body], (), lambda: front_end.deliveries.delivered(workflow, posted.new_id))
            else:
                answer = jobs.finished(front_end, workflow, posted.new_id, reply)
        except Exception as error:
            answer = errors.answer(error, posted.request_id)
        if posted.request_id is not None:
            answer.headers.extend(answers.about(posted.request_id, front_end.host))
        return answer(environ, start_response)
