"""Kills a writing server and reads what it left: how durability is tested."""

import subprocess
import sys
from pathlib import Path

import anyio

from agent_sandbox.local.apiserver import ObjectStore, SqliteJournal


async def kill_under_load(writer: Path, folder: Path, *, writes: int, base: int) -> dict[str, int]:
    """Run a writing program, kill it after some acknowledged writes, and return the last value of each object.

    Args:
        writer: a Python program that takes the folder and the base, and prints ``name value`` after each write that
            was acknowledged.
        folder: where its database is.
        writes: kill after so many lines.
        base: the values begin here; higher than any before, so that an old value is not taken for a new one.
    """
    acknowledged: dict[str, int] = {}
    command = [sys.executable, str(writer), str(folder), str(base)]
    async with await anyio.open_process(command, stdin=subprocess.DEVNULL, stderr=None) as process:
        assert process.stdout is not None
        rest = b""
        seen = 0
        killed = False
        async for chunk in process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                name, _, value = line.decode().partition(" ")
                # One object may have been written twice since; the newest counts.
                acknowledged[name] = max(acknowledged.get(name, -1), int(value))
                seen += 1
            if seen >= writes and not killed:
                # What is still in the pipe was acknowledged as well, so reading goes on to the end.
                process.kill()
                killed = True
        await process.wait()
    return acknowledged


async def objects_after(folder: Path) -> dict[str, int]:
    """The values that a server finds when it opens the database again."""
    store = ObjectStore(SqliteJournal(folder / "objects.db"))
    await store.open()
    found = {stored.key.name: int(stored.value["data"]["value"]) for stored in store.objects("configmaps", "default")}
    await store.aclose()
    return found
