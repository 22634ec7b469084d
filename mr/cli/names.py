"""How commands name things: the arguments that many of them share, and what a shell may offer for them.

Offers come from the store, within 0.3 s or not at all: a shell that waits for a server is worse than one that offers
nothing. So they are looked up in a thread that is left behind when it takes too long, and whatever goes wrong is
silence. A store that is a file is never made for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mr.errors import MrError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from mr.wiring import Parts

F = TypeVar("F", bound=Callable[..., Any])
Look = Callable[["Parts", click.Context, str], Iterable[str]]

PATIENCE_S = 0.3
OFFERED_MAX = 100


def offered(look: Look) -> Callable[[click.Context, click.Parameter, str], list[str | CompletionItem]]:
    """What a shell offers for the beginning of a word: of what `look` finds, what begins so."""

    def offer(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str | CompletionItem]:
        found: list[str] = []
        thread = threading.Thread(target=lambda: found.extend(_look(look, ctx, incomplete)), daemon=True)
        thread.start()
        thread.join(PATIENCE_S)
        return [*sorted(name for name in found if name.startswith(incomplete))[:OFFERED_MAX]]

    return offer


def _look(look: Look, ctx: click.Context, incomplete: str) -> list[str]:
    from mr.settings import Settings
    from mr.wiring import Parts

    try:
        settings = Settings.from_env(os.environ)
        url = settings.store.url
        if url.kind == "sqlite" and not os.path.exists(url.path):
            return []
        parts = Parts(settings)
        try:
            return list(look(parts, ctx, incomplete))
        finally:
            parts.close()
    except MrError:
        return []


def _workflow(ctx: click.Context) -> str:
    return str(ctx.params.get("workflow") or "")


def _workflows(parts: Parts, ctx: click.Context, incomplete: str) -> Iterable[str]:
    return parts.registry.list_workflows()


def _handlers(parts: Parts, ctx: click.Context, incomplete: str) -> Iterable[str]:
    return parts.registry.current(_workflow(ctx))[2].handlers


def _steps(parts: Parts, ctx: click.Context, incomplete: str) -> Iterable[str]:
    return parts.registry.current(_workflow(ctx))[2].steps


def _jobs(parts: Parts, ctx: click.Context, incomplete: str) -> Iterable[str]:
    return parts.registry.current(_workflow(ctx))[2].jobs


def _jobs_of_all(parts: Parts, ctx: click.Context, incomplete: str) -> Iterable[str]:
    begin, slash, _ = incomplete.partition("/")
    workflows = [begin] if slash else parts.registry.list_workflows()
    return [f"{w}/{job}" for w in workflows for job in parts.registry.current(w)[2].jobs]


def _requests(parts: Parts, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Ids by their beginning; with `w/` in front if they were begun so."""
    begin, slash, digits = incomplete.rpartition("/")
    for w in [begin] if slash else parts.registry.list_workflows():
        yield from (f"{begin}{slash}{r}" for r in parts.results.ids(w, digits, limit=OFFERED_MAX))


workflow_argument: Callable[[F], F] = click.argument("workflow", shell_complete=offered(_workflows))
any_workflow_argument: Callable[[F], F] = click.argument("workflow", required=False, shell_complete=offered(_workflows))
handler_argument: Callable[[F], F] = click.argument("name", shell_complete=offered(_handlers))
step_argument: Callable[[F], F] = click.argument("name", shell_complete=offered(_steps))
initial_step_argument: Callable[[F], F] = click.argument("initial_step", metavar="STEP", shell_complete=offered(_steps))
job_argument: Callable[[F], F] = click.argument("name", metavar="JOB", shell_complete=offered(_jobs))
job_path_argument: Callable[[F], F] = click.argument(
    "job", metavar="WORKFLOW/JOB", shell_complete=offered(_jobs_of_all)
)
workflow_name_argument: Callable[[F], F] = click.argument("name", shell_complete=offered(_workflows))


def place_argument(name: str) -> Callable[[F], F]:
    """A path on the shared file system of a workflow."""
    return click.argument(name, metavar="WORKFLOW[:PATH]", shell_complete=offered(_workflows))


def _collections(parts: Parts, ctx: click.Context, incomplete: str) -> Iterable[str]:
    """Workflows, and behind one its collections."""
    w, colon, _ = incomplete.partition(":")
    if not colon:
        return parts.registry.list_workflows()
    return [f"{w}:{kind}/{name}" for kind, name in parts.collections.names(w)]


collection_argument: Callable[[F], F] = click.argument(
    "place", metavar="WORKFLOW[:PLACE]", shell_complete=offered(_collections)
)
request_argument: Callable[[F], F] = click.argument("name", metavar="REQUEST", shell_complete=offered(_requests))
"""An id, its first digits (4 or more), or `WORKFLOW/ID`; `Tracing.find` understands all three."""
requests_argument: Callable[[F], F] = click.argument(
    "names", metavar="REQUEST...", nargs=-1, required=True, shell_complete=offered(_requests)
)


def role_argument(role: str, metavar: str) -> Callable[[F], F]:
    """A handler in a step, by its role."""
    return click.argument(role, metavar=metavar, shell_complete=offered(_handlers))


def role_option(role: str, text: str) -> Callable[[F], F]:
    """Another handler for a step, by its role."""
    return click.option(f"--{role}", metavar="HANDLER", help=text, shell_complete=offered(_handlers))
