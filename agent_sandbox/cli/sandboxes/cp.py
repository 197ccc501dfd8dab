"""`agent-sandbox cp`: files and directories into a sandbox and out of it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent_sandbox.cli.sandboxes.descriptors import STDIN, STDOUT, read_pieces, write_all
from agent_sandbox.cli.sandboxes.failures import SIGNALLED, Failure, note
from agent_sandbox.cli.sandboxes.places import PLACE, Pipe, Place, Remote
from agent_sandbox.cli.sandboxes.progress import Bar, NoBar, transfer_bar
from agent_sandbox.cli.sandboxes.reaching import Reach, reaching
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb
from agent_sandbox.cli.sandboxes.tables import size

if TYPE_CHECKING:
    from agent_sandbox.sdk import AsyncFiles, TransferReport


@click.command()
@click.argument("source", type=PLACE)
@click.argument("target", type=PLACE)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and no summary.")
@reaching
def cp(source: Place, target: Place, quiet: bool, reach: Reach) -> None:
    """Copy a file or a directory; one side is NAME:PATH, and - is standard input or output.

    Each file is checked by its SHA-256 and appears whole under its name, or not at all. A copy that was broken off can
    be repeated: a download goes on where it ended.

    \b
    agent-sandbox cp src box:project
    agent-sandbox cp box:result.tar .
    agent-sandbox cp box:log.txt - | tail
    """
    match source, target:
        case Remote(), Remote():
            raise click.UsageError("one side must be here: copy to a local path first, or through -")
        case Pipe(), Remote(_, path) if path == "." or path.endswith("/"):
            raise click.UsageError("standard input needs the name of a file: NAME:PATH")
        case (Path() | Pipe(), Remote(name, _)) | (Remote(name, _), Path() | Pipe()):
            pass
        case _:
            raise click.UsageError("one side must be in a sandbox, as NAME:PATH; for two local paths use cp")

    async def work(_: Interruptions) -> None:
        async with reach.connect(name) as sandbox:
            with transfer_bar("copying", wanted=not quiet) as bar:
                summary = await _copy(sandbox.files, source, target, bar)
            if summary and not quiet:
                note(summary)

    try:
        run_verb(work)
    except Failure as failure:
        if isinstance(failure.__cause__, BrokenPipeError):
            raise SystemExit(SIGNALLED + 13) from failure
        raise


async def _copy(files: AsyncFiles, source: Place, target: Place, bar: Bar | NoBar) -> str:
    """Copy, and say what was done."""
    match source, target:
        case Path(), Remote():
            return _told(await files.put(source, target.path, on_progress=bar.note), target.path)
        case Remote(), Path():
            return _told(await files.get(source.path, target, on_progress=bar.note), str(target))
        case Pipe(), Remote():
            await files.upload(_standard_input(), target.path, on_progress=bar.count)
        case Remote(), Pipe():
            await _print(files, source.path, bar)
    return ""


def _told(report: TransferReport, target: str) -> str:
    left_out = f"; left out, since they are links or no files: {', '.join(report.skipped)}" if report.skipped else ""
    count = "1 file" if report.files == 1 else f"{report.files} files"
    return f"{count}, {size(report.bytes)} to {target}{left_out}"


async def _standard_input() -> AsyncIterator[bytes]:
    async with aclosing(read_pieces(STDIN)) as pieces:
        async for piece in pieces:
            yield piece


async def _print(files: AsyncFiles, path: str, bar: Bar | NoBar) -> None:
    """Write a file to standard output, and compare what was written with what the sandbox has."""
    from agent_sandbox.sdk import UnsupportedByRuntimeError

    digest, done = hashlib.sha256(), 0
    async with aclosing(files.stream(path)) as pieces:
        async for piece in pieces:
            await write_all(STDOUT, piece)
            digest.update(piece)
            done += len(piece)
            bar.count(done)
    try:
        expected = await files.sha256(path)
    except UnsupportedByRuntimeError:
        return  # an image without our daemon has no checksums
    if expected and expected != digest.hexdigest():
        raise Failure(f"{path} was changed while it was read: what was written is not what is there now. Try again")
