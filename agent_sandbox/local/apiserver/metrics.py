"""What the server says of itself on ``/metrics``, under kube-apiserver's names."""

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse
from agent_sandbox.local.apiserver.paths import parse_resource_path
from agent_sandbox.local.apiserver.registry import Registry

_APPLY = "application/apply-patch"


class ServerMetrics:
    """Counts requests by verb, resource and outcome, as ``apiserver_request_total`` of Kubernetes."""

    def __init__(self, kinds: Registry) -> None:
        """
        Args:
            kinds: what is served; only requests for these are counted, since labels must have a bound.
        """
        self._kinds = kinds
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "apiserver_request",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, "
            "component, and HTTP response code.",
            ("code", "component", "dry_run", "group", "resource", "scope", "subresource", "verb", "version"),
            registry=self._registry,
        )

    def count(self, request: ApiRequest, response: ApiResponse) -> None:
        """Take note of one answer."""
        path = parse_resource_path(request.path)
        if path is None or self._kinds.find(path.group, path.version, path.plural) is None:
            return
        scope = "resource" if path.name else "namespace" if path.namespace else "cluster"
        self._requests.labels(
            code=str(response.status),
            component="apiserver",
            dry_run="All" if request.parameter("dryRun") == "All" else "",
            group=path.group,
            resource=path.plural,
            scope=scope,
            subresource=path.subresource,
            verb=_verb(request, names_object=bool(path.name)),
            version=path.version,
        ).inc()

    def answer(self) -> ApiResponse:
        """The metrics as text."""
        return ApiResponse(200, {"Content-Type": CONTENT_TYPE_LATEST}, generate_latest(self._registry))


def _verb(request: ApiRequest, *, names_object: bool) -> str:
    match request.method:
        case "GET" if request.flag("watch"):
            return "WATCH"
        case "GET" if not names_object:
            return "LIST"
        case "PATCH" if request.content_type.startswith(_APPLY):
            return "APPLY"
        case "DELETE" if not names_object:
            return "DELETECOLLECTION"
    return request.method
