"""`/request/…`: look at a request, and fetch its result later."""

from __future__ import annotations

from flask import Blueprint, Response, g, request

from mr import codec
from mr.errors import RequestNotFound
from mr.http import answers
from mr.http.errors import JSON
from mr.http.front_end import FrontEnd
from mr.http.jobs import finished, reply_of
from mr.model import names
from mr.model.request import Request

PNG = "image/png"


def routes(front_end: FrontEnd) -> Blueprint:
    """The routes of requests."""
    blueprint = Blueprint("requests", __name__)

    @blueprint.get("/request/<workflow>/<request_id>")
    def show(workflow: str, request_id: str) -> Response:
        found = record(workflow, request_id)
        # The picture comes first, so that it is what `*/*` gets; a browser, which names HTML first, gets it as well.
        if request.accept_mimetypes.best_match([PNG, JSON], default=PNG) == JSON:
            answer = Response(codec.encode(found), content_type=JSON)
        else:
            picture = front_end.drawing.call(front_end.parts.pictures.draw, workflow, request_id, "png")
            answer = Response(picture, content_type=PNG)
        answer.headers["Cache-Control"] = "no-store"
        answer.vary.add("Accept")
        return answer

    @blueprint.get("/request/<workflow>/<request_id>/result")
    def result(workflow: str, request_id: str) -> Response:
        found = record(workflow, request_id)
        if not found.state.is_final:
            return answers.pending(202, front_end.placing.place(workflow, found.job_name))
        return finished(front_end, workflow, request_id, reply_of(found))

    def record(workflow: str, request_id: str) -> Request:
        names.check("workflow", workflow)
        if not names.is_request_id(request_id):
            raise RequestNotFound("expected the id of a request: 40 lowercase hex digits")
        found = front_end.threads.call(front_end.parts.results.request, workflow, request_id)
        g.request_id = request_id
        return found

    return blueprint
