"""The application: Flask with the routes of every noun, over the parts that it is given."""

from __future__ import annotations

from flask import Flask, Response, g

from mr.http import errors, health, jobs, requests
from mr.http.front_end import FrontEnd

EXTENSION = "mr"
"""Under this name `app.extensions` has the FrontEnd, for the server that drains and closes it."""


def create_app(front_end: FrontEnd) -> Flask:
    """The WSGI application of one process."""
    app = Flask("mr", static_folder=None)
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    app.extensions[EXTENSION] = front_end
    for noun in (health, jobs, requests):
        app.register_blueprint(noun.routes(front_end))
    errors.register(app)

    @app.after_request
    def name_request(response: Response) -> Response:
        # JobX's two headers, on every answer about a request that exists or may exist.
        if "request_id" in g:
            response.headers["X-MR-REQUEST-ID"] = g.request_id
            response.headers["X-FULFILLED-BY"] = front_end.host
        return response

    return app
