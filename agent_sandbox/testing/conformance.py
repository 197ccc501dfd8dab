"""The client through which the conformance suite looks at an API server: HTTP, blind to which server it is.

``EmbeddedWire`` calls the embedded server, ``HttpWire`` one that a kubeconfig names; ``Api`` is what tests use.
"""

import base64
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import aiohttp
import anyio
import msgspec
import yaml

from agent_sandbox.kube.http import hang_up
from agent_sandbox.local.apiserver import ApiRequest, UserInfo
from agent_sandbox.local.apiserver.http import split_query
from agent_sandbox.testing.apiserver import InMemoryApiServer

PATIENCE_SECONDS = 60.0
"""How long anything may take that a server does in its own time. A namespace that held a Pod takes eight seconds on an
idle machine: the namespace controller looks again only then."""
AGGREGATED_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
"""What a client accepts that wants all groups in one answer, as kubectl does."""
JsonObject = dict[str, Any]


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> JsonObject:
        """The body, decoded."""
        decoded: JsonObject = msgspec.json.decode(self.body)
        return decoded

    @property
    def names(self) -> list[str]:
        """The names of a list's items."""
        return [item["metadata"]["name"] for item in self.json["items"]]


class Wire(Protocol):
    """Carries requests to one server."""

    async def send(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Answer:
        """Send a request and read the whole answer."""

    def lines(self, path: str, query: str) -> AsyncIterator[bytes]:
        """GET, and read the answer line by line."""


class EmbeddedWire:
    """Calls the embedded server directly."""

    def __init__(self, server: InMemoryApiServer) -> None:
        self._server = server.server

    def _request(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> ApiRequest:
        lowered = {name.lower(): value for name, value in headers.items()}
        return ApiRequest(method, path, split_query(query), lowered, body, UserInfo())

    async def send(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Answer:
        answer = await self._server.handle(self._request(method, path, query, headers, body))
        chunks = [answer.body]
        if answer.stream is not None:
            chunks += [chunk async for chunk in answer.stream]
        answered = dict(answer.headers)
        if answer.warnings:
            answered["Warning"] = ", ".join(f'299 - "{text}"' for text in answer.warnings)
        return Answer(answer.status, answered, b"".join(chunks))

    async def lines(self, path: str, query: str) -> AsyncIterator[bytes]:
        answer = await self._server.handle(self._request("GET", path, query, {"Accept": "application/json"}, b""))
        assert answer.stream is not None, answer.body.decode()
        async for chunk in answer.stream:
            for line in chunk.splitlines():
                yield line


class HttpWire:
    """Speaks to a server that a kubeconfig names."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def send(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Answer:
        async with self._session.request(
            method, f"{self._url}{path}?{query}", headers=headers, data=body or None
        ) as answer:
            joined = {name: ", ".join(answer.headers.getall(name)) for name in answer.headers}
            return Answer(answer.status, joined, await answer.read())

    async def lines(self, path: str, query: str) -> AsyncIterator[bytes]:
        async with self._session.get(f"{self._url}{path}?{query}") as answer:
            assert answer.status == 200, await answer.text()
            try:
                async for line in answer.content:
                    yield line
            finally:
                hang_up(answer)  # a test that has seen enough ends before the server's goodbye


class _NoWire:
    """Stands in before a client is connected."""

    async def send(self, method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> Answer:
        raise AssertionError("the client is used before it is connected")

    def lines(self, path: str, query: str) -> AsyncIterator[bytes]:
        raise AssertionError("the client is used before it is connected")


UNCONNECTED = _NoWire()


class Watch:
    """A running watch."""

    def __init__(self, lines: AsyncIterator[bytes]) -> None:
        self._lines = lines

    async def next(self) -> JsonObject:
        """The next event; fails the test if none comes in time."""
        with anyio.fail_after(PATIENCE_SECONDS):
            event: JsonObject = msgspec.json.decode(await anext(self._lines))
            return event

    async def until(self, wanted: Callable[[JsonObject], bool]) -> JsonObject:
        """The first event that fits."""
        while True:
            event = await self.next()
            if wanted(event):
                return event

    async def rest(self) -> list[JsonObject]:
        """All events up to the end of the stream."""
        with anyio.fail_after(PATIENCE_SECONDS):
            return [msgspec.json.decode(line) async for line in self._lines]


@dataclass
class Api:
    """A client of one server, and the namespace that a test may fill.

    Attributes:
        server: ``embedded`` or ``kubernetes``.
        namespace: the test's own.
    """

    server: str
    wire: Wire
    namespace: str = ""
    cluster_objects: list[str] = field(default_factory=list)

    @property
    def core(self) -> str:
        """The path of core kinds in the test's namespace."""
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def config_maps(self) -> str:
        """The path of ConfigMaps in the test's namespace."""
        return f"{self.core}/configmaps"

    @property
    def pods(self) -> str:
        """The path of Pods in the test's namespace."""
        return f"{self.core}/pods"

    @property
    def widgets(self) -> str:
        """The path of the suite's custom kind in the test's namespace."""
        return f"/apis/conformance.agents.dev/v1/namespaces/{self.namespace}/widgets"

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> Answer:
        """Send a request."""
        headers = {"Accept": accept, "User-Agent": "conformance/1"}
        data = b""
        if body is not None:
            headers["Content-Type"] = content_type
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.wire.send(method, path, urlencode(query), headers, data)

    async def get(self, path: str, **query: str) -> Answer:
        """GET."""
        return await self.request("GET", path, **query)

    async def create(self, path: str, body: JsonObject, **query: str) -> JsonObject:
        """POST; the test fails if the server refuses."""
        answer = await self.request("POST", path, body, **query)
        assert answer.status == 201, answer.body.decode()
        return answer.json

    async def put(self, path: str, body: JsonObject, **query: str) -> Answer:
        """PUT."""
        return await self.request("PUT", path, body, **query)

    async def merge(self, path: str, patch: Any, **query: str) -> Answer:
        """PATCH with a JSON merge patch."""
        return await self.request("PATCH", path, patch, content_type="application/merge-patch+json", **query)

    async def json_patch(self, path: str, operations: Any, **query: str) -> Answer:
        """PATCH with a JSON patch."""
        return await self.request("PATCH", path, operations, content_type="application/json-patch+json", **query)

    async def strategic(self, path: str, patch: Any, **query: str) -> Answer:
        """PATCH with a strategic merge patch."""
        kind = "application/strategic-merge-patch+json"
        return await self.request("PATCH", path, patch, content_type=kind, **query)

    async def apply(self, path: str, body: JsonObject, manager: str, *, force: bool = False) -> Answer:
        """PATCH with a server-side apply."""
        query = {"fieldManager": manager} | ({"force": "true"} if force else {})
        return await self.request("PATCH", path, body, content_type="application/apply-patch+yaml", **query)

    async def delete(self, path: str, options: JsonObject | None = None, **query: str) -> Answer:
        """DELETE."""
        return await self.request("DELETE", path, options, **query)

    @asynccontextmanager
    async def watch(self, path: str, **query: str) -> AsyncIterator[Watch]:
        """Watch a collection."""
        lines = self.wire.lines(path, urlencode({"watch": "true", **query}))
        try:
            yield Watch(lines)
        finally:
            await lines.aclose()  # type: ignore[attr-defined]

    async def wait_gone(self, path: str, name: str) -> None:
        """Wait until an object is not there any more."""
        field_selector = f"metadata.name={name}"
        listed = await self.get(path, fieldSelector=field_selector)
        if not listed.json["items"]:
            return
        version = listed.json["metadata"]["resourceVersion"]
        async with self.watch(path, fieldSelector=field_selector, resourceVersion=version) as watch:
            await watch.until(lambda event: event["type"] == "DELETED")

    async def wait_for(self, path: str, name: str, wanted: Callable[[JsonObject], bool]) -> JsonObject:
        """Wait until an object is as wanted."""
        async with self.watch(path, fieldSelector=f"metadata.name={name}") as watch:
            event = await watch.until(lambda event: event["type"] != "BOOKMARK" and wanted(event["object"]))
            found: JsonObject = event["object"]
            return found

    async def wait_served(self, definition: Mapping[str, Any]) -> None:
        """Wait until a kind is served and described; a real server does both some time after it is established.

        Args:
            definition: the kind's CustomResourceDefinition.
        """
        with anyio.fail_after(PATIENCE_SECONDS):
            while not await self._is_served(definition["spec"]):  # noqa: ASYNC110 - another process, nothing to wait on
                await anyio.sleep(0.1)

    async def _is_served(self, spec: JsonObject) -> bool:
        plural, group_version = spec["names"]["plural"], f"apis/{spec['group']}/{spec['versions'][0]['name']}"
        if (await self.get(f"/{group_version}/{plural}")).status != 200:
            return False
        discovered = (await self.request("GET", "/apis", accept=AGGREGATED_DISCOVERY)).json["items"]
        groups = {item["metadata"]["name"]: item for item in discovered}
        versions = groups.get(spec["group"], {"versions": []})["versions"]
        plurals = {resource["resource"] for version in versions for resource in version["resources"]}
        return plural in plurals and group_version in (await self.get("/openapi/v3")).json["paths"]


def is_established(definition: JsonObject) -> bool:
    """Whether a CustomResourceDefinition has the condition that its kind may be used."""
    conditions = definition.get("status", {}).get("conditions") or []  # null until the first is written
    return any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions)


def config_map(name: str, **metadata: Any) -> JsonObject:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": {"key": "value"}}


def pod(name: str, **metadata: Any) -> JsonObject:
    """A Pod that needs nothing else."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, **metadata},
        "spec": {"containers": [{"name": "main", "image": "registry.example/app:1"}]},
    }


def widget(name: str, **spec: Any) -> JsonObject:
    """An object of the suite's custom kind."""
    return {
        "apiVersion": "conformance.agents.dev/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 1, **spec},
    }


@asynccontextmanager
async def kubeconfig_wire(path: Path) -> AsyncIterator[HttpWire]:
    """A wire to the server of a kubeconfig's current context."""
    config = yaml.safe_load(await anyio.Path(path).read_text())
    context = next(entry["context"] for entry in config["contexts"] if entry["name"] == config["current-context"])
    cluster = next(entry["cluster"] for entry in config["clusters"] if entry["name"] == context["cluster"])
    user = next(entry["user"] for entry in config["users"] if entry["name"] == context["user"])
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    connector = aiohttp.TCPConnector(ssl=_tls(cluster, user))
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        yield HttpWire(session, cluster["server"].rstrip("/"))


def _tls(cluster: JsonObject, user: JsonObject) -> ssl.SSLContext:
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"), cadata=base64.b64decode(authority).decode() if authority else None
    )
    if "client-certificate" in user:
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    elif "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(base64.b64decode(user["client-certificate-data"]) + b"\n")
            pair.write(base64.b64decode(user["client-key-data"]))
            pair.flush()
            context.load_cert_chain(pair.name)
    return context
