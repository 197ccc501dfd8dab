"""What `agent-sandbox local status` tells: whether a stack runs, where, and what is in it."""

from typing import Any

from agent_sandbox.kube import KubeClient, KubeError, connect_to
from agent_sandbox.local.directory import StateDirectory
from agent_sandbox.local.state import find_running_stack
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS
from agent_sandbox_api.views import is_condition_true

Facts = dict[str, Any]


async def read_status(directory: StateDirectory) -> Facts:
    """Collect the facts; a stack that does not answer is reported as such."""
    facts: Facts = {"running": False, "stateDirectory": str(directory.root), "exists": directory.database.exists()}
    record = find_running_stack(directory.root)
    if record is None:
        facts["outlived"] = directory.is_survived()
        return facts
    facts |= {
        "running": True,
        "process": record.pid,
        "started": record.started.isoformat(),
        "api": record.api.url,
        "router": record.router.url,
        "kubeconfig": str(record.kubeconfig),
    }
    client = await connect_to(
        record.api.url, token_file=record.api.token_file, ca_file=record.api.ca_file, request_timeout=5.0
    )
    try:
        facts["objects"] = await _count(client)
    except KubeError as error:
        facts["error"] = str(error)
    finally:
        await client.aclose()
    return facts


async def _count(client: KubeClient) -> Facts:
    sandboxes = (await client.list(SANDBOXES)).items
    claims = (await client.list(SANDBOX_CLAIMS)).items
    pools = (await client.list(SANDBOX_WARM_POOLS)).items
    return {
        "sandboxes": len(sandboxes),
        "readySandboxes": sum(is_condition_true(one.status.conditions, "Ready") for one in sandboxes),
        "claims": len(claims),
        "readyClaims": sum(is_condition_true(one.status.conditions, "Ready") for one in claims),
        "pods": len((await client.list(PODS)).items),
        "warmPools": len(pools),
        "templates": len((await client.list(SANDBOX_TEMPLATES)).items),
    }


def describe(facts: Facts, words: str) -> str:
    """The facts as lines for people, with the next step; ``words`` are the options that mean this stack."""
    if not facts["running"]:
        kept = "its objects are kept" if facts["exists"] else "nothing is kept"
        text = f"No stack runs in {facts['stateDirectory']} ({kept}).\n"
        text += f"Start it: agent-sandbox local up --background{words}"
        if facts["outlived"]:
            text += (
                "\nSandboxes of a killed stack go on: `up` takes them over, "
                f"`agent-sandbox local down{words}` ends them."
            )
        return text
    lines = [
        f"The stack runs as process {facts['process']} since {facts['started']}",
        f"  API server  {facts['api']}",
        f"  router      {facts['router']}",
        f"  kubeconfig  {facts['kubeconfig']}",
        f"  state       {facts['stateDirectory']}",
    ]
    if "error" in facts:
        lines.append(f"  but it does not answer: {facts['error']}")
    else:
        count = facts["objects"]
        lines += [
            f"  sandboxes   {count['readySandboxes']} of {count['sandboxes']} ready, in {count['pods']} Pods",
            f"  claims      {count['readyClaims']} of {count['claims']} ready",
            f"  templates   {count['templates']}, warm pools {count['warmPools']}",
        ]
    return "\n".join(lines)
