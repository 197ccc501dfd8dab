"""Several processes behind one port: a rolling restart under load costs nobody a request that had not begun."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from agent_sandbox.kube import KubeClient, MergePatch
from agent_sandbox.local.apiserver.site import ApiServerSite
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox_api.access import AccessKey
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PODS
from agent_sandbox_api.crds import load_crds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
KEY = AccessKey.generate()


async def answer_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A sandbox: echoes the target of each request."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            target = head.split(b" ")[1]
            await asyncio.sleep(0.04)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def make_sandbox(kube: KubeClient) -> str:
    """A bare Sandbox ``box`` whose Pod is this machine; gives its UID."""
    spec = {"containers": [{"name": "c", "image": "x"}]}
    metadata: dict[str, Any] = {"name": "box", "namespace": "default", "annotations": KEY.annotations}
    uid = (await kube.create(SANDBOXES, {"metadata": metadata, "spec": {"podTemplate": {"spec": spec}}})).metadata.uid
    owner = {"apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "name": "box", "uid": uid, "controller": True}
    labels = {"agents.x-k8s.io/sandbox-name-hash": "x"}
    metadata = {"name": "box", "namespace": "default", "ownerReferences": [owner], "labels": labels}
    await kube.create(PODS, {"metadata": metadata, "spec": spec})
    ready = [{"type": "Ready", "status": "True"}]
    status = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "conditions": ready}
    await kube.patch(PODS, "box", MergePatch({"status": status}), "default", subresource="status")
    return uid


@dataclass
class Served:
    """A running command and how to reach it."""

    process: anyio.abc.Process
    port: int
    control: int
    request: bytes

    async def control_answer(self, path: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.control)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: c\r\n\r\n".encode())
        try:
            return (await reader.read()).decode()
        finally:
            writer.close()


@asynccontextmanager
async def serving(tmp_path: Path, workers: int) -> AsyncIterator[Served]:
    """The command with that many workers, before an API server and a sandbox of its own."""
    async with InMemoryApiServer(crds=load_crds()) as api:
        uid = await make_sandbox(KubeClient(api.transport()))
        site = await ApiServerSite.prepare(api.server, tmp_path / "api", port=0)
        server = await asyncio.start_server(answer_for_ever, "127.0.0.1", 0)
        async with site, server:
            credential = KEY.sign(namespace="default", name="box", uid=uid, expires=int(time.time()) + 300)
            request = (
                f"GET /%d HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: box\r\n"
                f"X-Sandbox-Port: {server.sockets[0].getsockname()[1]}\r\n"
                f"X-Sandbox-Authorization: Bearer {credential}\r\n\r\n"
            ).encode()
            flags = ["--port", "0", "--control-port", "0", "--no-access-log", "--workers", str(workers)]
            flags += ["--kubeconfig", str(site.credentials.kubeconfig_file), "--drain-delay", "0.5"]
            process = await anyio.open_process(
                [sys.executable, "-m", "agent_sandbox", "router", *flags], stdout=None, stderr=-1
            )
            try:
                port, control = await said_where(process)
                yield Served(process, port, control, request)
            finally:
                with suppress(ProcessLookupError):
                    process.terminate()
                with anyio.CancelScope(shield=True):
                    await process.wait()
                    await process.aclose()


async def said_where(process: anyio.abc.Process) -> tuple[int, int]:
    """The ports that the command's log names."""
    assert process.stderr is not None
    text = ""
    with anyio.fail_after(120):
        while True:
            text += (await process.stderr.receive()).decode()
            found = [json.loads(line) for line in text.splitlines() if '"event": "serving"' in line and line[-1] == "}"]
            if found:
                return int(found[0]["url"].rpartition(":")[2]), int(found[0]["control"].rpartition(":")[2])


@dataclass
class Load:
    """Clients that ask without a pause; half of them over kept connections."""

    served: Served
    failures: list[str] = field(default_factory=list)
    count: int = 0
    stop: bool = False

    async def run(self, number: int) -> None:
        keep = number % 2 == 0
        link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self.stop:
            self.count += 1
            asked = self.count
            try:
                reader, writer = link or await asyncio.open_connection("127.0.0.1", self.served.port)
                writer.write(self.served.request % asked)
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(len(b"/%d" % asked))
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"{asked}: {type(error).__name__} {error}")
                link = None
                continue
            if not head.startswith(b"HTTP/1.1 200") or body != b"/%d" % asked:
                self.failures.append(f"{asked}: {head!r} {body!r}")
            link = (reader, writer) if keep and b"Connection: close" not in head else None
            if link is None:
                writer.close()
        if link is not None:
            link[1].close()


async def until(true: Callable[[], bool]) -> None:
    """Look again and again at other processes, which tell nobody when they change."""
    with anyio.fail_after(120):
        while not true():  # noqa: ASYNC110
            await anyio.sleep(0.05)


def workers_of(served: Served) -> set[int]:
    """Process ids of the command's children."""
    listed = Path(f"/proc/{served.process.pid}/task/{served.process.pid}/children").read_text()
    return {int(text) for text in listed.split()}


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for whoever adopted it to look at it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


async def test_rolling_restart_under_load_fails_no_request(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2) as served:
        before, load = workers_of(served), Load(served)
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(load.run, number)
            await anyio.sleep(0.5)
            served.process.send_signal(signal.SIGHUP)
            await until(lambda: not workers_of(served) & before and len(workers_of(served)) == 2)
            await until(lambda: load.count > 100)
            load.stop = True
        metrics = await served.control_answer("/metrics")
        ready = await served.control_answer("/readyz")

    assert load.failures == []
    counted = f'sandbox_router_requests_total{{code="200",method="GET",sandbox_namespace="default"}} {load.count}.0'
    assert counted in metrics, "the workers' counters are one, those of replaced workers included"
    assert "sandbox_router_inflight_requests 0.0" in metrics
    assert ready.startswith("HTTP/1.1 200")


async def test_worker_that_dies_is_replaced_and_its_connections_wait(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2) as served:
        for worker in (victims := workers_of(served)):
            os.kill(worker, signal.SIGKILL)
        load = Load(served)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(load.run, 1)
            await until(lambda: load.count >= 20)
            load.stop = True
        assert load.failures == []
        assert not workers_of(served) & victims


async def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    async with serving(tmp_path, workers=2) as served:
        left = workers_of(served)
        served.process.kill()
        await served.process.wait()
        await until(lambda: not any(lives(worker) for worker in left))
