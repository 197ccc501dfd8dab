"""A real node on an in-memory API server, for tests with the marker ``node``."""

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient, NotFoundError
from agent_sandbox.local.apiserver import StatusError
from agent_sandbox.local.node import IsolationError, Node, NodeOptions, trial
from agent_sandbox.local.node.helper_process import end_left_behind
from agent_sandbox.local.node.rootfs import build_root_files
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox_api.core import PODS, PodView
from agent_sandbox_api.core.kinds import ContainerStateDetail

PATIENCE = 100.0
"""Seconds to wait for what shall come, however slow the machine: only what never comes takes them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here, and skip it where the programs are missing."""
    here = Path(__file__).parent
    for item in items:
        if not item.path.is_relative_to(here):
            continue
        item.add_marker(pytest.mark.node)
        try:
            trial.find_tools()
        except IsolationError as error:
            item.add_marker(pytest.mark.skip(reason=str(error)))


@dataclass
class Stack:
    """A node and its API server."""

    server: InMemoryApiServer
    client: KubeClient
    node: Node
    state: Path

    async def create_pod(self, name: str, spec: Mapping[str, Any], **metadata: Any) -> PodView:
        """Create a Pod in the namespace ``default``."""
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}
        await self.server.create(body)
        return await self.client.get(PODS, name, "default")

    async def run_script(self, name: str, script: str, **spec: Any) -> str:
        """Run a shell script in a Pod of its own to its end; its output."""
        container = {"name": "main", "image": "localhost/host", "command": ["/bin/sh", "-c", script]}
        await self.create_pod(name, {"containers": [container], "restartPolicy": "Never", **spec})
        await self.until(name, lambda pod: pod.status.phase in {"Succeeded", "Failed"})
        return await self.log(name, "main")

    async def until(self, name: str, holds: Callable[[PodView], bool]) -> PodView:
        """Wait until a Pod is as wanted."""
        pod = None
        with anyio.move_on_after(PATIENCE):
            while True:
                pod = await self.client.get(PODS, name, "default")
                if holds(pod):
                    return pod
                await anyio.sleep(0.01)
        logs = [path.read_text() for path in self.state.glob("pods/*/logs/*/*.log")]
        raise AssertionError(f"Pod {name} did not become as wanted: {pod}\n{logs}")

    async def until_gone(self, name: str) -> None:
        """Wait until a Pod is gone from the API server."""
        with anyio.fail_after(PATIENCE):
            while True:
                try:
                    await self.client.get(PODS, name, "default")
                except NotFoundError:
                    return
                await anyio.sleep(0.01)

    async def until_ready(self, name: str) -> PodView:
        """Wait until a Pod is Ready."""
        return await self.until(name, lambda pod: pod.ready)

    async def until_troubled(self, name: str) -> ContainerStateDetail:
        """Wait until a container says what it waits for; that."""
        pod = await self.until(
            name,
            lambda pod: any(
                entry.state.waiting is not None and entry.state.waiting.message
                for entry in pod.status.container_statuses
            ),
        )
        return next(entry.state.waiting for entry in pod.status.container_statuses if entry.state.waiting is not None)

    @staticmethod
    async def until_empty(directory: Path) -> None:
        """Wait until a directory is empty."""
        with anyio.fail_after(PATIENCE):
            while await anyio.to_thread.run_sync(lambda: any(directory.iterdir())):  # noqa: ASYNC110 - nobody tells us
                await anyio.sleep(0.01)

    async def delete_pod(self, name: str, **options: Any) -> None:
        """Delete a Pod and wait until it is gone."""
        pod = await self.client.get(PODS, name, "default")
        await self.client.delete(PODS, name, "default", uid=pod.metadata.uid, **options)
        await self.until_gone(name)

    async def delete_while_following(self, name: str, **options: Any) -> tuple[float, str]:
        """Delete a Pod that has printed ``up``: seconds until it was gone, and what ``main`` printed to its end."""
        await self.until_printed(name, "main", "up\n")
        pieces: list[bytes] = []

        async def follow(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            async for piece in await self._log(name, "main", follow=True):
                if not pieces:
                    task_status.started()
                pieces.append(piece)

        async with anyio.create_task_group() as group:
            await group.start(follow)
            began = anyio.current_time()
            await self.delete_pod(name, **options)
            seconds = anyio.current_time() - began
        return seconds, b"".join(pieces).decode()

    async def until_printed(self, name: str, container: str, text: str) -> str:
        """Wait until a container printed a text; all it printed by then."""
        with anyio.fail_after(PATIENCE):
            while True:
                try:
                    output = await self.log(name, container)
                except StatusError:  # it has not started yet
                    output = ""
                if text in output:
                    return output
                await anyio.sleep(0.01)

    async def log(self, name: str, container: str, **options: Any) -> str:
        """What a container printed."""
        return b"".join([piece async for piece in await self._log(name, container, **options)]).decode()

    async def _log(self, name: str, container: str, **options: Any) -> AsyncIterator[bytes]:
        from agent_sandbox.local.apiserver.providers import LogCall

        pod = await self.client.get_object(PODS, name, "default")
        assert self.node.providers.log is not None
        return self.node.providers.log(LogCall(pod, container, **options))

    async def execute(
        self, name: str, container: str, command: Sequence[str], *, stdin: bytes = b"", tty: bool = False
    ) -> "Session":
        """Run a command in a container to its end."""
        from agent_sandbox.local.apiserver.providers import ExecCall

        pod = await self.client.get_object(PODS, name, "default")
        session = Session(stdin)
        call = ExecCall(pod, container, tuple(command), stdin=bool(stdin), stdout=True, stderr=not tty, tty=tty)
        assert self.node.providers.exec is not None
        await self.node.providers.exec(call, session)
        return session

    async def attach(self, name: str, container: str, *, stdin: bytes = b"", tty: bool = False) -> "Session":
        """Attach to a container until it ends."""
        async with self.attached(name, container, stdin=stdin, tty=tty) as session:
            return session

    @asynccontextmanager
    async def attached(
        self, name: str, container: str, *, stdin: bytes = b"", tty: bool = False
    ) -> AsyncIterator["Session"]:
        """Attach to a container beside the block; then wait for its end."""
        from agent_sandbox.local.apiserver.providers import ExecCall

        pod = await self.client.get_object(PODS, name, "default")
        session = Session(stdin)
        call = ExecCall(pod, container, (), stdin=bool(stdin), stdout=True, stderr=not tty, tty=tty)
        attach = self.node.providers.attach
        assert attach is not None

        async def run() -> None:
            await attach(call, session)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            yield session


class Session:
    """The client's end of an exec."""

    def __init__(self, stdin: bytes) -> None:
        from agent_sandbox.local.apiserver.providers import ExecInput, StdinClosed, StdinData

        self._inputs: list[ExecInput] = [StdinData(stdin), StdinClosed()]
        self.out = b""
        self.err = b""
        self.code: int | None = None

    async def receive(self) -> Any:
        if self._inputs:
            return self._inputs.pop(0)
        await anyio.sleep_forever()
        return None

    async def send_stdout(self, data: bytes) -> None:
        self.out += data

    async def send_stderr(self, data: bytes) -> None:
        self.err += data

    async def finish(self, exit_code: int) -> None:
        self.code = exit_code


RunNode = Callable[..., AbstractAsyncContextManager[Stack]]


@asynccontextmanager
async def _running_node(state: Path, server: InMemoryApiServer | None = None, **options: Any) -> AsyncIterator[Stack]:
    if server is None:
        async with InMemoryApiServer() as fresh, _node_of(fresh, state, options) as stack:
            yield stack
    else:
        async with _node_of(server, state, options) as stack:
            yield stack


@asynccontextmanager
async def _node_of(server: InMemoryApiServer, state: Path, options: Mapping[str, Any]) -> AsyncIterator[Stack]:
    client = KubeClient(server.transport())
    node = Node(client, clock=SystemClock(), state_dir=state, options=NodeOptions(**{"stop_grace": 0.2, **options}))
    async with anyio.create_task_group() as group:
        await group.start(node.run)
        try:
            yield Stack(server, client, node, state)
        finally:
            group.cancel_scope.cancel()


@pytest.fixture(scope="session", autouse=True)
def quick_retries() -> Iterator[None]:
    """Pauses after which the node looks again at what nobody tells it of, short enough for tests."""
    with pytest.MonkeyPatch.context() as patch:
        for room in ("claims", "worker", "node"):
            patch.setattr(f"agent_sandbox.local.node.{room}._RETRY", 0.1)
        yield


@pytest.fixture(scope="session")
def root_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Our part of sandboxes' root file system, made once, on a machine that has been seen to isolate.

    What was seen holds for every node of these tests: each would try again, which is half of its start.
    """
    state = tmp_path_factory.mktemp("trial")
    for name in ("pods", "volumes", "images"):
        (state / name).mkdir()
    root = build_root_files(state / "runtime")
    try:
        machine = anyio.run(trial.try_isolation, root, state)
    except IsolationError as error:
        if "refused the rules" in str(error):
            raise  # a fault of ours, which must not look like a machine that lacks something
        pytest.skip(str(error))

    async def seen(*_: object) -> trial.Machine:
        return machine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent_sandbox.local.node.node.try_isolation", seen)
        yield state / "runtime"


@pytest.fixture(scope="session")
def share_root_files(root_files: Path) -> Callable[[Path], None]:
    """Gives a state directory our root files, because making them takes half a second."""

    def share(state: Path) -> None:
        shutil.copytree(root_files, state / "runtime", symlinks=True, copy_function=os.link)

    return share


@pytest.fixture(scope="session")
def node_in() -> RunNode:
    """``async with node_in(state, …) as stack``: a node in a directory of the caller's."""
    return _running_node


@pytest.fixture
def state_dir(tmp_path: Path, share_root_files: Callable[[Path], None]) -> Path:
    """A state directory that has our root files already."""
    state = tmp_path / "node"
    state.mkdir()
    share_root_files(state)
    return state


@pytest.fixture
def run_node(state_dir: Path) -> RunNode:
    """``async with run_node() as stack``: a node that lives as long as the block."""
    return partial(_running_node, state_dir)


class Victim:
    """A node with its API server in a process of its own, which is to be killed (``crash_victim.py``)."""

    def __init__(self, process: anyio.abc.Process, database: Path) -> None:
        self.process = process
        self.database = database
        self.helper = 0
        """Process id of the helper, once it is ready."""
        assert process.stdout is not None
        self._lines = BufferedByteReceiveStream(process.stdout)

    async def until_created(self) -> None:
        """Wait until it is about to create its Pods."""
        assert await self._line() == "created"

    async def until_ready(self) -> None:
        """Wait until the Pods that it was to wait for are Ready."""
        while not (line := await self._line()).startswith("ready"):
            continue
        self.helper = int(line.split()[1])

    async def _line(self) -> str:
        with anyio.fail_after(PATIENCE):
            return (await self._lines.receive_until(b"\n", 1000)).decode()

    async def kill(self) -> None:
        """Kill -9 it; its helper lives on."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


RunVictim = Callable[..., AbstractAsyncContextManager[Victim]]


@pytest.fixture
def run_victim(state_dir: Path, tmp_path: Path) -> Iterator[RunVictim]:
    """``async with run_victim(objects, names, **options) as victim``: a node in ``state_dir`` that may be killed.

    Args: objects to create, names of the Pods to wait for (all of them if None), options of the node.
    """

    @asynccontextmanager
    async def run(
        objects: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None, **options: Any
    ) -> AsyncIterator[Victim]:
        root, database = Path(__file__).parents[2], tmp_path / "objects.db"
        paths = os.pathsep.join([str(root), str(root / "api"), os.environ.get("PYTHONPATH", "")])
        awaited = [entry["metadata"]["name"] for entry in objects if entry["kind"] == "Pod"] if names is None else names
        script = Path(__file__).with_name("crash_victim.py")
        values = [json.dumps(value) for value in (options, objects, awaited)]
        command = [sys.executable, str(script), str(database), str(state_dir), *values]
        async with await anyio.open_process(command, env={**os.environ, "PYTHONPATH": paths}, stderr=None) as process:
            victim = Victim(process, database)
            try:
                yield victim
            finally:
                await victim.kill()

    yield run
    end_left_behind(state_dir)


@pytest.fixture
def is_root() -> bool:
    """Whether the node runs as root, and Pods get uids of their own."""
    return os.geteuid() == 0
