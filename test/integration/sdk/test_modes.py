"""The ways to sandboxes: one suite of operations over every mode, and what goes wrong on the way."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from anyio.abc import ByteStream

from agent_sandbox.kube import KubeClient, MergePatch
from agent_sandbox.local.apiserver.site import ApiServerSite
from agent_sandbox.local.state import Endpoint, StackRecord
from agent_sandbox.sdk import (
    AsyncSandboxClient,
    AsyncSandboxes,
    CommandTimeoutError,
    ConnectionOptions,
    GatewayTimeoutError,
    SandboxConfigError,
    SandboxPermissionError,
    SandboxPortForwardError,
    Terminal,
)
from agent_sandbox.testing.pretend_cluster import PretendCluster
from agent_sandbox_api.core import PODS, SERVICES
from agent_sandbox_api.names import ROUTER_SERVICE

GATEWAY_CRD = {
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


def port_of(url: str) -> int:
    """The port of a URL."""
    return int(url.rpartition(":")[2])


async def make_router_pod(kube: KubeClient, namespace: str, port: int, *, ready: bool = True) -> None:
    """A Service of the router and a Pod behind it whose port has a name."""
    labels = {"app": "sandbox-router"}
    container = {"name": "router", "image": "x", "ports": [{"name": "http", "containerPort": port}]}
    await kube.create(
        SERVICES,
        {
            "metadata": {"name": ROUTER_SERVICE, "namespace": namespace},
            "spec": {"selector": labels, "ports": [{"port": 8080, "targetPort": "http"}]},
        },
    )
    await make_pod(kube, namespace, "router-1", labels, container, ready=ready)


async def make_pod(
    kube: KubeClient, namespace: str, name: str, labels: dict[str, str], container: dict[str, Any], *, ready: bool
) -> None:
    """A running Pod."""
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    await kube.create(PODS, {"metadata": metadata, "spec": {"nodeName": "local", "containers": [container]}})
    status = {
        "phase": "Running",
        "podIP": "10.0.0.7",
        "podIPs": [{"ip": "10.0.0.7"}],
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }
    await kube.patch(PODS, name, MergePatch({"status": status}), namespace, subresource="status")


async def connect_locally(pod: dict[str, Any], port: int) -> ByteStream:
    """Stands in for the node: a Pod's port is the same port of this machine."""
    return await anyio.connect_tcp("127.0.0.1", port)


@asynccontextmanager
async def serving_site(cluster: PretendCluster, directory: Path) -> AsyncIterator[ApiServerSite]:
    """The cluster's API server with TLS and a token, so that it can be reached with a kubeconfig."""
    cluster.api.server.providers.port_forward = connect_locally
    site = await ApiServerSite.prepare(cluster.api.server, directory, port=0)
    async with site:
        yield site


@asynccontextmanager
async def options_of(mode: str, cluster: PretendCluster, tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """Arguments of a client for that mode."""
    async with AsyncExitStack() as stack:
        if mode == "direct":
            yield {"kube": cluster.kube, "api_url": cluster.api_url + "/"}
        elif mode == "gateway":
            await cluster.api.create(GATEWAY_CRD)
            await cluster.api.create(gateway())
            host = cluster.api_url.removeprefix("http://")
            yield {"kube": cluster.kube, "gateway_name": "front", "proxy": f"http://{host}"}
        elif mode == "tunnel":
            site = await stack.enter_async_context(serving_site(cluster, tmp_path / "api"))
            await make_router_pod(cluster.kube, "default", port_of(cluster.api_url))
            yield {"kubeconfig": site.credentials.kubeconfig_file, "local": False}
        elif mode == "local":
            site = await stack.enter_async_context(serving_site(cluster, tmp_path / "api"))
            (tmp_path / "router-token").write_text("router-secret\n")
            StackRecord.of_this_process(
                started=datetime.now(UTC),
                api=Endpoint(site.url, site.credentials.token_file, site.credentials.ca_file),
                router=Endpoint(cluster.api_url, tmp_path / "router-token"),
                kubeconfig=site.credentials.kubeconfig_file,
            ).write(tmp_path / "state")
            yield {"local": True, "state_dir": tmp_path / "state"}
        elif mode == "in-cluster":
            host = cluster.api_url.removeprefix("http://")
            yield {"kube": cluster.kube, "mode": "in-cluster", "proxy": f"http://{host}"}
        elif mode == "pod":
            cluster.pod_ip = "127.0.0.1"
            yield {"kube": cluster.kube, "mode": "pod", "server_port": port_of(cluster.api_url)}


def gateway(value: str = "203.0.113.7") -> dict[str, Any]:
    """A Gateway with an address; the client reaches it through a proxy that stands for the network."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "front", "namespace": "default"},
        "spec": {},
        "status": {"addresses": [{"type": "Hostname", "value": "2130706433"}, {"value": value}]},
    }


async def use_everything(sandbox: AsyncSandboxClient, here: Path) -> None:
    """What a program does with a sandbox, the same in every mode."""
    assert await sandbox.is_ready()
    assert (await sandbox.run("echo 42")).stdout == "42\n"
    await sandbox.write("d/ü.txt", "x" * 300_000)
    assert await sandbox.read("d/ü.txt") == b"x" * 300_000
    with pytest.raises(FileNotFoundError):
        await sandbox.read("nope")

    commands, pieces = sandbox.commands, list[str]()
    result = await commands.run("cat; echo no >&2; exit 3", stdin="in", on_stdout=pieces.append)
    assert (result.stdout, result.stderr, result.exit_code, pieces) == ("in", "no\n", 3, ["in"])
    with pytest.raises(CommandTimeoutError) as caught:
        await commands.run("echo begun; exec sleep 1000", timeout=1.5)
    assert (caught.value.stdout, caught.value.killed) == ("begun\n", True)
    process = await commands.start("echo one; read x; echo $x; exec sleep 1000", stdin=True)
    assert (await anext(process)).text == "one\n"
    await process.detach()
    again = await commands.connect(process.id, after=1)
    await again.send_stdin("two\n")
    assert (await anext(again)).text == "two\n"
    await again.kill()
    assert (await again.wait()).exit_code == -9
    shell = await commands.start("read x; stty size", terminal=Terminal(100, 30))
    await shell.resize(120, 40)
    await shell.send_stdin("\n")
    assert "40 120" in (await shell.wait()).stdout

    files = sandbox.files
    (here / "up").write_bytes(bytes(3_000_000))
    assert await files.upload(here / "up", "d/big") == await files.download("d/big", here / "down") == 3_000_000
    assert [entry.name for entry in await files.list("d")] == ["big", "ü.txt"]
    assert len(b"".join([piece async for piece in files.stream("d/big", start=2_999_000)])) == 1000
    await files.rename("d/big", "d/b")
    assert (await files.stat("d/b")).size == 3_000_000
    assert [match.path for match in await files.search(".", name="b")] == ["d/b"]
    with pytest.raises(SandboxPermissionError):
        await files.write("/etc/passwd", "x")
    assert isinstance(await sandbox.ports.list(), list | tuple)


@pytest.mark.parametrize("mode", ["direct", "gateway", "tunnel", "local", "in-cluster", "pod"])
async def test_the_methods_do_the_same_in_every_mode(mode: str, cluster: PretendCluster, tmp_path: Path) -> None:
    async with options_of(mode, cluster, tmp_path) as options, AsyncSandboxClient("python", **options) as sandbox:
        await use_everything(sandbox, tmp_path)
        base_url = sandbox.base_url
    assert await cluster.claim_names() == []
    headers = cluster.requests[-1]
    assert ("X-Sandbox-ID" in headers) == (mode != "pod")
    shown = headers.get("X-Sandbox-Authorization", "")
    assert shown == {"local": "Bearer router-secret", "pod": ""}.get(mode, shown)
    assert shown.startswith("Bearer v2.") == (mode not in ("local", "pod")), "a token of the claim's own key"
    if mode == "in-cluster":
        assert base_url == "http://sandbox-router-svc.agent-sandbox-system.svc:8080"


async def test_a_gateway_address_that_comes_later_is_waited_for(cluster: PretendCluster) -> None:
    await cluster.api.create(GATEWAY_CRD)
    host = cluster.api_url.removeprefix("http://")

    async def come_later() -> None:
        await anyio.sleep(0.05)
        await cluster.api.create(gateway())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(come_later)
        async with AsyncSandboxClient("python", kube=cluster.kube, gateway_name="front", proxy=f"http://{host}") as box:
            assert box.base_url == "http://203.0.113.7"


async def test_a_gateway_without_address_is_a_timeout_and_makes_no_claim(cluster: PretendCluster) -> None:
    await cluster.api.create(GATEWAY_CRD)
    await cluster.api.create(gateway("0x7f.1"))
    client = AsyncSandboxClient("python", kube=cluster.kube, gateway_name="front", gateway_ready_timeout=1)

    with pytest.raises(GatewayTimeoutError, match="no usable address"):
        await client.__aenter__()
    assert client.claim_name is None
    assert await cluster.claim_names() == []


async def test_a_tunnel_without_router_says_where_it_looked(cluster: PretendCluster, tmp_path: Path) -> None:
    async with serving_site(cluster, tmp_path / "api") as site:
        client = AsyncSandboxClient(
            "python", kubeconfig=site.credentials.kubeconfig_file, local=False, port_forward_ready_timeout=1
        )
        with pytest.raises(
            SandboxPortForwardError, match="no Service sandbox-router-svc in agent-sandbox-system or def"
        ):
            await client.__aenter__()
        await make_router_pod(cluster.kube, "default", 1, ready=False)
        with pytest.raises(SandboxPortForwardError, match="is ready"):
            await client.__aenter__()


async def test_a_tunnel_whose_router_refuses_is_a_connection_error(cluster: PretendCluster, tmp_path: Path) -> None:
    async with serving_site(cluster, tmp_path / "api") as site:
        await make_router_pod(cluster.kube, "default", 1)
        options = ConnectionOptions(
            kubeconfig=site.credentials.kubeconfig_file, local=False, port_forward_ready_timeout=0.5
        )
        async with AsyncSandboxes(options=options) as sandboxes:
            sandbox = await sandboxes.create("python")
            with pytest.raises(RuntimeError):
                await sandbox.run("true", timeout=1)


async def test_a_port_of_the_sandbox_becomes_a_port_here(cluster: PretendCluster, tmp_path: Path) -> None:
    async def echo(stream: ByteStream) -> None:
        async with stream:
            async for chunk in stream:
                await stream.send(chunk.upper())

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = int(listener.extra(anyio.abc.SocketAttribute.local_port))
    async with serving_site(cluster, tmp_path / "api") as site, listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, echo)
        options = ConnectionOptions(
            kubeconfig=site.credentials.kubeconfig_file, local=False, mode="direct", api_url=cluster.api_url
        )
        async with AsyncSandboxes(options=options) as sandboxes:
            sandbox = await sandboxes.create("python")
            await make_pod(
                cluster.kube, "default", f"pod-of-{sandbox.claim_name}", {}, {"name": "m", "image": "x"}, ready=True
            )
            async with sandbox.ports.forward(port) as local:
                first, second = await anyio.connect_tcp("127.0.0.1", local), await anyio.connect_tcp("127.0.0.1", local)
                async with first, second:
                    await first.send(b"one" * 50_000)
                    await second.send(b"two")
                    received = b""
                    while len(received) < 150_000:
                        received += await first.receive()
                    assert received == b"ONE" * 50_000
                    assert await second.receive() == b"TWO"
        tasks.cancel_scope.cancel()


async def test_a_port_has_a_url_and_the_headers_that_lead_to_it(cluster: PretendCluster) -> None:
    async with AsyncSandboxClient("python", kube=cluster.kube, api_url=cluster.api_url) as sandbox:
        assert sandbox.ports.url(3000) == cluster.api_url
        headers = sandbox.ports.headers(3000)

        assert headers["X-Sandbox-Port"] == "3000"
        assert headers["X-Sandbox-ID"] == sandbox.sandbox_name
        await sandbox.ports.wait(port_of(cluster.api_url), timeout=60)


async def test_an_unknown_context_is_an_error_that_names_it(cluster: PretendCluster, tmp_path: Path) -> None:
    async with serving_site(cluster, tmp_path / "api") as site:
        client = AsyncSandboxClient("python", kubeconfig=site.credentials.kubeconfig_file, context="nope")
        with pytest.raises(SandboxConfigError, match="nope"):
            await client.__aenter__()


async def test_a_redirect_is_never_followed(cluster: PretendCluster) -> None:
    hits: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        hits.append(request.path)
        raise web.HTTPTemporaryRedirect("http://127.0.0.1:1/elsewhere")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with AsyncSandboxClient("python", kube=cluster.kube, api_url=url) as sandbox:
            with pytest.raises(RuntimeError, match="redirect"):
                await sandbox.run("true")
    finally:
        await runner.cleanup()
    assert hits == ["/execute"]
