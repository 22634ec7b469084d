"""`/ui/job/`: pages for people, that list the jobs and post one.

What stands on a page comes from whoever defines workflows, so templates escape all of it, and the browser is told to
run and load nothing but the files below `/s/`. Posting is the page's own script: the same POST as everybody's, which
no page of another site can make without being asked first, because its content type is JSON.
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response, make_response, render_template, request

from mr import __version__
from mr.errors import MrError, UnknownJob
from mr.http.errors import status_of
from mr.http.front_end import FrontEnd
from mr.model import names
from mr.services.registry import Registry

WORKFLOWS_MAX = 100
"""Workflows on one page; the next page begins after the last of them."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Shelf(msgspec.Struct, frozen=True):
    """A workflow on the page, and its jobs as (name, description)."""

    name: str
    description: str
    jobs: list[tuple[str, str]]


class Form(msgspec.Struct, frozen=True):
    """A job on its page: what it is, and what it begins with."""

    workflow: str
    job: str
    description: str
    step: str
    step_description: str
    mapper: str
    mapper_description: str


def routes(front_end: FrontEnd) -> Blueprint:
    """The routes of the pages."""
    blueprint = Blueprint("pages", __name__, template_folder="templates", static_folder="static", static_url_path="/s")
    registry, call = front_end.parts.registry, front_end.threads.call

    @blueprint.get("/ui/job/")
    def jobs() -> Response:
        after = request.args.get("after", "")
        shelves = call(shelves_of, registry, after)
        more = shelves[-1].name if len(shelves) == WORKFLOWS_MAX else ""
        return page("jobs.html", shelves=shelves, after=after, more=more)

    @blueprint.get("/ui/job/<workflow>/<job>")
    def job(workflow: str, job: str) -> Response:
        form = call(form_of, registry, workflow, job)
        return page("job.html", form=form, warning=str(front_end.placing.place(workflow, job)))

    @blueprint.errorhandler(MrError)
    def problem(error: MrError) -> Response:
        answer = page("problem.html", error=error)
        answer.status_code = status_of(error)
        return answer

    @blueprint.after_request
    def guard(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    def page(template: str, **values: object) -> Response:
        answer = make_response(render_template(template, version=__version__, host=front_end.host, **values))
        answer.headers["Cache-Control"] = "no-store"
        return answer

    return blueprint


def shelves_of(registry: Registry, after: str) -> list[Shelf]:
    """Workflows in the order of their names, those after a name, with their jobs. Raises: StoreUnavailable."""
    wanted = [(name, one) for name, one in registry.list_workflows().items() if name > after][:WORKFLOWS_MAX]
    shelves = []
    for name, workflow in wanted:
        try:
            found = registry.list_jobs(name)
        except MrError as error:
            if status_of(error) != 404:
                raise
            continue  # it has just been removed
        shelves.append(Shelf(name, workflow.description, [(job, one.description) for job, one in found.items()]))
    return shelves


def form_of(registry: Registry, workflow: str, job: str) -> Form:
    """What the page of a job says. Raises: UnknownWorkflow, UnknownJob, InvalidName; StoreUnavailable."""
    names.check("workflow", workflow)
    names.check("job", job)
    _, _, now = registry.current(workflow)
    step = now.jobs.get(job)
    if step is None:
        raise UnknownJob(f"workflow {workflow!r} has no job {job!r}")
    mapper = now.steps[step].mapper
    return Form(
        workflow=workflow,
        job=job,
        description=registry.get_job(workflow, job).description,
        step=step,
        step_description=registry.get_step(workflow, step).description,
        mapper=mapper,
        mapper_description=registry.handler(workflow, now.handlers[mapper].version).description,
    )
