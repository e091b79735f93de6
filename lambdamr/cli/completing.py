"""`lambdamr completion`: what makes a shell complete commands, options and jobs."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print a shell's completion script.

    It completes commands, options and the ids of jobs.

    \b
    Examples:
      lambdamr completion bash >> ~/.bashrc
      lambdamr completion fish > ~/.config/fish/completions/lambdamr.fish
    """
    from lambdamr.cli import cli

    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"click has no completion for {shell}.")
    click.echo(made(cli, {}, "lambdamr", "_LAMBDAMR_COMPLETE").source())
    return 0
