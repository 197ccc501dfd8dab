"""What the shows have in common: a real Kubernetes with our CRDs and roles, an audit log, and a hollow node.

Out: a running API server whose audit log holds every write of the controllers' service account, so that writes are
counted by the server and not by us; and Pods that run although there is no node.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from agent_sandbox.kube import ConflictError, EventType, KubeClient, MergePatch, NotFoundError
from agent_sandbox.testing.envtest import ASSETS_VARIABLE, KubeAssets, Kubernetes, kubernetes
from agent_sandbox_api.core import PODS, PodView

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "config"
SYSTEM = "agent-sandbox-system"
ACCOUNT = "agent-sandbox-controller"
LEASE = "agent-sandbox-controller"
NAMESPACE = "show"
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {
            "level": "Metadata",
            "users": [f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"],
            "verbs": ["create", "update", "patch", "delete", "deletecollection"],
        },
        {"level": "None"},
    ],
}


def say(text: str = "") -> None:
    """Print one line at once, also into a pipe."""
    print(text, flush=True)


async def until(holds: Callable[[], bool], every: float = 0.05) -> None:
    """Wait until something holds of which nobody tells us."""
    while not holds():  # noqa: ASYNC110 - other processes
        await anyio.sleep(every)


def assets() -> KubeAssets:
    """The programs named by the environment, else those that `make kube-assets` built."""
    built = sorted((Path.home() / ".cache" / "agent-sandbox" / "kube").glob("v*"))
    return KubeAssets.find(os.environ.get(ASSETS_VARIABLE) or (built[-1] if built else None))


@dataclass
class Audit:
    """The server's own record of what the controllers' account wrote."""

    path: Path
    _offset: int = 0
    _entries: list[dict[str, Any]] = field(default_factory=list)

    def entries(self) -> list[dict[str, Any]]:
        """All writes so far, leases aside."""
        if self.path.exists():
            with self.path.open("rb") as log:
                log.seek(self._offset)
                text = log.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._offset += len(whole)
            read = [json.loads(line) for line in whole.splitlines()]
            self._entries += [each for each in read if each["objectRef"]["resource"] != "leases"]
        return self._entries

    def count(self, entries: list[dict[str, Any]]) -> tuple[Counter[str], Counter[str]]:
        """How many writes succeeded and how many were refused, by verb and kind."""
        done: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        for entry in entries:
            what = entry["objectRef"]
            name = f"{entry['verb']:<7}{what['resource']}" + (
                f"/{what['subresource']}" if what.get("subresource") else ""
            )
            code = entry.get("responseStatus", {}).get("code", 0)
            if code < 300:
                done[name] += 1
            else:
                why = "cut off when the writer died" if code == 504 else f"refused with {code}"
                refused[f"{name}, {why}"] += 1
        return done, refused


@contextmanager
def cluster() -> Iterator[tuple[Kubernetes, Path, Audit]]:
    """A Kubernetes with everything applied; gives it, a kubeconfig of the controllers' account, and the audit log."""
    with tempfile.TemporaryDirectory(prefix="agent-sandbox-show-") as name:
        folder = Path(name)
        policy, log = folder / "audit-policy.json", folder / "audit.log"
        policy.write_text(json.dumps(AUDIT_POLICY))
        flags = [f"--audit-policy-file={policy}", f"--audit-log-path={log}"]
        with kubernetes(folder, assets=assets(), controller_manager=True, api_server_arguments=flags) as server:
            server.kubectl("apply", "-f", str(CONFIG / "manager" / "namespace.yaml"))
            for part in ("crd", "rbac"):
                server.kubectl("apply", "--server-side", "-k", str(CONFIG / part))
            server.wait_until_served()
            server.kubectl("create", "namespace", NAMESPACE)
            server.kubectl("wait", "--for=create", "serviceaccount/default", "-n", NAMESPACE, "--timeout=30s")
            yield server, server.kubeconfig_for_service_account(SYSTEM, ACCOUNT), Audit(log)


@dataclass
class HollowNode:
    """Reports every new Pod as running, without running it.

    Attributes:
        client: an administrator.
        seconds: how long a Pod takes to be Ready.
        answers: by Pod name, a status to report instead.
    """

    client: KubeClient
    seconds: float = 1.0
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    _number: int = 0

    async def run(self) -> None:
        """Until cancelled; a watch that ends is taken up where it ended."""
        found = await self.client.list(PODS, NAMESPACE)
        version = found.resource_version
        async with anyio.create_task_group() as tasks:
            while True:
                async with self.client.watch(PODS, NAMESPACE, resource_version=version, timeout_seconds=600) as events:
                    async for event in events:
                        if event.type == EventType.ADDED:
                            tasks.start_soon(self._start, event.object)
                        if event.type != EventType.BOOKMARK:
                            version = event.object.metadata.resource_version

    async def _start(self, pod: PodView) -> None:
        await anyio.sleep(self.seconds)
        self._number += 1
        address = f"10.9.{self._number >> 8}.{self._number & 255}"
        ready = [{"type": name, "status": "True"} for name in ("PodScheduled", "Ready")]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": ready}
        await self.report(pod, self.answers.get(pod.metadata.name, status))

    async def report(self, pod: PodView, status: dict[str, Any]) -> None:
        """Write a Pod's status, if it is still there."""
        body = {"metadata": {"uid": pod.metadata.uid}, "status": status}
        try:
            await self.client.patch(PODS, pod.metadata.name, MergePatch(body), NAMESPACE, subresource="status")
        except (NotFoundError, ConflictError):
            return
