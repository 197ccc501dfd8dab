"""A real API server for tests that otherwise run on ``InMemoryApiServer``: the same surface, a namespace of its own.

    async with RealApiServer(kubeconfig, crds=load_crds(), rules=rules()) as server:
        client = KubeClient(server.transport())     # may do what the rules say, in this namespace only

Time is real here, and other programs write too: the garbage collector, the namespace controller.
"""

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import anyio
import msgspec
import yaml

from agent_sandbox.kube import KubeClient, Transport, connect, connect_to

PATIENCE: Final = 60.0
"""Seconds that a definition may take to be served, or the controller manager to make a default service account."""
_ACCOUNT: Final = "under-test"
_RBAC: Final = "rbac.authorization.k8s.io"


class RealApiServer:
    """The server of a kubeconfig, seen by an account that has a Role in one new namespace and nothing else.

    Attributes:
        namespace: made on entering, deleted on leaving; the rest is the namespace controller's.
        admin: a client with the kubeconfig's own rights.
    """

    def __init__(
        self, kubeconfig: Path, *, crds: Iterable[Mapping[str, Any]] = (), rules: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """
        Args:
            kubeconfig: of an administrator.
            crds: CustomResourceDefinitions to have from the start; those that exist are left as they are.
            rules: of the Role of the account; none leaves the account without rights.
        """
        self._kubeconfig = kubeconfig
        self._crds = list(crds)
        self._rules = list(rules)
        self._exit = AsyncExitStack()
        self._plurals: dict[tuple[str, str], str] = {}
        self.namespace = f"test-{uuid4().hex[:10]}"
        self.admin: KubeClient
        self._account: KubeClient

    async def __aenter__(self) -> Self:
        self.admin = await connect(self._kubeconfig)
        self._exit.push_async_callback(self.admin.aclose)
        for definition in self._crds:
            await self._define(definition)
        await self._post("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self._exit.push_async_callback(self._request, "DELETE", f"/api/v1/namespaces/{self.namespace}", None)
        self._account = await self._make_account()
        self._exit.push_async_callback(self._account.aclose)
        await self._served(f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._exit.aclose()

    def transport(self) -> Transport:
        """The server as the account reaches it."""
        return self._account.transport

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object of any served kind, as a test's fixture; ``default`` means the test's own namespace.

        Raises:
            AssertionError: the server refused; the message is its answer.
        """
        version, kind = str(manifest["apiVersion"]), str(manifest["kind"])
        prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
        plural = await self._plural(prefix, kind)
        metadata = dict(manifest["metadata"])
        if kind == "Namespace":
            return await self._post(f"{prefix}/{plural}", {**manifest, "metadata": metadata})
        if metadata.get("namespace", "default") == "default":
            metadata["namespace"] = self.namespace
        path = f"{prefix}/namespaces/{metadata['namespace']}/{plural}"
        return await self._post(path, {**manifest, "metadata": metadata})

    async def _define(self, definition: Mapping[str, Any]) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        await self._post(path, definition, allowed=409)
        spec = definition["spec"]
        await self._served(f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}")

    async def _make_account(self) -> KubeClient:
        home = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        await self._post(home, {"metadata": {"name": _ACCOUNT}})
        rbac = f"/apis/{_RBAC}/v1/namespaces/{self.namespace}"
        await self._post(f"{rbac}/roles", {"metadata": {"name": _ACCOUNT}, "rules": self._rules})
        subject = {"kind": "ServiceAccount", "name": _ACCOUNT, "namespace": self.namespace}
        role = {"apiGroup": _RBAC, "kind": "Role", "name": _ACCOUNT}
        binding = {"metadata": {"name": _ACCOUNT}, "subjects": [subject], "roleRef": role}
        await self._post(f"{rbac}/rolebindings", binding)
        await self._authorized()
        answer = await self._post(f"{home}/{_ACCOUNT}/token", {"spec": {"expirationSeconds": 3600}})
        cluster = yaml.safe_load(self._kubeconfig.read_text())["clusters"][0]["cluster"]
        authority = cluster.get("certificate-authority")
        return await connect_to(cluster["server"], token=answer["status"]["token"], ca_file=authority)

    async def _authorized(self) -> None:
        """Wait until the server goes by the Role: its authorizer hears of it some time after it is stored."""
        for rule in self._rules[:1]:
            resource, _, subresource = str(rule["resources"][0]).partition("/")
            attributes = {"namespace": self.namespace, "verb": rule["verbs"][0], "group": rule["apiGroups"][0]}
            attributes |= {"resource": resource, "subresource": subresource}
            user = f"system:serviceaccount:{self.namespace}:{_ACCOUNT}"
            review = {"spec": {"user": user, "resourceAttributes": attributes}}
            path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            with anyio.fail_after(PATIENCE):
                while not (await self._post(path, review))["status"]["allowed"]:  # noqa: ASYNC110
                    await anyio.sleep(0.05)

    async def _plural(self, prefix: str, kind: str) -> str:
        if (prefix, kind) not in self._plurals:
            served = await self._request("GET", prefix, None)
            for entry in served["resources"]:
                if "/" not in entry["name"]:
                    self._plurals[prefix, entry["kind"]] = entry["name"]
        return self._plurals[prefix, kind]

    async def _served(self, path: str) -> None:
        with anyio.fail_after(PATIENCE):
            while (await self.admin.transport.request("GET", path)).status != 200:  # noqa: ASYNC110
                await anyio.sleep(0.1)

    async def _post(self, path: str, body: Mapping[str, Any], allowed: int = 0) -> dict[str, Any]:
        return await self._request("POST", path, body, allowed)

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, allowed: int = 0
    ) -> dict[str, Any]:
        answer = await self.admin.transport.request(
            method,
            path,
            body=msgspec.json.encode(body) if body is not None else None,
            content_type="application/json" if body is not None else None,
            timeout=PATIENCE,
        )
        assert answer.status < 300 or answer.status == allowed, answer.body.decode()
        decoded: dict[str, Any] = msgspec.json.decode(answer.body)
        return decoded
