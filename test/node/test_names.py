"""Services resolve by name inside the stack, for those who may ask, and nothing else resolves."""

from collections.abc import Callable
from typing import Any

import anyio

RunNode = Callable[..., Any]
SLEEPER = {"name": "main", "image": "localhost/host", "command": ["sleep", "1000"]}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "db", "namespace": "default"},
    "spec": {"clusterIP": "None", "selector": {"app": "db"}},
}
CLOSED = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed", "namespace": "default"},
    "spec": {"podSelector": {"matchLabels": {"app": "mute"}}, "policyTypes": ["Egress"]},
}


async def _resolve(stack: Any, pod: str, name: str) -> str:
    script = (
        "import socket, sys\n"
        "try: print(socket.gethostbyname(sys.argv[1]))\n"
        "except OSError as error: print(type(error).__name__)"
    )
    session = await stack.execute(pod, "main", ["timeout", "60", "python", "-c", script, name])
    return str(session.out.decode().strip())


async def test_a_service_resolves_by_its_short_and_full_name_and_nothing_outside_does(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.server.create(SERVICE)
        await stack.create_pod("db", {"containers": [SLEEPER]}, labels={"app": "db"})
        await stack.create_pod("one", {"containers": [SLEEPER]}, labels={"app": "one"})
        address = (await stack.until_ready("db")).ips[0]
        await stack.until_ready("one")
        with anyio.fail_after(60):
            while await _resolve(stack, "one", "db") != address:  # noqa: ASYNC110 - nobody tells us
                await anyio.sleep(0.01)

        assert await _resolve(stack, "one", "db.default.svc.cluster.local") == address
        assert await _resolve(stack, "one", "other.default.svc.cluster.local") == "gaierror"
        assert await _resolve(stack, "one", "example.com") == "gaierror"


async def test_a_pod_whose_policy_lets_nothing_out_may_not_even_ask(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.server.create(SERVICE)
        await stack.server.create(CLOSED)
        await stack.create_pod("db", {"containers": [SLEEPER]}, labels={"app": "db"})
        await stack.create_pod("mute", {"containers": [SLEEPER]}, labels={"app": "mute"})
        for name in ("db", "mute"):
            await stack.until_ready(name)

        assert await _resolve(stack, "db", "db") != ""
        assert await _resolve(stack, "mute", "db") == "gaierror"
