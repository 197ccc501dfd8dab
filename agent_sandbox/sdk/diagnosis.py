"""Why sandboxes cannot be had from here: looks at everything on the way to one, from the kubeconfig to the templates.

In: the options of a client. Out: findings, one after the other, each with what to type next. Nothing is changed by it,
and what cannot be known (a right that is missing to look) is said as such.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import aiohttp
import anyio
import msgspec

from agent_sandbox.kube import (
    ForbiddenError,
    KubeClient,
    KubeError,
    NotFoundError,
    TransportError,
    UnauthorizedError,
)
from agent_sandbox.sdk.catalog import list_pools, list_templates
from agent_sandbox.sdk.cluster import ClusterChoice, ConfiguredCluster, LocalStack, choose_cluster, connect_cluster
from agent_sandbox.sdk.errors import SandboxConfigError, SandboxError
from agent_sandbox.sdk.lifetime import ServerClock
from agent_sandbox.sdk.options import ConnectionOptions
from agent_sandbox.sdk.refusals import HEADER_ERROR
from agent_sandbox.sdk.routes import choose_mode, open_route
from agent_sandbox.sdk.status import info_of
from agent_sandbox.sdk.wire import Route, Target
from agent_sandbox_api.core import CUSTOM_RESOURCE_DEFINITIONS, LEASES, SERVICES
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS
from agent_sandbox_api.names import (
    CONTROLLER_LEASE,
    HEADER_SANDBOX_AUTHORIZATION,
    ROUTER_SERVICE,
    RUNTIME_PORT,
    SYSTEM_NAMESPACE,
)

Verdict = Literal["ok", "warn", "fail"]

ROUTER_SECONDS: Final = 10.0
"""How long the router may take to be reached."""

_ACCESS_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_NEEDED_VERBS: Final = ("create", "get", "list", "watch", "patch", "delete")
_INSTALL: Final = "kubectl apply --server-side -k config/default"
_SILENT_LEASES: Final = 2
"""After how many durations of a Lease its silence means that nobody works."""


@dataclass(frozen=True)
class Finding:
    """What one look found.

    Attributes:
        check: what was looked at, one word.
        verdict: ``ok``, ``warn`` (sandboxes may work) or ``fail`` (they do not).
        message: what was found, one sentence.
        next_step: what to type; empty if nothing is to be done.
    """

    check: str
    verdict: Verdict
    message: str
    next_step: str = ""


async def diagnose(options: ConnectionOptions) -> AsyncGenerator[Finding, None]:
    """Look at everything, in the order in which it is needed; what depends on a failure is not looked at.

    Args:
        options: of the client whose way is looked at; ``namespace`` is where sandboxes are wanted.
    """
    try:
        cluster = choose_cluster(options)
        kube = await connect_cluster(cluster)
    except SandboxConfigError as error:
        yield Finding("cluster", "fail", str(error), "agent-sandbox local up --background")
        return
    try:
        async for finding in _Diagnosis(options, cluster, kube).findings():
            yield finding
    finally:
        if options.kube is None:
            await kube.aclose()


class _Diagnosis:
    """The looks at one cluster."""

    def __init__(self, options: ConnectionOptions, cluster: ClusterChoice, kube: KubeClient) -> None:
        self._options = options
        self._cluster = cluster
        self._kube = kube
        self._namespace = options.namespace

    async def findings(self) -> AsyncGenerator[Finding, None]:
        """One after the other."""
        reached = await self._look_at_cluster()
        yield reached
        if reached.verdict == "fail":
            return
        for look in (self._look_at_credential, self._look_at_definitions):
            finding = await look()
            yield finding
            if finding.verdict == "fail":
                return
        for look in (
            self._look_at_controllers,
            self._look_at_router,
            self._look_at_templates,
            self._look_at_pools,
            self._look_at_sandboxes,
        ):
            yield await self._guarded(look)

    async def _guarded(self, look: Any) -> Finding:
        """A look that fails for a reason of its own says so, and the next one is taken."""
        try:
            finding: Finding = await look()
        except (KubeError, SandboxError) as error:
            check = look.__name__.removeprefix("_look_at_")
            return Finding(check, "warn", f"cannot be looked at: {error}")
        return finding

    # The control plane

    async def _look_at_cluster(self) -> Finding:
        where = _name_of(self._cluster, self._kube)
        local = isinstance(self._cluster, LocalStack)
        try:
            version = msgspec.json.decode((await self._kube.request("GET", "/version")).body)
        except UnauthorizedError:
            return Finding(
                "cluster", "fail", f"{where} does not accept this credential", "kubectl config view --minify"
            )
        except TransportError as error:
            step = "agent-sandbox local status" if local else "kubectl cluster-info"
            return Finding("cluster", "fail", f"{where} does not answer: {error}", step)
        except KubeError as error:
            return Finding("cluster", "fail", f"{where} refuses: {error}", "kubectl cluster-info")
        return Finding(
            "cluster", "ok", f"{where} answers, Kubernetes {version.get('gitVersion', 'of unknown version')}"
        )

    async def _look_at_credential(self) -> Finding:
        wanted = [("extensions.agents.x-k8s.io", "sandboxclaims", "", verb) for verb in _NEEDED_VERBS]
        wanted.append(("agents.x-k8s.io", "sandboxes", "scale", "update"))
        wanted.append(("", "pods", "portforward", "create"))
        try:
            missing = [right for right in wanted if not await self._may(*right)]
        except UnauthorizedError:
            return Finding("credential", "fail", "the API server does not know it", "kubectl auth whoami")
        except KubeError as error:
            return Finding("credential", "warn", f"its rights cannot be asked for: {error}")
        if not missing:
            return Finding("credential", "ok", f"may make, use and remove sandboxes in namespace {self._namespace}")
        verbs: dict[str, list[str]] = {}
        for _, plural, subresource, verb in missing:
            verbs.setdefault(f"{plural}/{subresource}".rstrip("/"), []).append(verb)
        text = "; ".join(f"{', '.join(found)} {what}" for what, found in verbs.items())
        step = f"kubectl auth can-i --list -n {self._namespace}"
        hopeless = any(plural == SANDBOX_CLAIMS.plural for _, plural, _, _ in missing)
        return Finding(
            "credential", "fail" if hopeless else "warn", f"may not {text} in namespace {self._namespace}", step
        )

    async def _may(self, group: str, plural: str, subresource: str, verb: str) -> bool:
        attributes = {
            "namespace": self._namespace,
            "group": group,
            "resource": plural,
            "subresource": subresource,
            "verb": verb,
        }
        question = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await self._kube.request("POST", _ACCESS_REVIEWS, body=msgspec.json.encode(question))
        return bool(msgspec.json.decode(answer.body).get("status", {}).get("allowed"))

    async def _look_at_definitions(self) -> Finding:
        missing, unserved, old = [], [], []
        for ours in load_crds():
            name = ours["metadata"]["name"]
            try:
                theirs = await self._kube.get_object(CUSTOM_RESOURCE_DEFINITIONS, name)
            except NotFoundError:
                missing.append(name)
                continue
            except ForbiddenError:
                return await self._look_at_served_kinds()
            except KubeError as error:
                return Finding("definitions", "fail", f"{name} cannot be read: {error}", "kubectl get crds")
            served = {version["name"]: version for version in theirs["spec"]["versions"] if version.get("served")}
            for version in ours["spec"]["versions"]:
                if version["name"] not in served:
                    unserved.append(f"{name} {version['name']}")
                elif _fields(_schema(version)) - _fields(_schema(served[version["name"]])):
                    old.append(name)
        step = "kubectl apply --server-side -k config/crd"
        if missing or unserved:
            return Finding("definitions", "fail", f"not installed: {', '.join(missing + unserved)}", step)
        if old:
            return Finding("definitions", "warn", f"older than this program: {', '.join(dict.fromkeys(old))}", step)
        return Finding("definitions", "ok", "all four kinds are installed, v1alpha1, as this program knows them")

    async def _look_at_served_kinds(self) -> Finding:
        """For those who may not read definitions: what discovery shows to everybody."""
        for group in ("agents.x-k8s.io", "extensions.agents.x-k8s.io"):
            try:
                await self._kube.request("GET", f"/apis/{group}/v1alpha1")
            except KubeError:
                step = "kubectl apply --server-side -k config/crd"
                return Finding("definitions", "fail", f"{group}/v1alpha1 is not served", step)
        return Finding("definitions", "ok", "both groups are served, v1alpha1")

    async def _look_at_controllers(self) -> Finding:
        if isinstance(self._cluster, LocalStack):
            pid = self._cluster.record.pid
            return Finding("controllers", "ok", f"run in the local stack, process {pid}")
        name = f"{SYSTEM_NAMESPACE}/{CONTROLLER_LEASE}"
        step = f"kubectl -n {SYSTEM_NAMESPACE} get pods,lease"
        try:
            lease = (await self._kube.get(LEASES, CONTROLLER_LEASE, SYSTEM_NAMESPACE)).spec
        except NotFoundError:
            return await self._look_at_traces_of_controllers(name)
        except ForbiddenError:
            return Finding("controllers", "warn", f"Lease {name} may not be read, so nobody knows", step)
        if not lease.holder_identity or lease.renew_time is None:
            return Finding("controllers", "fail", f"nobody holds Lease {name}", step)
        silence = (await ServerClock(self._kube).now() - lease.renew_time).total_seconds()
        if silence > _SILENT_LEASES * (lease.lease_duration_seconds or 15):
            return Finding(
                "controllers",
                "fail",
                f"{lease.holder_identity} holds Lease {name} but is silent for {silence:.0f} s",
                step,
            )
        return Finding("controllers", "ok", f"{lease.holder_identity} leads")

    async def _look_at_traces_of_controllers(self, lease: str) -> Finding:
        """Without an election only their work shows them: they write conditions to every template."""
        templates = await list_templates(self._kube, self._namespace)
        if templates and all(template.observed for template in templates):
            message = f"there is no Lease {lease}; templates are looked after, so controllers run without an election"
            return Finding("controllers", "warn", message, f"kubectl -n {SYSTEM_NAMESPACE} get pods")
        return Finding("controllers", "fail", f"none run: there is no Lease {lease}", _INSTALL)

    # The data plane

    async def _look_at_router(self) -> Finding:
        hurried = replace(
            self._options, gateway_ready_timeout=ROUTER_SECONDS, port_forward_ready_timeout=ROUTER_SECONDS
        )
        step = "agent-sandbox local status"
        if not isinstance(self._cluster, LocalStack):
            step = f"kubectl -n {self._options.router_namespace} get pods,svc"
        try:
            mode = choose_mode(self._options, self._cluster)
            if mode in {"tunnel", "in-cluster"} and not await self._has_router_service():
                message = f"not installed: there is no Service {ROUTER_SERVICE} in {self._options.router_namespace}"
                return Finding("router", "fail", message, _INSTALL)
            async with AsyncExitStack() as stack:
                opening = open_route(hurried, self._cluster, self._kube, ServerClock(self._kube))
                route, url = await stack.enter_async_context(opening)
                if url is None:
                    return Finding("router", "ok", "none is used: requests go to the Pods themselves")
                return await self._ask_router(route, f"{url}, by {mode}", step)
        except SandboxError as error:
            return Finding("router", "fail", f"cannot be reached: {error}", step)

    async def _has_router_service(self) -> bool:
        for namespace in (self._options.router_namespace, self._namespace):
            try:
                await self._kube.get(SERVICES, ROUTER_SERVICE, namespace)
            except NotFoundError:
                continue
            except ForbiddenError:
                return True  # nobody knows: the way itself will tell
            return True
        return False

    async def _ask_router(self, route: Route, where: str, step: str) -> Finding:
        """Ask for a sandbox that cannot exist: a router that takes the credential says that it knows none."""
        nobody = Target(self._namespace, "agent-sandbox-doctor")
        headers = route.headers(nobody, RUNTIME_PORT)
        try:
            with anyio.fail_after(ROUTER_SECONDS):
                async with route.session.get(
                    route.base_url(nobody, RUNTIME_PORT),
                    headers={**headers},
                    allow_redirects=False,
                ) as answer:
                    reason = answer.headers.get(HEADER_ERROR)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Finding("router", "fail", f"{where}, does not answer: {str(error) or 'timed out'}", step)
        match reason:
            case "not-found":
                return Finding("router", "ok", f"{where}, answers and takes the credential")
            case "unauthenticated" if HEADER_SANDBOX_AUTHORIZATION not in headers:
                return Finding(
                    "router", "ok", f"{where}, answers; each sandbox is opened by a key that its claim names"
                )
            case "unauthenticated":
                step = "export AGENT_SANDBOX_ROUTER_TOKEN=..."
                return Finding("router", "fail", f"{where}, answers but does not take the credential", step)
            case "forbidden":
                return Finding("router", "ok", f"{where}, answers; the credential opens certain sandboxes only")
            case None:
                return Finding("router", "fail", f"{where}, answers but is no router of sandboxes", step)
            case _:
                return Finding("router", "warn", f"{where}, answers: {reason}", step)

    # What sandboxes are made from, and those that there are

    async def _look_at_templates(self) -> Finding:
        templates = await list_templates(self._kube, self._namespace)
        if not templates:
            message = f"none in namespace {self._namespace}"
            return Finding("templates", "warn", message, "agent-sandbox apply -f config/samples")
        broken = [template for template in templates if template.trouble]
        if broken:
            step = f"kubectl describe sandboxtemplate {broken[0].name} -n {self._namespace}"
            return Finding("templates", "warn", f"{broken[0].name}: {broken[0].trouble}", step)
        return Finding("templates", "ok", ", ".join(template.name for template in templates))

    async def _look_at_pools(self) -> Finding:
        pools = await list_pools(self._kube, self._namespace)
        if not pools:
            return Finding("pools", "ok", f"none in namespace {self._namespace}: sandboxes start cold")
        text = ", ".join(f"{pool.name} {pool.ready} of {pool.wanted} ready" for pool in pools)
        for pool in pools:
            step = f"kubectl describe sandboxwarmpool {pool.name} -n {self._namespace}"
            if pool.trouble and pool.ready < pool.wanted:
                return Finding("pools", "warn", f"{text}; {pool.name}: {pool.trouble}", step)
        short = any(pool.ready < pool.wanted for pool in pools)
        return Finding("pools", "warn" if short else "ok", text, "agent-sandbox doctor" if short else "")

    async def _look_at_sandboxes(self) -> Finding:
        found = await self._kube.list(SANDBOX_CLAIMS, self._namespace)
        infos = [info_of(claim) for claim in found.items]
        failed = [info for info in infos if info.status.state == "Failed"]
        ready = sum(info.status.state == "Ready" for info in infos)
        text = f"{ready} of {len(infos)} ready in namespace {self._namespace}"
        if not failed:
            return Finding("sandboxes", "ok", text)
        status = failed[0].status
        message = f"{text}; {failed[0].claim_name}: {status.reason}: {status.message}"
        return Finding("sandboxes", "warn", message, f"agent-sandbox rm {failed[0].claim_name}")


def _name_of(cluster: ClusterChoice, kube: KubeClient) -> str:
    """The cluster in words, so that a wrong one is noticed."""
    match cluster:
        case LocalStack(record):
            return f"the local stack at {record.api.url}"
        case ConfiguredCluster(inside=True):
            return "the cluster of this Pod"
        case ConfiguredCluster(kubeconfig, context):
            which = f"context {context}" if context else "the current context"
            return f"{kube.transport.host} ({which} of {kubeconfig or 'the kubeconfig'})"
        case _:
            return kube.transport.host


def _schema(version: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    return schema


def _fields(schema: dict[str, Any], path: str = "") -> set[str]:
    """The paths of all fields that a schema knows."""
    found: set[str] = set()
    for name, below in (schema.get("properties") or {}).items():
        found |= {f"{path}.{name}", *_fields(below, f"{path}.{name}")}
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            found |= _fields(schema[inner], f"{path}[]")
    return found


__all__ = ["Finding", "diagnose"]
