"""A real router before scripted sandboxes: raw sockets on both sides, so that every byte can be looked at."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import msgspec
import pytest

from agent_sandbox.router import Directory, Router, RouterOptions
from agent_sandbox.runtime.store import Change
from agent_sandbox_api.access import AccessKey
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS

Behaviour = Callable[["Visit"], Awaitable[None]]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """A loop that anyio does not recognise between tasks, as under ``asyncio.run`` where sniffio is installed."""
    return {"real": asyncio.SelectorEventLoop}


def owner(kind: str, uid: str, *, group: str = "extensions.agents.x-k8s.io") -> dict[str, Any]:
    return {"apiVersion": f"{group}/v1alpha1", "kind": kind, "name": "x", "uid": uid, "controller": True}


def sandbox(
    name: str, uid: str = "", *, owners: list[Any] | None = None, namespace: str = "default", **more: Any
) -> Any:
    body: dict[str, Any] = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"{name}-uid",
            "ownerReferences": owners or [],
        },
        "spec": {"podTemplate": {"spec": {}}},
    }
    for key, value in more.items():
        body[key] = {**body.get(key, {}), **value}
    return SANDBOXES.decode(encode(body))


def claim(
    name: str, sandbox_name: str | None, uid: str = "", *, annotations: dict[str, str] | None = None, **status: Any
) -> Any:
    metadata = {"name": name, "namespace": "default", "uid": uid or f"{name}-uid", "annotations": annotations or {}}
    body: dict[str, Any] = {
        "metadata": metadata,
        "spec": {"sandboxTemplateRef": {"name": "t"}},
        "status": {**({"sandbox": {"name": sandbox_name}} if sandbox_name else {}), **status},
    }
    return SANDBOX_CLAIMS.decode(encode(body))


def pod(name: str, sandbox_uid: str, address: str = "127.0.0.1", *, ready: bool = True, uid: str = "") -> Any:
    body: dict[str, Any] = {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": uid or f"{name}-pod-uid",
            "ownerReferences": [owner("Sandbox", sandbox_uid, group="agents.x-k8s.io")],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
    return PODS.decode(encode(body))


def encode(body: Any) -> bytes:
    return msgspec.json.encode(body)


def add(directory: Directory, *views: Any) -> None:
    """Tell the directory of new objects."""
    for view in views:
        replace(directory, None, view)


def replace(directory: Directory, old: Any, new: Any) -> None:
    """Tell the directory of a change; either side may be None."""
    kind = type(old or new).__name__
    observe: Any = {
        "SandboxView": directory.observe_sandbox,
        "SandboxClaimView": directory.observe_claim,
        "PodView": directory.observe_pod,
    }[kind]
    observe(Change(old, new))


@dataclass
class Visit:
    """One connection that the router made to a sandbox."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"ok", status: bytes = b"200 OK", extra: bytes = b"") -> None:
        await self.send(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), extra, body))


@dataclass
class ScriptedSandbox:
    """A TCP server that does on every connection what it was told."""

    behaviour: Behaviour
    port: int = 0
    visits: int = 0
    received: list[bytes] = field(default_factory=list)

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        try:
            await self.behaviour(Visit(reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@dataclass
class Client:
    """A raw client of the router."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def response(self) -> tuple[bytes, bytes]:
        """Head and body of one response with a Content-Length."""
        head = await self.head()
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        return head, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        return await self.reader.read(-1)


@dataclass
class Place:
    """A router and how to reach it."""

    directory: Directory
    router: Router
    host: str
    port: int
    stack: AsyncExitStack
    tasks: anyio.abc.TaskGroup

    async def client(self) -> Client:
        reader, writer = await asyncio.open_connection(self.host, self.port)
        self.stack.callback(writer.close)
        return Client(reader, writer)

    async def sandbox(self, behaviour: Behaviour, name: str = "box") -> ScriptedSandbox:
        """Run a scripted sandbox that the router knows as `name`."""
        scripted = ScriptedSandbox(behaviour)
        server = await asyncio.start_server(scripted.on_connection, "127.0.0.1", 0)
        self.stack.callback(server.close)
        scripted.port = server.sockets[0].getsockname()[1]
        add(self.directory, sandbox(name), pod(name, f"{name}-uid"))
        return scripted

    async def claimed(self, behaviour: Behaviour, name: str, key: AccessKey | None = None) -> ScriptedSandbox:
        """Run a scripted sandbox that a claim of that name holds; its Sandbox is called ``<name>-box``."""
        box = f"{name}-box"
        scripted = ScriptedSandbox(behaviour)
        server = await asyncio.start_server(scripted.on_connection, "127.0.0.1", 0)
        self.stack.callback(server.close)
        scripted.port = server.sockets[0].getsockname()[1]
        add(self.directory, sandbox(box, owners=[owner("SandboxClaim", f"{name}-uid")]), pod(box, f"{box}-uid"))
        self.learn_of_claim(name, key)
        return scripted

    def learn_of_claim(self, name: str, key: AccessKey | None = None, uid: str = "") -> Any:
        """Tell the router of a claim, and of the key that it names."""
        made = claim(name, f"{name}-box", uid, annotations=key.annotations if key else {})
        add(self.directory, made)
        return made

    def learn_of_pod(self, name: str) -> None:
        """Tell the router of a Sandbox whose Pod is this machine."""
        add(self.directory, sandbox(name), pod(name, f"{name}-uid"))

    def forget_pod(self, name: str) -> None:
        """Tell the router that the Pod of a sandbox has gone."""
        replace(self.directory, pod(name, f"{name}-uid"), None)

    def learn_of_sandbox(self, name: str, namespace: str) -> None:
        """Tell the router of a Sandbox without a Pod."""
        add(self.directory, sandbox(name, f"{namespace}-{name}-uid", namespace=namespace))

    async def ask(self, request: bytes) -> bytes:
        """Send bytes on a connection of their own and read until the router closes it."""
        client = await self.client()
        await client.send(request)
        answer = await client.rest()
        client.writer.close()
        return answer


@asynccontextmanager
async def routing(**options: Any) -> AsyncIterator[Place]:
    """A running router, fed by hand."""
    directory = Directory()
    settings: dict[str, Any] = {"port": 0, "unsafe_allow_all": True, "wait_unknown": 0.01, "wait_ready": 0.01}
    settings |= {"drain_timeout": 0.2, **options}
    kube = settings.pop("kube", None)
    settings["unsafe_allow_all"] &= "authz" not in options
    router = Router(directory, options=RouterOptions(**settings), kube=kube)
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        url = await tasks.start(router.serve)
        host, _, port = url.partition("://")[2].rpartition(":")
        yield Place(directory, router, host, int(port), stack, tasks)
        tasks.cancel_scope.cancel()


@pytest.fixture
def run_router() -> Any:
    """Starts a router: ``async with run_router(option=...) as place``."""
    return routing


@pytest.fixture
def replace_known() -> Any:
    """Tells the router that a claim names another key now."""

    def rename(place: Place, old: Any, key: AccessKey) -> None:
        name = old.metadata.name
        replace(place.directory, old, claim(name, f"{name}-box", annotations=key.annotations))

    return rename


@pytest.fixture
def learn_of_bare() -> Any:
    """Tells the router of a Sandbox without a claim that names a key."""

    def learn(place: Place, name: str, key: AccessKey) -> None:
        add(place.directory, sandbox(name, metadata={"annotations": key.annotations}), pod(name, f"{name}-uid"))

    return learn
