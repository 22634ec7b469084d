"""The application: Flask with the routes of every noun, over the parts that it is given."""

from __future__ import annotations

from flask import Flask, Response, g

from mr.http import answers, errors, health, jobs, pages, requests
from mr.http.direct import Direct
from mr.http.front_end import FrontEnd

EXTENSION = "mr"
"""Under this name `app.extensions` has the FrontEnd, for the server that drains and closes it."""


def create_app(front_end: FrontEnd) -> Flask:
    """The WSGI application of one process."""
    app = Flask("mr", static_folder=None)
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    app.extensions[EXTENSION] = front_end
    for noun in (health, jobs, pages, requests):
        app.register_blueprint(noun.routes(front_end))
    errors.register(app)

    @app.after_request
    def name_request(response: Response) -> Response:
        if "request_id" in g:
            response.headers.extend(answers.about(g.request_id, front_end.host))
        return response

    app.wsgi_app = Direct(front_end, app.wsgi_app)  # type: ignore[method-assign]  # as Flask's manual has it

    return app
