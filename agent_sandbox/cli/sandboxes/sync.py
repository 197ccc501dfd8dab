"""`agent-sandbox sync`: a directory here and one in a sandbox made equal, once or again and again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import click

from agent_sandbox.cli.sandboxes.failures import Failure, note
from agent_sandbox.cli.sandboxes.places import PLACE, Pipe, Place, Remote
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb
from agent_sandbox.cli.sandboxes.values import DURATION

if TYPE_CHECKING:
    from agent_sandbox.sdk import SyncReport


@click.command()
@click.argument("local", type=click.Path(file_okay=False, path_type=Path))
@click.argument("remote", type=PLACE, metavar="NAME:PATH")
@click.option("--up", "direction", flag_value="up", help="This side is right: only upload.")
@click.option("--down", "direction", flag_value="down", help="The sandbox is right: only download.")
@click.option("--delete", is_flag=True, help="What was removed on one side is removed on the other.")
@click.option("--prefer", type=click.Choice(["local", "remote"]), help="Who wins where both changed. Default: nobody.")
@click.option("--ignore", multiple=True, help="Pattern to leave alone, as in .gitignore. May be repeated.")
@click.option("-w", "--watch", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--interval", type=DURATION, default=2.0, help="With --watch: look for changes this often. Default: 2s.")
@click.option("-q", "--quiet", is_flag=True, help="Print conflicts only.")
@reaching
def sync(
    local: Path,
    remote: Place,
    direction: Literal["up", "down"] | None,
    delete: bool,
    prefer: Literal["local", "remote"] | None,
    ignore: tuple[str, ...],
    watch: bool,
    interval: float,
    quiet: bool,
    reach: Reach,
) -> None:
    """Make a directory here and one in a sandbox equal, both ways.

    What changed since the last time is told by .agent-sandbox-sync.json in the local directory; .sandboxignore there
    says what is left alone. A file that changed on both sides stays as it is on both, and the exit status is 1.

    \b
    agent-sandbox sync project box:project
    agent-sandbox sync project box:project --watch --prefer local
    agent-sandbox sync results box:out --down --delete
    """
    if not isinstance(remote, Remote):
        example = "-" if isinstance(remote, Pipe) else str(remote)
        raise click.UsageError(f"{example} is in no sandbox: write NAME:PATH")

    async def work(_: Interruptions) -> SyncReport:
        async with reach.connect(remote.name) as sandbox:
            options: dict[str, Any] = {"delete": delete, "prefer": prefer, "ignore": ignore}
            while True:
                report = await sandbox.files.sync(local, remote.path, direction=direction or "both", **options)
                _tell(report, quiet=quiet, always=not watch)
                if not watch:
                    return report
                await anyio.sleep(interval)

    report = run_verb(work, endless=watch)
    if report.conflicts:
        raise Failure(
            f"{len(report.conflicts)} files changed on both sides and were left alone. "
            "Decide with --prefer local or --prefer remote"
        )


def _tell(report: SyncReport, *, quiet: bool, always: bool) -> None:
    done = {
        "uploaded": report.uploaded,
        "downloaded": report.downloaded,
        "removed here": report.removed_local,
        "removed in the sandbox": report.removed_remote,
    }
    if not quiet:
        for what, paths in done.items():
            for path in paths:
                click.echo(f"{what}: {path}")
        if always and not any(done.values()) and not report.conflicts:
            note("nothing to do: both sides are equal")
    for path in report.conflicts:
        note(f"conflict: {path}")
