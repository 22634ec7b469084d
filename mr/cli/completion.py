"""`mr completion`: the script that teaches a shell to complete `mr`."""

from __future__ import annotations

import click

from mr.cli.command import Command
from mr.cli.output import echo

VARIABLE = "_MR_COMPLETE"
"""What the script sets when it asks `mr` for offers; click looks at it."""


@click.command(
    "completion",
    cls=Command,
    examples=[
        "mr completion bash > ~/.local/share/bash-completion/completions/mr",
        "mr completion zsh > ~/.zfunc/_mr   # with fpath+=~/.zfunc before compinit in .zshrc",
        "mr completion fish > ~/.config/fish/completions/mr.fish",
        'eval "$(mr completion bash)"       # for this shell only',
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell: commands, options, and names from the store."""
    from click.shell_completion import get_completion_class

    from mr.cli.main import program

    found = get_completion_class(shell)
    assert found is not None
    made = found(program, {}, "mr", VARIABLE)
    # Not `source()`, which for bash first asks for its version, and fails where bash is not installed.
    echo(made.source_template % made.source_vars())
