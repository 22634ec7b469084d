"""What JobX's scripts share: how one is made of a function, and how entities are printed.

Entities are `{"entity_name", "primary_key", "data"}`, indented by 4.
"""

from __future__ import annotations

import pprint
from collections.abc import Callable, Mapping
from typing import Any

import click
import msgspec

from mr.cli.command import Command
from mr.cli.output import document, echo

COMMANDS: dict[str, click.Command] = {}
"""Every script by its name, as far as its module has been imported."""


def script(*arguments: str, example: str) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Make a console script of a function with these positional arguments, and whatever options it has."""

    def make(function: Callable[..., Any]) -> Callable[[], None]:
        name = function.__name__
        for argument in reversed(arguments):
            function = click.argument(argument)(function)
        command = click.command(name, cls=Command, examples=[f"{name} {example}".rstrip()])(function)
        COMMANDS[name] = command

        def main() -> None:
            command.main(prog_name=name)

        main.__name__, main.__doc__ = name, function.__doc__
        return main

    return make


def entity(name: str, primary_key: Mapping[str, str], data: msgspec.Struct) -> None:
    """Print one entity."""
    document({"entity_name": name, "primary_key": dict(primary_key), "data": data}, indent=4)


def listing(found: Mapping[str, msgspec.Struct], *, without: str = "") -> None:
    """Print entities: `name:`, then a pretty-printed dict."""
    for name, one in found.items():
        built = msgspec.to_builtins(one)
        echo(f"{name}:")
        echo(pprint.pformat({key: value for key, value in built.items() if key != without}))
        echo()


def simulation() -> None:
    """Say that nothing is changed, as JobX's scripts began then."""
    echo("SIMULATION ONLY")
    echo()
