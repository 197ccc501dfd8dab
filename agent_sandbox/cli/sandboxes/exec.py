"""`agent-sandbox exec`: a command, or a shell, in a sandbox that exists."""

from typing import Any

import click

from agent_sandbox.cli.sandboxes.command_options import CommandVerb, command_options, read_command
from agent_sandbox.cli.sandboxes.execution import execute, start
from agent_sandbox.cli.sandboxes.failures import TOOL_FAILED
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb
from agent_sandbox.cli.sandboxes.values import SANDBOX


@click.command(name="exec", cls=CommandVerb, context_settings={"allow_interspersed_args": False})
@click.argument("name", type=SANDBOX)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[--] [COMMAND]...")
@command_options
@reaching
def exec_(name: str, words: tuple[str, ...], reach: Reach, **options: Any) -> None:
    """Run a command in a sandbox; with -it on this terminal, without a command a shell.

    The terminal is as it was before however this ends. If the sandbox hangs: Enter, then ~. (tilde, dot).

    \b
    agent-sandbox exec -it box
    agent-sandbox exec -it box -- vi notes.txt
    agent-sandbox exec box -- env
    """
    command = read_command(words, **options)

    async def work(interruptions: Interruptions) -> int:
        async with reach.connect(name) as sandbox:
            if options["detach"]:
                click.echo(await start(sandbox, command))
                return 0
            return await execute(sandbox, command, interruptions)

    raise SystemExit(run_verb(work, status=TOOL_FAILED))
