"""`agent-sandbox create`: a sandbox that lives until it is removed or its time is over."""

import sys

import click

from agent_sandbox.cli.sandboxes.failures import note
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb, saying
from agent_sandbox.cli.sandboxes.tables import output_option, structured
from agent_sandbox.cli.sandboxes.values import DURATION, PAIR, POOL, SANDBOX, TEMPLATE


@click.command()
@click.argument("name", required=False, type=SANDBOX)
@click.option("--template", type=TEMPLATE, help="SandboxTemplate to make it from.")
@click.option("--pool", type=POOL, help="SandboxWarmPool to take it from; its template need not be named.")
@click.option("--cold", is_flag=True, help="Start it fresh even if a pool of the template has one ready.")
@click.option("-l", "--label", "labels", multiple=True, type=PAIR, help="Label, to find it by. May be repeated.")
@click.option("-e", "--env", "env", multiple=True, type=PAIR, help="Variable, if the template allows it. Starts cold.")
@click.option("--ttl", type=DURATION, help="Remove it after this long. Default: never.")
@click.option("--timeout", type=DURATION, default=180.0, help="How long it may take to be ready. Default: 3m.")
@output_option("json", "yaml", default="name")
@reaching
def create(
    name: str | None,
    template: str | None,
    pool: str | None,
    cold: bool,
    labels: tuple[tuple[str, str], ...],
    env: tuple[tuple[str, str], ...],
    ttl: float | None,
    timeout: float,
    output: str,
    reach: Reach,
) -> None:
    """Make a sandbox, wait until it is ready, and print its name.

    \b
    agent-sandbox create box --template python-sandbox-template --ttl 1h
    BOX=$(agent-sandbox create --pool python-sandbox-warmpool -l team=a)
    """
    warmpool = read_source(template, pool, cold=cold)

    async def work(_: Interruptions) -> None:
        from agent_sandbox.cli.sandboxes.listing import data_of

        async with reach.open(inside=False) as sandboxes:
            async with saying("waiting until the sandbox is ready"):
                made = await sandboxes.create(
                    template,
                    name=name,
                    warmpool=warmpool,
                    labels=dict(labels),
                    env=dict(env),
                    ttl=ttl,
                    ready_timeout=timeout,
                )
            if output == "name":
                click.echo(made.claim_name)
                if sys.stderr.isatty():
                    note(f"Next: agent-sandbox exec -it {made.claim_name}")
            else:
                click.echo(structured(data_of(await sandboxes.get(made.claim_name)), output))

    run_verb(work)


def read_source(template: str | None, pool: str | None, *, cold: bool = False) -> str | None:
    """What the options say of pools, in the SDK's words.

    Raises:
        click.UsageError: they do not say what to make a sandbox from.
    """
    if template is None and pool is None:
        raise click.UsageError("what to make it from? Give --template or --pool; agent-sandbox doctor lists them")
    if cold and pool is not None:
        raise click.UsageError("--cold and --pool contradict each other: leave one out")
    return "none" if cold else pool
