"""The form of all commands: lazily imported, with examples at the end of their help, and errors as `exits` says.

`mr --help` must not pay for what it does not use, so the top command knows names, places and short texts only, and
a noun's module is imported when one of its commands is run or explained.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click
import msgspec

from mr.cli.exits import conclude
from mr.cli.output import echo, wants_colour

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Examples:
    """Help that ends with examples; each is one command line."""

    examples: Sequence[str] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them."""
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Command(Examples, click.Command):
    """A command with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run as a program."""
        extra["standalone_mode"] = False
        conclude(lambda: super(Command, self).main(*args, **extra))


class Noun(Examples, click.Group):
    """A group of verbs; without one it shows its help."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = examples

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without anything to parse, help and end well."""
        if not args and not ctx.resilient_parsing:
            echo(ctx.get_help())
            ctx.exit(0)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one may have been meant."""
        name = args[0]
        command = self.get_command(ctx, name)
        if command is None and ctx.resilient_parsing:
            return None, None, args[1:]  # a shell asks for completions of something misspelt
        if command is None:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            meant = f"; did you mean {ctx.command_path} {near[0]}?" if near else ""
            ctx.fail(f"there is no command {ctx.command_path} {name}{meant}")
        return name, command, args[1:]


class Place(msgspec.Struct, frozen=True):
    """Where a command is: `module:attribute`, and its help in a few words, readable without importing it."""

    path: str
    short_help: str


class Program(Noun):
    """The top command, whose own commands are imported when they are needed."""

    def __init__(self, *args: Any, places: Mapping[str, Place], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.places = places

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were given."""
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        place = self.places.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.path.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer commands without importing them."""
        from click.shell_completion import CompletionItem

        offers = [
            CompletionItem(name, help=place.short_help)
            for name, place in self.places.items()
            if name.startswith(incomplete)
        ]
        return offers + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.short_help) for name, place in self.places.items()])

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run as a program."""
        extra["standalone_mode"] = False
        if not wants_colour(os.environ):
            extra["color"] = False
        conclude(lambda: super(Program, self).main(*args, **extra))


def nested(command: click.Command, ctx: click.Context, names: Iterable[str]) -> click.Context:
    """The context of a command further down, as `mr help handler sync` names it.

    Raises: UsageError if there is none.
    """
    for name in names:
        if not isinstance(command, click.Group):
            ctx.fail(f"{ctx.command_path} has no command {name}")
        _, found, _ = command.resolve_command(ctx, [name])
        assert found is not None
        ctx = click.Context(found, info_name=name, parent=ctx)
        command = found
    return ctx
