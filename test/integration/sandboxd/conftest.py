"""A real daemon on a free port, and a client for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest

from agent_sandbox.sandboxd import SandboxdOptions, serve


class Daemon:
    """A running daemon."""

    def __init__(self, root: Path, port: int, session: aiohttp.ClientSession, tasks: anyio.abc.TaskGroup) -> None:
        self.root = root
        self.port = port
        self.session = session
        self.tasks = tasks
        self.url = f"http://127.0.0.1:{port}"

    async def execute(self, command: str | list[str], **more: Any) -> dict[str, Any]:
        async with self.session.post(f"{self.url}/execute", json={"command": command, **more}) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def upload(self, name: str, content: bytes) -> tuple[int, dict[str, Any]]:
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", content, filename=name)
        async with self.session.post(f"{self.url}/upload", data=form) as response:
            return response.status, await response.json()

    async def raw(self, request: bytes) -> bytes:
        """Send bytes, read until the daemon closes."""
        async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
            await stream.send(request)
            received = b""
            try:
                while True:
                    received += await stream.receive()
            except anyio.EndOfStream:
                return received

    async def get(self, target: str) -> tuple[int, bytes]:
        """GET of a target, byte for byte."""
        answer = await self.raw(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body


@asynccontextmanager
async def running(root: Path, **options: Any) -> AsyncIterator[Daemon]:
    """Run a daemon whose only other allowed directory is beside its root."""
    settings: dict[str, Any] = {
        "root": root / "work",
        "allowed_roots": (root / "tmp",),
        "port": 0,
        "shutdown_grace": 0.5,
        **options,
    }
    (root / "tmp").mkdir(exist_ok=True)
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve, SandboxdOptions(**settings))
        async with aiohttp.ClientSession() as session:
            yield Daemon(settings["root"], port, session, tasks)
        tasks.cancel_scope.cancel()


@pytest.fixture
def run_daemon(tmp_path: Path) -> Any:
    """Starts a daemon: ``async with run_daemon(option=...) as daemon``."""

    def start(**options: Any) -> Any:
        return running(tmp_path, **options)

    return start
