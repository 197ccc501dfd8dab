"""The daemon as PID 1 of a sandbox: it takes in orphans and stops in order."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.abc
import anyio.lowlevel
import pytest

UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]


def may_unshare() -> bool:
    """Whether this machine lets us make a process namespace."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


pytestmark = [pytest.mark.node, pytest.mark.skipif(not may_unshare(), reason="no process namespaces here")]


@asynccontextmanager
async def daemon_as_init(root: Path) -> AsyncIterator[tuple[anyio.abc.Process, str, aiohttp.ClientSession]]:
    daemon = [sys.executable, "-m", "agent_sandbox.sandboxd", "--root", str(root), "--port", "0"]
    async with await anyio.open_process([*UNSHARE, *daemon], stdout=None, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        line = b""
        with anyio.fail_after(60):
            while b" serves " not in line:
                line += await process.stderr.receive()
        port = line.split(b"127.0.0.1:")[1].split()[0].decode()
        async with aiohttp.ClientSession() as session:
            yield process, f"http://127.0.0.1:{port}", session
        if process.returncode is None:
            process.kill()


async def execute(session: aiohttp.ClientSession, url: str, command: str) -> dict[str, Any]:
    async with session.post(url + "/execute", json={"command": ["sh", "-c", command]}) as response:
        answer: dict[str, Any] = await response.json()
        return answer


async def test_orphans_are_reaped_and_commands_keep_their_exit_codes(tmp_path: Path) -> None:
    orphans = "for i in 1 2 3 4 5; do (setsid sh -c 'exec sleep 0.01' &) ; done; exit 4"
    async with daemon_as_init(tmp_path) as (_, url, session):
        codes = [(await execute(session, url, orphans))["exit_code"] for _ in range(10)]
        with anyio.fail_after(60):
            while "Z" in (states := (await execute(session, url, "cat /proc/[0-9]*/stat | cut -d' ' -f3"))["stdout"]):
                assert states
        own = await execute(session, url, "cat /proc/1/cmdline | tr '\\0' ' '")

    assert codes == [4] * 10
    assert "agent_sandbox.sandboxd" in own["stdout"]


async def test_sigterm_is_passed_on_and_the_daemon_ends_well(tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = []
    async with daemon_as_init(tmp_path) as (process, url, session):

        async def run() -> None:
            script = "trap 'echo bye; exit 7' TERM; echo > ready; while :; do sleep 0.02; done"
            answers.append(await execute(session, url, script))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            with anyio.fail_after(60):
                while not await anyio.Path(tmp_path / "ready").exists():
                    await anyio.lowlevel.checkpoint()
            children = await anyio.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            subprocess.run(["kill", "-TERM", *children.split()], check=True)  # noqa: ASYNC221 - it takes no time
        with anyio.fail_after(60):
            code = await process.wait()

    assert (answers[0]["stdout"], answers[0]["exit_code"]) == ("bye\n", 7)
    assert code == 0
