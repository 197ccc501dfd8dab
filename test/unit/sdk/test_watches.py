"""What the SDK waits for while an API server is overloaded or away, in virtual time."""

from contextlib import aclosing
from typing import Any

import pytest

from agent_sandbox.kube import KubeClient
from agent_sandbox.sdk.claims import ClaimRequest, create_claim
from agent_sandbox.sdk.gateway import GATEWAYS, find_gateway_url
from agent_sandbox.sdk.watching import ClaimWatch
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.crds import load_crds

pytestmark = pytest.mark.virtual_time
FAULTS = [Fault.error(429, "TooManyRequests"), Fault.error(503), Fault.unreachable()]
GATEWAY_CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gateways.gateway.networking.k8s.io"},
    "spec": {
        "group": "gateway.networking.k8s.io",
        "names": {"plural": "gateways", "singular": "gateway", "kind": "Gateway", "listKind": "GatewayList"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_watch_of_sandboxes_outlives_a_server_that_sheds_load(
    fault: Fault, virtual_clock: VirtualClock
) -> None:
    async with InMemoryApiServer(crds=load_crds()) as server:
        faults, direct = FaultyTransport(server.transport()), KubeClient(server.transport())
        await create_claim(direct, ClaimRequest("python", name="one"), now=virtual_clock.now())
        async with aclosing(ClaimWatch(KubeClient(faults), "default", "").changes()) as changes:
            told = [(await anext(changes)).info.claim_name]
            faults.inject(fault, method="GET", times=3)
            await create_claim(direct, ClaimRequest("python", name="two"), now=virtual_clock.now())
            told.append((await anext(changes)).info.claim_name)

    assert told == ["one", "two"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_gateway_is_found_although_the_server_sheds_load_for_a_while(fault: Fault) -> None:
    async with InMemoryApiServer(crds=[GATEWAY_CRD]) as server:
        faults, direct = FaultyTransport(server.transport()), KubeClient(server.transport())
        addresses = [{"type": "IPAddress", "value": "203.0.113.7"}]
        body = {"metadata": {"name": "front"}, "spec": {}, "status": {"addresses": addresses}}
        await direct.create(GATEWAYS, body, "default")
        faults.inject(fault, method="GET", times=3)

        assert await find_gateway_url(KubeClient(faults), "front", "default", scheme="https", timeout=60) == (
            "https://203.0.113.7"
        )
