"""`agent-sandbox suspend`, `resume` and `rm`: what becomes of sandboxes that exist."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from agent_sandbox.cli.sandboxes.failures import FAILED, failure_of, show
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb, saying
from agent_sandbox.cli.sandboxes.values import DURATION, SANDBOX

if TYPE_CHECKING:
    from agent_sandbox.sdk import AsyncSandboxes


@click.command()
@click.argument("names", nargs=-1, required=True, type=SANDBOX)
@click.option("--timeout", type=DURATION, default=180.0, help="How long each may take. Default: 3m.")
@reaching
def suspend(names: tuple[str, ...], timeout: float, reach: Reach) -> None:
    """Stop sandboxes and keep their volumes; returns when their Pods are gone.

    \b
    agent-sandbox suspend box
    """

    async def one(sandboxes: AsyncSandboxes, name: str) -> None:
        async with saying(f"waiting until {name} is suspended"):
            await (await sandboxes.connect(name, ready_timeout=timeout)).suspend(timeout)
        click.echo(f"{name} suspended")

    _for_each(names, reach, one)


@click.command()
@click.argument("names", nargs=-1, required=True, type=SANDBOX)
@click.option("--timeout", type=DURATION, default=180.0, help="How long each may take. Default: 3m.")
@reaching
def resume(names: tuple[str, ...], timeout: float, reach: Reach) -> None:
    """Start suspended sandboxes again; returns when they are ready.

    \b
    agent-sandbox resume box
    """

    async def one(sandboxes: AsyncSandboxes, name: str) -> None:
        async with saying(f"waiting until {name} is ready"):
            await (await sandboxes.connect(name, ready_timeout=timeout)).resume(timeout)
        click.echo(f"{name} resumed")

    _for_each(names, reach, one)


@click.command()
@click.argument("names", nargs=-1, type=SANDBOX)
@click.option("-l", "--selector", default="", help="All that this label selector matches.")
@click.option("--all", "every", is_flag=True, help="All of the namespace.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask; only --all and -l ask, and only on a terminal.")
@click.option("--ignore-not-found", is_flag=True, help="What does not exist is no error.")
@reaching
def rm(names: tuple[str, ...], selector: str, every: bool, yes: bool, ignore_not_found: bool, reach: Reach) -> None:
    """Remove sandboxes with everything in them.

    \b
    agent-sandbox rm box
    agent-sandbox rm -l team=a
    agent-sandbox rm --all --yes
    """
    if bool(names) == (every or bool(selector)):
        raise click.UsageError("which ones? Give names, or -l SELECTOR, or --all")
    wanted = names or run_verb(lambda _: _matching(reach, selector))
    if not names:
        if not wanted:
            click.echo("nothing to remove", err=True)
            return
        if not yes and sys.stdin.isatty():
            click.echo("\n".join(wanted), err=True)
            one_or_many = ("this sandbox", "it") if len(wanted) == 1 else (f"these {len(wanted)} sandboxes", "them")
            click.confirm("Remove {} with everything in {}?".format(*one_or_many), abort=True, err=True)

    async def one(sandboxes: AsyncSandboxes, name: str) -> None:
        from agent_sandbox.sdk import SandboxNotFoundError

        try:
            await sandboxes.delete(name)
        except SandboxNotFoundError:
            if not (ignore_not_found or not names):
                raise
            return
        click.echo(f"{name} removed")

    _for_each(wanted, reach, one)


async def _matching(reach: Reach, selector: str) -> tuple[str, ...]:
    async with reach.open(inside=False) as sandboxes:
        return tuple([info.claim_name async for info in sandboxes.list(label_selector=selector)])


def _for_each(names: tuple[str, ...], reach: Reach, one: Callable[[AsyncSandboxes, str], Awaitable[None]]) -> None:
    """Do it for each name; one that fails does not keep the others from being done."""

    async def work(_: Interruptions) -> bool:
        failed = False
        async with reach.open(inside=False) as sandboxes:
            for name in dict.fromkeys(names):
                try:
                    await one(sandboxes, name)
                except Exception as error:
                    failure = failure_of(error, FAILED)
                    if failure is None:
                        raise
                    show(failure)
                    failed = True
        return failed

    if run_verb(work):
        raise SystemExit(FAILED)
