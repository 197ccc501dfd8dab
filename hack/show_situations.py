"""Ten failure situations on a real kube-apiserver, as `kubectl describe` tells them.

    hack/show_situations.py [FILE]      writes what kubectl says of each object concerned; by default to standard output

Read it as a newcomer would: each situation must say what is wrong, with which object, and what to do.
"""

import argparse
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient, KubeError, MergePatch, connect
from agent_sandbox.testing.envtest import Kubernetes
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import NETWORK_POLICIES, PERSISTENT_VOLUME_CLAIMS, PODS
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS
from agent_sandbox_api.names import name_hash
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import find_condition
from show_burst import processes
from show_cluster import NAMESPACE, HollowNode, cluster, say

PATIENCE = 25.0
"""Seconds for a situation to arise; what does not is shown as it is, and said."""
SPEC = {"containers": [{"name": "main", "image": "python-runtime-sandbox", "ports": [{"containerPort": 8888}]}]}
VOLUME = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


@dataclass
class Stage:
    """Where the situations are produced.

    Attributes:
        server: for kubectl.
        client: an administrator.
        node: the hollow node.
        text: what was shown so far.
    """

    server: Kubernetes
    client: KubeClient
    node: HollowNode
    text: list[str] = field(default_factory=list)

    async def make(self, resource: Resource[Any], name: str, spec: dict[str, Any], **metadata: Any) -> Any:
        """Create one object."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name, **metadata}}
        return await self.client.create(resource, {**body, "spec": spec}, NAMESPACE)

    async def template(self, name: str, **spec: Any) -> None:
        """A template with the usual Pod."""
        await self.make(SANDBOX_TEMPLATES, name, {"podTemplate": {"spec": SPEC}, **spec})

    async def until(self, resource: Resource[Any], name: str, reason: str) -> None:
        """Wait until the object's Ready condition has that reason; ``True`` waits until it is Ready."""
        with anyio.move_on_after(PATIENCE) as scope:
            while True:
                view = await self.client.get(resource, name, NAMESPACE)
                ready = find_condition(view.status.conditions, "Ready")
                if ready is not None and (ready.reason == reason or (reason, ready.status) == ("True", "True")):
                    return
                await anyio.sleep(0.1)
        if scope.cancelled_caught:
            self.text.append(f"(!) {resource.kind} {name} did not say {reason} within {PATIENCE:g} s")

    async def describe(self, resource: Resource[Any], name: str) -> None:
        """Add what kubectl says."""
        kind = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
        for words in (("get", kind, name), ("describe", kind, name)):
            command = [*words, "-n", NAMESPACE]
            done = await anyio.to_thread.run_sync(partial(self.server.kubectl, *command, check=False))
            self.text += [f"$ kubectl {' '.join(words)}", done.stdout + done.stderr]


async def missing_template(stage: Stage) -> None:
    """A claim and a pool of a template that does not exist."""
    wanted = {"sandboxTemplateRef": {"name": "nowhere"}}
    await stage.make(SANDBOX_CLAIMS, "lost", wanted)
    await stage.make(SANDBOX_WARM_POOLS, "lost-pool", {"replicas": 2, **wanted})
    await stage.until(SANDBOX_CLAIMS, "lost", "TemplateNotFound")
    await stage.until(SANDBOX_WARM_POOLS, "lost-pool", "MembersNotReady")
    await stage.describe(SANDBOX_CLAIMS, "lost")
    await stage.describe(SANDBOX_WARM_POOLS, "lost-pool")


async def quota(stage: Stage) -> None:
    """No Pods left in the quota."""
    here = [each for each in (await stage.client.list(PODS, NAMESPACE)).items if not each.metadata.deleting]
    hard = f"--hard=pods={len(here)}"
    command = ["create", "quota", "few-pods", hard, "-n", NAMESPACE]
    await anyio.to_thread.run_sync(lambda: stage.server.kubectl(*command))
    full = {
        "hard": {"pods": str(len(here))},
        "used": {"pods": str(len(here))},
    }  # nobody counts here: no quota controller
    patch = ["patch", "quota", "few-pods", "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p"]
    await anyio.to_thread.run_sync(partial(stage.server.kubectl, *patch, json.dumps({"status": full})))
    await anyio.sleep(1)
    await stage.template("frugal")
    await stage.make(SANDBOX_CLAIMS, "too-many", {"sandboxTemplateRef": {"name": "frugal"}})
    await stage.make(SANDBOX_WARM_POOLS, "too-many-pool", {"replicas": 2, "sandboxTemplateRef": {"name": "frugal"}})
    await stage.until(SANDBOX_CLAIMS, "too-many", "QuotaExceeded")
    await anyio.sleep(3)
    await stage.describe(SANDBOX_CLAIMS, "too-many")
    await stage.describe(SANDBOXES, "too-many")
    await stage.describe(SANDBOX_WARM_POOLS, "too-many-pool")
    await anyio.to_thread.run_sync(lambda: stage.server.kubectl("delete", "quota", "few-pods", "-n", NAMESPACE))


async def bad_image(stage: Stage) -> None:
    """An image that nobody has."""
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "no/such:image"'}
    container = {"name": "main", "image": "no/such:image", "imageID": "", "ready": False, "restartCount": 0}
    stage.node.answers["typo"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}],
        "containerStatuses": [{**container, "state": {"waiting": waiting}}],
    }
    await stage.template("misspelt")
    await stage.make(SANDBOX_CLAIMS, "typo", {"sandboxTemplateRef": {"name": "misspelt"}})
    await stage.until(SANDBOX_CLAIMS, "typo", "ImagePullBackOff")
    await stage.describe(SANDBOX_CLAIMS, "typo")
    await stage.describe(SANDBOXES, "typo")


async def foreign_volume(stage: Stage) -> None:
    """A PersistentVolumeClaim of the wanted name that is somebody else's."""
    await stage.make(PERSISTENT_VOLUME_CLAIMS, "data-borrower", VOLUME)
    volumes = [{"metadata": {"name": "data"}, "spec": VOLUME}]
    await stage.make(SANDBOXES, "borrower", {"podTemplate": {"spec": SPEC}, "volumeClaimTemplates": volumes})
    await stage.until(SANDBOXES, "borrower", "ReconcilerError")
    await stage.describe(SANDBOXES, "borrower")


async def evicted(stage: Stage) -> None:
    """A Pod that its node evicted."""
    await stage.make(SANDBOXES, "homeless", {"podTemplate": {"spec": SPEC}})
    await stage.until(SANDBOXES, "homeless", "True")
    pod = await stage.client.get(PODS, "homeless", NAMESPACE)
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    stage.node.seconds = 8
    await stage.node.report(pod, status)
    await anyio.sleep(6)
    await stage.describe(SANDBOXES, "homeless")
    stage.node.seconds = 0.5


async def expired(stage: Stage) -> None:
    """A claim and a Sandbox whose time is up, kept as a record."""
    end = (SystemClock().now() + timedelta(seconds=3)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await stage.make(
        SANDBOXES, "over", {"podTemplate": {"spec": SPEC}, "shutdownTime": end, "shutdownPolicy": "Retain"}
    )
    await stage.template("brief")
    lifecycle = {"shutdownTime": end, "shutdownPolicy": "Retain"}
    await stage.make(SANDBOX_CLAIMS, "over-claim", {"sandboxTemplateRef": {"name": "brief"}, "lifecycle": lifecycle})
    await stage.until(SANDBOXES, "over", "SandboxExpired")
    await stage.until(SANDBOX_CLAIMS, "over-claim", "ClaimExpired")
    await stage.describe(SANDBOXES, "over")
    await stage.describe(SANDBOX_CLAIMS, "over-claim")


async def suspended(stage: Stage) -> None:
    """A claim whose Sandbox was suspended."""
    await stage.template("drowsy")
    await stage.make(SANDBOX_CLAIMS, "asleep", {"sandboxTemplateRef": {"name": "drowsy"}})
    await stage.until(SANDBOX_CLAIMS, "asleep", "True")
    await stage.client.set_scale(SANDBOXES, "asleep", 0, NAMESPACE)
    await stage.until(SANDBOX_CLAIMS, "asleep", "SandboxSuspended")
    await anyio.sleep(1)
    await stage.describe(SANDBOXES, "asleep")
    await stage.describe(SANDBOX_CLAIMS, "asleep")


async def policy_not_yet(stage: Stage) -> None:
    """Somebody else's NetworkPolicy has the name, so the template's own cannot stand."""
    await stage.make(NETWORK_POLICIES, "walled-network-policy", {"podSelector": {"matchLabels": {"app": "theirs"}}})
    await stage.template("walled")
    await stage.make(SANDBOX_CLAIMS, "outside", {"sandboxTemplateRef": {"name": "walled"}})
    await stage.make(SANDBOX_WARM_POOLS, "outside-pool", {"replicas": 1, "sandboxTemplateRef": {"name": "walled"}})
    await stage.until(SANDBOX_CLAIMS, "outside", "NetworkPolicyNotReady")
    await anyio.sleep(3)
    for resource, name in (
        (SANDBOX_TEMPLATES, "walled"),
        (SANDBOX_CLAIMS, "outside"),
        (SANDBOXES, "outside"),
        (SANDBOX_WARM_POOLS, "outside-pool"),
    ):
        await stage.describe(resource, name)


async def name_collision(stage: Stage) -> None:
    """A Sandbox of the claim's name exists."""
    await stage.make(SANDBOXES, "twin", {"podTemplate": {"spec": SPEC}})
    await stage.template("same")
    await stage.make(SANDBOX_CLAIMS, "twin", {"sandboxTemplateRef": {"name": "same"}})
    await stage.until(SANDBOX_CLAIMS, "twin", "SandboxNameConflict")
    await stage.describe(SANDBOX_CLAIMS, "twin")


async def spoofed_member(stage: Stage) -> None:
    """A Sandbox with a member's labels and a forged owner that does not exist."""
    await stage.template("true")
    await stage.make(SANDBOX_WARM_POOLS, "true-pool", {"replicas": 1, "sandboxTemplateRef": {"name": "true"}})
    owner = {
        "apiVersion": SANDBOX_WARM_POOLS.api_version,
        "kind": "SandboxWarmPool",
        "name": "true-pool",
        "uid": "11111111-2222-3333-4444-555555555555",
        "controller": True,
    }
    labels = {"agents.x-k8s.io/warm-pool-sandbox": name_hash("true-pool")}
    spec = {"podTemplate": {"spec": SPEC}}
    keep = ["example.com/keep-for-a-look"]
    await stage.make(SANDBOXES, "forged", spec, labels=labels, ownerReferences=[owner], finalizers=keep)
    await stage.make(SANDBOXES, "pretender", spec, labels=labels)
    await anyio.sleep(8)
    await stage.describe(SANDBOXES, "forged")
    await stage.describe(SANDBOXES, "pretender")
    await stage.describe(SANDBOX_WARM_POOLS, "true-pool")
    await stage.client.patch(SANDBOXES, "forged", MergePatch({"metadata": {"finalizers": None}}), NAMESPACE)


SITUATIONS: list[Callable[[Stage], Awaitable[None]]] = [
    missing_template,
    bad_image,
    foreign_volume,
    evicted,
    expired,
    suspended,
    policy_not_yet,
    name_collision,
    spoofed_member,
    quota,
]


async def show(server: Kubernetes, kubeconfig: Path) -> list[str]:
    """Produce all situations, one after the other."""
    client, hollow = await connect(server.kubeconfig), await connect(server.kubeconfig)
    stage = Stage(server, client, HollowNode(hollow, 0.5))
    async with processes(kubeconfig, server.folder, elects=False) as managers, anyio.create_task_group() as tasks:
        tasks.start_soon(stage.node.run)
        for number, situation in enumerate(SITUATIONS, start=1):
            title = f"{number}. {situation.__name__.replace('_', ' ')}: {situation.__doc__}"
            stage.text += ["", "=" * len(title), title, "=" * len(title)]
            try:
                await situation(stage)
            except KubeError as error:
                stage.text.append(f"(!) {error}")
        stage.text += [f"(!) in a log: {line}" for line in managers.errors()]
        tasks.cancel_scope.cancel()
    await client.aclose()
    await hollow.aclose()
    return stage.text


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="where to write; standard output by default")
    arguments = parser.parse_args()
    with cluster() as (server, kubeconfig, _):
        text = "\n".join(anyio.run(show, server, kubeconfig))
    if arguments.file is None:
        say(text)
    else:
        arguments.file.write_text(text + "\n")
        say(f"{len(SITUATIONS)} situations in {arguments.file}")


if __name__ == "__main__":
    main()
