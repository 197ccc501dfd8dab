"""A real daemon on a free port, and a client for it; for the tests of the contract also the example's runtime."""

import asyncio
import importlib.util
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest

from agent_sandbox.sandboxd import SandboxdOptions, serve

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "python-runtime-sandbox" / "main.py"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A loop that anyio does not recognise between tasks, as under ``asyncio.run`` where sniffio is installed."""
    return {"real": asyncio.SelectorEventLoop}


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
        answer = await self.raw(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
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


@asynccontextmanager
async def running_example(root: Path) -> AsyncIterator[Daemon]:
    """Run ``examples/python-runtime-sandbox/main.py`` on the same directories as the daemon."""
    uvicorn = pytest.importorskip("uvicorn")
    (root / "tmp").mkdir(exist_ok=True)
    (root / "work").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SANDBOX_ROOT", str(root / "work"))
        environment.setenv("SANDBOX_OTHER_ROOTS", str(root / "tmp"))
        spec = importlib.util.spec_from_file_location("example_runtime", EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        config = uvicorn.Config(module.app, log_config=None, access_log=False, lifespan="off")
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # Not serve(): that sees only every tenth of a second that it shall end, and ends a tenth of a second later.
        await server.startup([listener])
        async with anyio.create_task_group() as tasks, aiohttp.ClientSession() as session:
            yield Daemon(root / "work", port, session, tasks)
        for each in server.servers:
            each.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        while server.server_state.connections or server.server_state.tasks:
            await anyio.lowlevel.checkpoint()


@pytest.fixture(params=["sandboxd", "example"])
def run_runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Starts one of the runtimes that keep the contract: ``async with run_runtime() as runtime``."""
    return lambda: running(tmp_path) if request.param == "sandboxd" else running_example(tmp_path)


@pytest.fixture
def run_daemon(tmp_path: Path) -> Any:
    """Starts a daemon: ``async with run_daemon(option=...) as daemon``."""

    def start(**options: Any) -> Any:
        return running(tmp_path, **options)

    return start
