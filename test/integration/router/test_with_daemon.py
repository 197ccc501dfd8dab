"""The router before the real daemon: what an agent does all day."""

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest

from agent_sandbox.sandboxd import SandboxdOptions, serve


@pytest.fixture
def run_both(run_router: Any, tmp_path: Path) -> Any:
    """Starts a daemon behind a router: ``async with run_both() as (session, url)``."""

    @asynccontextmanager
    async def start() -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
        async with run_router() as place, anyio.create_task_group() as tasks:
            port = await tasks.start(serve, SandboxdOptions(root=tmp_path, port=0, shutdown_grace=0.5))
            place.learn_of_pod("box")
            headers = {"X-Sandbox-ID": "box", "X-Sandbox-Port": str(port)}
            async with aiohttp.ClientSession(headers=headers) as session:
                yield session, f"http://{place.host}:{place.port}"
            tasks.cancel_scope.cancel()

    return start


async def test_seeds_example_through_the_router(run_both: Any, tmp_path: Path) -> None:
    async with run_both() as (session, url):
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", b"print('Hello')", filename="test.py")
        async with session.post(url + "/upload", data=form) as response:
            assert response.status == 200
        async with session.post(url + "/execute", json={"command": "python3 test.py"}) as response:
            answer = await response.json()
        async with session.get(url + "/download/test.py", headers={"Range": "bytes=0-4"}) as response:
            part = await response.read()

    assert answer["stdout"] == "Hello\n"
    assert part == b"print"


async def test_stream_of_a_process_through_the_router(run_both: Any) -> None:
    async with run_both() as (session, url), session.ws_connect(url + "/v1/exec") as socket:
        await socket.send_str(json.dumps({"argv": ["cat"], "stdin": True}))
        assert (await socket.receive_json())["type"] == "process"
        await socket.send_bytes(struct.pack(">Q", 0) + b"through and back")
        piece = await socket.receive_bytes()
        await socket.send_str(json.dumps({"type": "stdin_eof"}))
        end = await socket.receive_json()
        closed = await socket.receive()

    assert piece[9:] == b"through and back"
    assert end["process"]["exit_code"] == 0
    assert closed.type is aiohttp.WSMsgType.CLOSE


async def test_client_that_leaves_ends_its_command_behind_the_router(run_both: Any, tmp_path: Path) -> None:
    command = ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"]
    async with run_both() as (session, url):
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                await session.post(url + "/execute", json={"command": command})

            tasks.start_soon(ask)
            with anyio.fail_after(60):
                while not (pid := read(tmp_path / "pid")):
                    await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(60):
            while lives(pid):
                await anyio.lowlevel.checkpoint()


def read(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
