"""An API server for tests: the embedded one, in memory, without sockets or threads.

    async with InMemoryApiServer(crds=[path]) as server:
        client = KubeClient(server.transport())

Everything happens on the event loop, so it runs in virtual time.
"""

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import msgspec
import yaml

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver import ApiRequest, ApiServer, Journal, MemoryJournal, ObjectStore, UserInfo
from agent_sandbox.local.apiserver.in_process import InProcessTransport


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
        # A failure of the body leaves as it is, not inside the exception group of our tasks.
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        await self._exit.__aexit__(*((kind, error, trace) if cancelled else (None, None, None)))
        await self.server.aclose()

    def transport(self) -> InProcessTransport:
        """A transport of its own for each client."""
        return InProcessTransport(self.server)

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
