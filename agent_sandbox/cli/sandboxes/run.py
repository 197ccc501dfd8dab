"""`agent-sandbox run`: one command, in a fresh sandbox or in one that exists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from agent_sandbox.cli.sandboxes.command_options import CommandVerb, Mistake, command_options, read_command
from agent_sandbox.cli.sandboxes.execution import execute, start
from agent_sandbox.cli.sandboxes.failures import TOOL_FAILED, note
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb, saying
from agent_sandbox.cli.sandboxes.values import POOL, SANDBOX, TEMPLATE

if TYPE_CHECKING:
    from agent_sandbox.sdk import AsyncSandbox, AsyncSandboxes

LEASE_SECONDS: Final = 120.0
"""A fresh sandbox lives that long after this process died without a chance to remove it."""

READY_SECONDS: Final = 180.0
"""How long a fresh sandbox is waited for."""


@click.command(cls=CommandVerb, context_settings={"allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SANDBOX] [--] COMMAND...")
@click.option("--template", type=TEMPLATE, help="Run it in a fresh sandbox of this template, removed afterwards.")
@click.option("--pool", type=POOL, help="Run it in a fresh sandbox from this pool, removed afterwards.")
@click.option("--keep", is_flag=True, help="Keep the fresh sandbox, and print its name on standard error.")
@command_options
@reaching
def run(
    words: tuple[str, ...], template: str | None, pool: str | None, keep: bool, reach: Reach, **options: Any
) -> None:
    """Run a command and be what it was: its output, its errors, its exit status.

    With --template or --pool all words are the command. Without, the first is the name of a sandbox.
    The tool's own failures have the exit statuses 124 to 127; docs/cli.md lists them.

    \b
    agent-sandbox run --template python-sandbox-template -- python -c 'print(42)'
    agent-sandbox run box -- sh -c 'ls | wc -l'
    tar c src | agent-sandbox run box tar x
    """
    fresh = template is not None or pool is not None
    name = None if fresh else read_name(words)
    command = read_command(words if fresh else words[1:], **options)
    if keep and not fresh:
        raise Mistake("--keep goes with --template or --pool: a sandbox that exists is kept anyway")
    if options["detach"] and fresh and not keep:
        raise Mistake("-d in a fresh sandbox needs --keep: the sandbox would be removed under the command")

    async def work(interruptions: Interruptions) -> int:
        if name is not None:
            async with reach.connect(name) as sandbox:
                return await _do(sandbox, interruptions)
        async with reach.open() as sandboxes, fresh_sandbox(sandboxes, template, pool, keep=keep) as sandbox:
            return await _do(sandbox, interruptions)

    async def _do(sandbox: AsyncSandbox, interruptions: Interruptions) -> int:
        if not options["detach"]:
            return await execute(sandbox, command, interruptions)
        click.echo(await start(sandbox, command))
        return 0

    raise SystemExit(run_verb(work, status=TOOL_FAILED))


def read_name(words: tuple[str, ...]) -> str:
    """The sandbox that is named first.

    Raises:
        click.UsageError: none is.
    """
    if not words or words[0] == "--":
        raise Mistake("in which sandbox? Name one (agent-sandbox ls), or give --template for a fresh one")
    try:
        return SANDBOX.convert(words[0], None, None)
    except click.UsageError as error:
        raise Mistake(error.message) from error


@asynccontextmanager
async def fresh_sandbox(
    sandboxes: AsyncSandboxes, template: str | None, pool: str | None, *, keep: bool
) -> AsyncIterator[AsyncSandbox]:
    """A sandbox for one command, which ends with it or, by its heartbeat, soon after this process; or one to keep."""
    async with AsyncExitStack() as stack:
        async with saying("waiting until the sandbox is ready"):
            if keep:
                sandbox = await sandboxes.create(template, warmpool=pool)
            else:
                # The heartbeat begins when it is ready; until then it must not expire.
                lent = sandboxes.use(
                    template, warmpool=pool, ttl=LEASE_SECONDS + READY_SECONDS, ready_timeout=READY_SECONDS
                )
                sandbox = await stack.enter_async_context(lent)
        if keep:
            note(sandbox.claim_name)
        else:
            # Not by ``use``: its tasks, begun inside what is said while waiting, could not outlive that.
            await stack.enter_async_context(sandbox.heartbeat(LEASE_SECONDS))
        yield sandbox
