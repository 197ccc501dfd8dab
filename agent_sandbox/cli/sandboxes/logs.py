"""`agent-sandbox logs`: what the program of a sandbox wrote, or a command that was left running in it."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from agent_sandbox.cli.sandboxes.descriptors import STDERR, STDOUT, write_all
from agent_sandbox.cli.sandboxes.failures import SIGNALLED, Failure
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb
from agent_sandbox.cli.sandboxes.values import DURATION, SANDBOX

if TYPE_CHECKING:
    from agent_sandbox.sdk import AsyncSandbox


@click.command()
@click.argument("name", type=SANDBOX)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many of the last lines.")
@click.option("--since", type=DURATION, help="Only what was written in the last 5m, 1h ...")
@click.option("--timestamps", is_flag=True, help="Put the time before each line.")
@click.option("-p", "--previous", is_flag=True, help="Of the container before its last restart.")
@click.option("-c", "--container", help="Which container, if the Pod has several.")
@click.option("--process", help="Instead: the output of the command that `run -d` printed this id of.")
@reaching
def logs(
    name: str,
    follow: bool,
    tail: int | None,
    since: float | None,
    timestamps: bool,
    previous: bool,
    container: str | None,
    process: str | None,
    reach: Reach,
) -> None:
    """Print the log of a sandbox.

    \b
    agent-sandbox logs box --tail 20
    agent-sandbox logs box -f
    ID=$(agent-sandbox run -d box -- make); agent-sandbox logs box --process $ID -f
    """
    of_container = {"--tail": tail, "--since": since, "--timestamps": timestamps, "-p": previous, "-c": container}
    if process is not None and (foreign := [key for key, value in of_container.items() if value]):
        raise click.UsageError(f"{', '.join(foreign)} and --process do not go together: leave one out")

    async def work(_: Interruptions) -> None:
        async with reach.connect(name, inside=process is not None) as sandbox:
            if process is not None:
                await _print_process(sandbox, process, follow=follow)
                return
            pieces = sandbox.logs(
                container=container, follow=follow, tail=tail, since=since, previous=previous, timestamps=timestamps
            )
            async with aclosing(pieces):
                async for piece in pieces:
                    await write_all(STDOUT, piece)

    try:
        run_verb(work, endless=follow)
    except Failure as failure:
        if isinstance(failure.__cause__, BrokenPipeError):
            raise SystemExit(SIGNALLED + 13) from failure
        raise


async def _print_process(sandbox: AsyncSandbox, process_id: str, *, follow: bool) -> None:
    """All that the daemon still has of its output; then, if it is followed, the rest until its end."""
    process = await sandbox.commands.connect(process_id)
    last = process.info.last_sequence
    if not follow and not last:
        return
    try:
        async for output in process:
            await write_all(STDOUT if output.channel == "stdout" else STDERR, output.data)
            if not follow and output.sequence >= last:
                return
    finally:
        await process.detach()
