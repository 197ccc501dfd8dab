"""The API server without a socket: a request in, an answer out.

Flow: authenticated request -> discovery, a resource's endpoint, or a provider (log, exec...) -> answer.
``run`` does what must happen without a request: garbage collection, namespaces that end, old Events.
"""

import anyio
import structlog
from anyio.abc import TaskStatus

from agent_sandbox.clock import Clock, SystemClock
from agent_sandbox.local.apiserver.background import Background
from agent_sandbox.local.apiserver.bootstrap import ensure_defaults
from agent_sandbox.local.apiserver.builtin.reviews import Authenticator
from agent_sandbox.local.apiserver.discovery import Discovery
from agent_sandbox.local.apiserver.endpoints import ResourceEndpoints
from agent_sandbox.local.apiserver.endpoints.pod_streams import STREAMING_SUBRESOURCES, PodStream, prepare_stream
from agent_sandbox.local.apiserver.errors import InternalError, StatusError, UnknownPathError
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse, UserInfo
from agent_sandbox.local.apiserver.metrics import ServerMetrics
from agent_sandbox.local.apiserver.objects import Objects
from agent_sandbox.local.apiserver.openapi import OpenApi
from agent_sandbox.local.apiserver.paths import parse_resource_path
from agent_sandbox.local.apiserver.providers import PodProviders
from agent_sandbox.local.apiserver.registry import Registry
from agent_sandbox.local.apiserver.storage import ObjectStore

_log = structlog.get_logger(__name__)
_HEALTH = frozenset({"/healthz", "/livez", "/readyz", "/healthz/ping", "/livez/ping", "/readyz/ping"})


def _nobody(_token: str) -> UserInfo | None:
    return None


class ApiServer:
    """A Kubernetes API over an ``ObjectStore``."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Clock | None = None,
        authenticate: Authenticator = _nobody,
    ) -> None:
        """
        Args:
            store: keeps the objects.
            clock: the server's time; the machine's by default.
            authenticate: who a bearer token belongs to, for TokenReviews; the front checks requests with the same.
        """
        self.providers = PodProviders()
        """What a node offers; it sets them when it starts."""
        self._clock = clock or SystemClock()
        self._store = store
        self.registry = Registry(store)
        self.objects = Objects(store, self.registry, self._clock)
        self._endpoints = ResourceEndpoints(store, self.objects, self._clock, self.providers, authenticate)
        self._discovery = Discovery(self.registry)
        self._openapi = OpenApi(self.registry)
        self._metrics = ServerMetrics(self.registry)
        self._background = Background(store, self.registry, self.objects, self._clock)

    async def open(self) -> None:
        """Load the objects and make sure that the default namespaces exist."""
        await self._store.open()
        await ensure_defaults(self.objects)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Do the background work until cancelled; ends all watches on the way out."""
        try:
            await self._background.run(task_status=task_status)
        finally:
            self.stop_watches()

    def stop_watches(self) -> None:
        """End every running watch, as a server does that shuts down."""
        self._endpoints.watches.close()

    async def aclose(self) -> None:
        """Close the journal."""
        await self._store.aclose()

    async def handle(self, request: ApiRequest) -> ApiResponse:
        """Answer a request; a refusal is an answer, too."""
        response = await self._answer_or_refuse(request)
        self._metrics.count(request, response)
        return response

    async def _answer_or_refuse(self, request: ApiRequest) -> ApiResponse:
        try:
            return await self._answer(request)
        except StatusError as error:
            response = ApiResponse.json(error.status(), error.code)
            if error.retry_after is not None:
                response.headers["Retry-After"] = str(error.retry_after)
            return response
        except Exception as error:
            # A defect of ours must not take the connection along: clients know what to do with a 500.
            _log.exception("a request failed", method=request.method, path=request.path)
            return ApiResponse.json(InternalError(f"{type(error).__name__}: {error}").status(), 500)

    def prepare_stream(self, request: ApiRequest) -> PodStream | None:
        """What a request to upgrade its connection is about; None if the path is none that can be upgraded.

        Raises:
            StatusError: the Pod, its container or its node is not there, or an option is wrong.
        """
        path = parse_resource_path(request.path)
        if path is None or path.subresource not in STREAMING_SUBRESOURCES:
            return None
        resource = self.registry.find(path.group, path.version, path.plural)
        if resource is None or path.subresource not in resource.subresources:
            return None
        return prepare_stream(self.objects, self.providers, resource, path, request)

    async def _answer(self, request: ApiRequest) -> ApiResponse:
        if request.path in _HEALTH:
            return ApiResponse.text("ok")
        if request.path == "/metrics":
            return self._metrics.answer()
        found = self._discovery.answer(request) or self._openapi.answer(request)
        if found is not None:
            return found
        path = parse_resource_path(request.path)
        if path is None:
            return ApiResponse.text("404 page not found\n", 404)
        resource = self.registry.find(path.group, path.version, path.plural)
        if resource is None:
            raise UnknownPathError
        return await self._endpoints.answer(resource, path, request)
