"""`agent-sandbox completion`: the line that teaches a shell our verbs, options and names."""

import click
from click.shell_completion import get_completion_class

PROGRAM = "agent-sandbox"
VARIABLE = "_AGENT_SANDBOX_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete verbs, options, and the names of sandboxes.

    \b
    eval "$(agent-sandbox completion bash)"     # in ~/.bashrc
    eval "$(agent-sandbox completion zsh)"      # in ~/.zshrc, after compinit
    agent-sandbox completion fish > ~/.config/fish/completions/agent-sandbox.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, PROGRAM, VARIABLE).source())
