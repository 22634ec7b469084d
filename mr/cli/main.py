"""`mr`: the program. It knows where its commands are and imports the one that is asked for."""

from __future__ import annotations

import click

from mr import __version__
from mr.cli.command import Command, Place, Program, nested
from mr.cli.output import echo

PLACES = {
    "dev": Place("mr.cli.dev:dev", "Front end and worker in one command, to try things."),
    "run": Place("mr.cli.run:run", "Submit a job, wait, and print its result."),
    "workflow": Place("mr.cli.workflow:workflow", "Containers of jobs, steps, handlers, requests."),
    "handler": Place("mr.cli.handler:handler", "The code of mappers, combiners, reducers."),
    "step": Place("mr.cli.step:step", "What binds a mapper, a combiner and a reducer."),
    "job": Place("mr.cli.job:job", "What clients post to."),
    "request": Place("mr.cli.request:request", "Accepted postings: look, wait, dump, cancel, remove."),
    "tree": Place("mr.cli.tree:tree", "The invocations of a request as a tree."),
    "graph": Place("mr.cli.graph:graph", "A request as a picture, or as DOT."),
    "timeline": Place("mr.cli.timeline:timeline", "When what of a request ran on which worker."),
    "why": Place("mr.cli.why:why", "What a request waits for, or why it failed."),
    "invocation": Place("mr.cli.invocation:invocation", "One invocation of a request."),
    "logs": Place("mr.cli.prints:logs", "What the handlers of a request printed."),
    "fs": Place("mr.cli.fs:fs", "The file system that handlers share."),
    "collections": Place("mr.cli.collections:collections", "Queues and trees that handlers share."),
    "status": Place("mr.cli.status:status", "Workers, and what is waiting."),
    "doctor": Place("mr.cli.doctor:doctor", "Whether all is as it should be, and what to do."),
    "config": Place("mr.cli.config:config", "The settings and where they come from."),
    "completion": Place("mr.cli.completion:completion", "The script that completes mr in a shell."),
    "web": Place("mr.cli.processes:web", "The front end."),
    "worker": Place("mr.cli.processes:worker", "A worker."),
    "help": Place("mr.cli.main:help_command", "The help of a command: mr help handler sync."),
}


@click.command(
    "help",
    cls=Command,
    examples=["mr help", "mr help handler sync"],
    context_settings={"ignore_unknown_options": True},
)
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@click.pass_context
def help_command(ctx: click.Context, names: tuple[str, ...]) -> None:
    """Show the help of a command."""
    root = ctx.find_root()
    top = click.Context(program, info_name=root.info_name, color=root.color)
    echo(nested(program, top, names).get_help())


@click.group(
    "mr",
    cls=Program,
    places=PLACES,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=[
        "mr dev",
        'mr workflow create words "Words of texts"',
        "mr handler sync words handlers",
        "mr run words/wordcount a='to be or not to be'",
        "mr tree 3f2a",
    ],
)
@click.version_option(__version__, prog_name="mr", message="%(prog)s %(version)s")
def program() -> None:
    """Map me. Reduce me. A distributed MapReduce job service.

    Commands act on the configured store and broker directly; see `mr config show`.
    """


def main() -> None:
    """Run `mr` with the arguments of this process."""
    program.main(prog_name="mr")


if __name__ == "__main__":
    main()
