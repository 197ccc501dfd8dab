"""NetworkPolicies between real Pods, changed while they run."""

from collections.abc import Callable
from typing import Any

import anyio

from agent_sandbox.kube import MergePatch
from agent_sandbox_api.core import NETWORK_POLICIES, PODS

RunNode = Callable[..., Any]

SERVER = {
    "name": "main",
    "image": "localhost/host",
    "command": [
        "python", "-c",
        "import http.server as h; h.ThreadingHTTPServer(('', 8080), h.SimpleHTTPRequestHandler).serve_forever()",
    ],
    "readinessProbe": {"tcpSocket": {"port": 8080}},
}  # fmt: skip
SLEEPER = {"name": "main", "image": "localhost/host", "command": ["sleep", "1000"]}
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "guests", "namespace": "default"},
    "spec": {
        "podSelector": {"matchLabels": {"role": "server"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "guest"}}}], "ports": [{"port": 8080}]}],
    },
}


async def _reaches(stack: Any, source: str, address: str, port: int) -> bool:
    script = f"import socket; socket.create_connection(('{address}', {port}), timeout=0.3)"
    session = await stack.execute(source, "main", ["python", "-c", script])
    return bool(session.code == 0)


async def _until_it_reaches(stack: Any, source: str, address: str, *, wanted: bool) -> None:
    with anyio.fail_after(60):
        while await _reaches(stack, source, address, 8080) is not wanted:  # noqa: ASYNC110 - nobody tells us
            await anyio.sleep(0.01)


async def test_policies_open_and_close_connections_between_pods_while_they_run(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.create_pod("server", {"containers": [SERVER]}, labels={"role": "server"})
        await stack.create_pod("guest", {"containers": [SLEEPER]}, labels={"role": "guest"})
        await stack.create_pod("stranger", {"containers": [SLEEPER]}, labels={"role": "stranger"})
        address = (await stack.until_ready("server")).ips[0]
        for name in ("guest", "stranger"):
            await stack.until_ready(name)

        assert not await _reaches(stack, "guest", address, 8080)

        await stack.server.create(POLICY)
        await _until_it_reaches(stack, "guest", address, wanted=True)
        assert not await _reaches(stack, "stranger", address, 8080)

        await stack.client.patch(PODS, "stranger", MergePatch({"metadata": {"labels": {"role": "guest"}}}), "default")
        await _until_it_reaches(stack, "stranger", address, wanted=True)

        ranges = [{"ports": [{"port": 8000, "endPort": 8100}], "from": [{"podSelector": {}}]}]
        await stack.client.patch(NETWORK_POLICIES, "guests", MergePatch({"spec": {"ingress": ranges}}), "default")
        await _until_it_reaches(stack, "guest", address, wanted=True)

        policy = await stack.client.get(NETWORK_POLICIES, "guests", "default")
        await stack.client.delete(NETWORK_POLICIES, "guests", "default", uid=policy.metadata.uid)
        await _until_it_reaches(stack, "guest", address, wanted=False)
        await _until_it_reaches(stack, "stranger", address, wanted=False)
        connection = await stack.node.network.connect(address, 8080)
        connection.close()


ECHO = """
import socket
with socket.create_server(("", 8080)) as server:
    print("listening", flush=True)
    connection, _ = server.accept()
    while data := connection.recv(10):
        connection.send(data)
"""
TALK = """
import socket, time
with socket.create_connection(("{address}", 8080), timeout=60) as mine:
    answer = b"x"
    while answer:
        try:
            mine.send(b"x")
            answer = mine.recv(10)
        except OSError:
            break
        print("heard", flush=True)
        time.sleep(0.02)
print("cut off", flush=True)
time.sleep(1000)
"""


async def test_an_established_connection_is_cut_when_no_policy_allows_it_any_more(run_node: RunNode) -> None:
    async with run_node() as stack:
        await stack.server.create(POLICY)
        server = {"name": "main", "image": "localhost/host", "command": ["python", "-c", ECHO]}
        await stack.create_pod("server", {"containers": [server]}, labels={"role": "server"})
        await stack.until_printed("server", "main", "listening")
        address = (await stack.until_ready("server")).ips[0]
        guest = {"name": "main", "image": "localhost/host", "command": ["python", "-c", TALK.format(address=address)]}
        await stack.create_pod("guest", {"containers": [guest]}, labels={"role": "guest"})
        heard = await stack.until_printed("guest", "main", "heard")

        await stack.client.patch(PODS, "guest", MergePatch({"metadata": {"labels": {"role": "stranger"}}}), "default")
        await stack.until_printed("guest", "main", "cut off")

    assert "cut off" not in heard
