"""An API server for tests: the embedded one, in memory, without sockets or threads.

    async with InMemoryApiServer(crds=[path]) as server:
        client = KubeClient(server.transport())

Everything happens on the event loop, so it runs in virtual time.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.lowlevel
import msgspec
import yaml

from agent_sandbox.clock import Clock
from agent_sandbox.kube.errors import OutcomeUnknownError
from agent_sandbox.kube.transport import NO_QUERY, RawResponse
from agent_sandbox.local.apiserver import ApiRequest, ApiServer, Journal, MemoryJournal, ObjectStore, UserInfo


class InMemoryApiServer:
    """The embedded API server with nothing around it; use it as an async context manager."""

    def __init__(
        self,
        *,
        crds: Iterable[str | Path | Mapping[str, Any]] = (),
        clock: Clock | None = None,
        journal: Journal | None = None,
        history_capacity: int = 4096,
    ) -> None:
        """
        Args:
            crds: CustomResourceDefinitions to have from the start: YAML files (of one or several documents), folders
                of such files, or objects.
            clock: the server's time; the machine's by default.
            journal: where writes go; by default nowhere.
            history_capacity: changes per kind that watches can go back, to provoke 410 early.
        """
        self._crds = list(crds)
        store = ObjectStore(journal or MemoryJournal(), history_capacity=history_capacity)
        self.server = ApiServer(store, clock=clock)
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.server.open()
        for definition in load_manifests(self._crds):
            await self.create(definition)
        group = await self._exit.enter_async_context(anyio.create_task_group())
        self._exit.callback(group.cancel_scope.cancel)
        await group.start(self.server.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exit.__aexit__(kind, error, trace)
        await self.server.aclose()

    def transport(self) -> "InMemoryTransport":
        """A transport of its own for each client."""
        return InMemoryTransport(self.server)

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object of any served kind, as a test's fixture.

        Raises:
            AssertionError: the server refused; the message is its answer.
        """
        resource = self.server.registry.by_kind(manifest["apiVersion"], manifest["kind"])
        assert resource is not None, f"{manifest['apiVersion']} {manifest['kind']} is not served"
        namespace = (manifest.get("metadata") or {}).get("namespace", "default")
        prefix = f"/apis/{resource.group}" if resource.group else "/api"
        middle = f"/namespaces/{namespace}" if resource.namespaced else ""
        path = f"{prefix}/{resource.version}{middle}/{resource.plural}"
        answer = await self.server.handle(ApiRequest("POST", path, body=msgspec.json.encode(manifest), user=UserInfo()))
        assert answer.status < 300, answer.body.decode()
        created: dict[str, Any] = msgspec.json.decode(answer.body)
        return created


def load_manifests(sources: Iterable[str | Path | Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Read manifests from YAML files, folders of CRD files, and objects that are there already."""
    manifests: list[Mapping[str, Any]] = []
    for source in sources:
        if isinstance(source, Mapping):
            manifests.append(source)
            continue
        path = Path(source)
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        for file in files:
            documents = [document for document in yaml.load_all(file.read_text(), _LOADER) if document]
            kinds = {"CustomResourceDefinition"} if path.is_dir() else None
            manifests += [document for document in documents if kinds is None or document.get("kind") in kinds]
    return manifests


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class InMemoryTransport:
    """A ``kube.Transport`` that calls the server directly."""

    server: ApiServer
    user: UserInfo = field(default_factory=UserInfo)
    host: str = "in-memory"

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        body: bytes | None = None,
        content_type: str | None = None,
        timeout: float | None = None,
    ) -> RawResponse:
        """Answer one request.

        Raises:
            OutcomeUnknownError: the server did not answer within the timeout.
        """
        # A real server always lets other tasks run between a request and its answer.
        await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(timeout):
            answer = await self.server.handle(self._request(method, path, query, body, content_type))
            chunks = [answer.body]
            if answer.stream is not None:
                chunks += [chunk async for chunk in answer.stream]
            return RawResponse(answer.status, answer.headers, b"".join(chunks))
        raise OutcomeUnknownError(f"{method} {path}: no answer within {timeout} s")

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, query: Mapping[str, str] = NO_QUERY, read_timeout: float | None = None
    ) -> AsyncIterator["_InMemoryStream"]:
        """Answer one request piece by piece."""
        await anyio.lowlevel.checkpoint()
        answer = await self.server.handle(self._request(method, path, query, None, None))
        stream = _InMemoryStream(answer.status, answer.headers, answer.body, answer.stream, read_timeout)
        try:
            yield stream
        finally:
            await stream.aclose()

    async def aclose(self) -> None:
        """Nothing to close."""

    def _request(
        self, method: str, path: str, query: Mapping[str, str], body: bytes | None, content_type: str | None
    ) -> ApiRequest:
        headers = {"accept": "application/json", "user-agent": "agent-sandbox"}
        if content_type is not None:
            headers["content-type"] = content_type
        return ApiRequest(method, path, tuple(query.items()), headers, body or b"", self.user)


class _InMemoryStream:
    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        chunks: AsyncIterator[bytes] | None,
        read_timeout: float | None,
    ) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._chunks = chunks
        self._read_timeout = read_timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body
        if self._chunks is None:
            return
        while True:
            chunk: bytes | None = None
            late = True
            with anyio.move_on_after(self._read_timeout):
                chunk = await anext(self._chunks, None)
                late = False
            if late:
                raise OutcomeUnknownError(f"nothing came for {self._read_timeout} s")
            if chunk is None:
                return
            yield chunk

    async def aclose(self) -> None:
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()
