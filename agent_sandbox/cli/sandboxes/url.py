"""`agent-sandbox url`: a link that opens one port of a sandbox for a while."""

from __future__ import annotations

import shlex

import click

from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb
from agent_sandbox.cli.sandboxes.values import DURATION, SANDBOX


@click.command()
@click.argument("name", type=SANDBOX)
@click.argument("port", type=click.IntRange(1, 65535))
@click.argument("path", default="/")
@click.option("--seconds", type=DURATION, default=3600.0, show_default=True, help="How long the link is good.")
@click.option("--prefixed", is_flag=True, help="The program knows its path: /prefixed/<namespace>/<claim>/<port>/.")
@click.option("--curl", is_flag=True, help="Print a command for curl instead, with the credential in a header.")
@reaching
def url(name: str, port: int, path: str, seconds: float, prefixed: bool, curl: bool, reach: Reach) -> None:
    """Print a link to a port of a sandbox. Whoever has it can use that port, and nothing else, until it ends.

    \b
    agent-sandbox url box 8888
    agent-sandbox url box 8888 /lab --seconds 600
    agent-sandbox url box 8888 /execute --curl
    """
    if not path.startswith("/"):
        raise click.BadParameter(f"{path!r} does not begin with a slash", param_hint="PATH")

    async def work(_: Interruptions) -> None:
        async with reach.connect(name) as sandbox:
            if not curl:
                click.echo(await sandbox.ports.signed_url(port, path, seconds=seconds, prefixed=prefixed))
                return
            headers = await sandbox.ports.signed_headers(port, seconds=seconds)
            words = [word for key, value in headers.items() for word in ("-H", f"{key}: {value}")]
            click.echo(shlex.join(["curl", *words, sandbox.ports.url(port) + path]))

    run_verb(work)
