# ruff: noqa: T201 - a program that prints
"""The other side of the runtime's benchmarks: an HTTP server that costs next to nothing, in a process of its own.

It knows four things: a list of Pods in pages, a watch that sends as fast as it can, a watch that sends at a pace, and a
PATCH that answers with a custom object. Run by runtime_bench.py; prints its port.
"""

import asyncio
import contextlib
import json
import time
from typing import Any

MANAGED_FIELDS: list[dict[str, Any]] = [
    {
        "manager": manager,
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            f"f:{part}": {
                f"f:field{number}": {f'k:{{"name":"{number}"}}': {".": {}, "f:value": {}}} for number in range(14)
            }
            for part in ("metadata", "spec")
        },
    }
    for manager in ("kube-controller-manager", "kubelet")
]


def pod(number: int, **annotations: str) -> dict[str, Any]:
    """A Pod of about 6 KB as a real cluster's, a third of it managedFields."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"pod-{number:05}",
            "namespace": f"team-{number % 20}",
            "uid": f"00000000-0000-4000-8000-{number:012}",
            "resourceVersion": str(1000 + number),
            "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": f"app-{number % 100}", "agents.x-k8s.io/sandbox-name-hash": f"{number:08x}"},
            "annotations": annotations | {"example.com/note": "x" * 120},
            "ownerReferences": [
                {
                    "apiVersion": "agents.x-k8s.io/v1alpha1",
                    "kind": "Sandbox",
                    "name": f"sandbox-{number}",
                    "uid": f"10000000-0000-4000-8000-{number:012}",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": MANAGED_FIELDS,
        },
        "spec": {
            "nodeName": f"node-{number % 50}",
            "restartPolicy": "Always",
            "serviceAccountName": "default",
            "containers": [
                {
                    "name": name,
                    "image": "registry.example.com/runtime:1.2.3",
                    "command": ["python", "-m", "server"],
                    "env": [{"name": f"VARIABLE_{index}", "value": f"value-{index}"} for index in range(8)],
                    "ports": [{"containerPort": 8888, "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    "imagePullPolicy": "IfNotPresent",
                }
                for name in ("main", "sidecar")
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "hostIP": "192.168.0.1",
            "startTime": "2026-01-01T00:00:00Z",
            "conditions": [
                {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-01-01T00:00:00Z"}
                for kind in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "containerStatuses": [
                {
                    "name": name,
                    "ready": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                    "lastState": {},
                    "image": "registry.example.com/runtime:1.2.3",
                    "imageID": "registry.example.com/runtime@sha256:" + "0" * 64,
                    "containerID": "containerd://" + "0" * 64,
                    "started": True,
                }
                for name in ("main", "sidecar")
            ],
        },
    }


SANDBOX = {
    "apiVersion": "agents.x-k8s.io/v1alpha1",
    "kind": "Sandbox",
    "metadata": {
        "name": "a",
        "namespace": "default",
        "uid": "u",
        "resourceVersion": "7",
        "managedFields": MANAGED_FIELDS,
    },
    "spec": {"podTemplate": {"spec": pod(1)["spec"]}},
    "status": {"conditions": [], "replicas": 1},
}


class Connection(asyncio.Protocol):
    """One connection: requests in, answers out, no framework."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._stream: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def pause_writing(self) -> None:
        self._resumed.clear()

    def resume_writing(self) -> None:
        self._resumed.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = 0
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(*head.split(b" ", 2)[:2])

    def _answer(self, method: bytes, target: bytes) -> None:
        if method == b"PATCH":
            self._send(PATCHED)
        elif b"/api/v1/pods" in target and (b"watch=true" in target or b"watch=True" in target):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            self._transport.write(head)
            paced = b"paced" in target
            self._stream = asyncio.get_running_loop().create_task(self._paced() if paced else self._flood())
        elif b"/api/v1/pods" in target:
            self._send(EMPTY if b"paced" in target else page(target))
        else:
            self._send(b"{}")

    def _send(self, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n" % len(data) + data + b"\r\n")

    async def _flood(self) -> None:
        """All events as fast as the reader takes them, then the end."""
        for start in range(0, len(EVENTS), 16):
            await self._resumed.wait()
            self._chunk(b"".join(EVENTS[start : start + 16]))
        self._transport.write(b"0\r\n\r\n")

    async def _paced(self) -> None:
        """A thousand events per second, each with the moment of its sending."""
        started = time.monotonic()
        with contextlib.suppress(asyncio.CancelledError):
            for number in range(100_000):
                due = started + number / 1000
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self._transport.is_closing():
                    return
                view = pod(number % 2000, sent=repr(time.monotonic()))
                view["metadata"]["resourceVersion"] = str(100_000 + number)
                self._chunk(json.dumps({"type": "MODIFIED", "object": view}).encode() + b"\n")


def page(target: bytes) -> bytes:
    """Five hundred Pods and the name of the next five hundred, of ten thousand."""
    start = int(target.partition(b"continue=")[2].partition(b"&")[0] or 0)
    following = str(start + 500) if start + 500 < len(PODS) else ""
    meta = json.dumps({"resourceVersion": "99999", "continue": following}).encode()
    items = b",".join(PODS[start : start + 500])
    return b'{"kind":"PodList","apiVersion":"v1","metadata":' + meta + b',"items":[' + items + b"]}"


PODS = [json.dumps(pod(number)).encode() for number in range(10_000)]
EVENTS = [b'{"type":"MODIFIED","object":' + data + b"}\n" for data in PODS]
PATCHED = json.dumps(SANDBOX).encode()
EMPTY = b'{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}'


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
