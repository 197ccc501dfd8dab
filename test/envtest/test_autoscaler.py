"""Kubernetes' own HorizontalPodAutoscaler sizes a pool as examples/hpa says, by an external metric."""

import json
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent_sandbox.testing.envtest import Kubernetes

pytestmark = [pytest.mark.envtest, pytest.mark.slow, pytest.mark.timeout(480)]

REPOSITORY = Path(__file__).resolve().parents[2]
GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
METRIC = "agent_sandbox_warm_pool_claims_per_second"


class Adapter(BaseHTTPRequestHandler):
    """Says what prometheus-adapter would say while 0.75 claims come each second."""

    asked: set[tuple[str, str]]

    def do_GET(self) -> None:
        """Discovery, and the one metric."""
        path, _, query = self.path.partition("?")
        answer: dict[str, Any]
        if path == f"/apis/{GROUP}/{VERSION}":
            answer = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}"}
            answer["resources"] = [
                {"name": METRIC, "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
            ]
        elif path.endswith(f"/{METRIC}"):
            selector = urllib.parse.parse_qs(query).get("labelSelector", [""])[0]
            self.asked.add((path, selector))
            item = {"metricName": METRIC, "metricLabels": {}, "timestamp": "2026-01-01T00:00:00Z", "value": "750m"}
            answer = {"kind": "ExternalMetricValueList", "apiVersion": f"{GROUP}/{VERSION}", "items": [item]}
        else:
            self.send_error(404)
            return
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing to standard error."""


@contextmanager
def adapter(cluster: Kubernetes) -> Iterator[set[tuple[str, str]]]:
    """An external metrics API behind the API server; gives what it was asked."""
    asked: set[tuple[str, str]] = set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Adapter,), {"asked": asked}))
    serving = cluster.authority.server("adapter", ["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(serving.certificate, serving.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    port = server.server_port
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "adapter", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    registration = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": f"{VERSION}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "insecureSkipTLSVerify": True,
            "service": {"name": "adapter", "namespace": "default", "port": port},
        },
    }
    for item in (service, registration):
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(item))
    try:
        cluster.kubectl("wait", "--for=condition=Available", f"apiservice/{VERSION}.{GROUP}", "--timeout=60s")
        yield asked
    finally:
        cluster.kubectl("delete", f"apiservice/{VERSION}.{GROUP}", "service/adapter", "-n", "default")
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def autoscaling(cluster: Kubernetes, folder: Path) -> Iterator[None]:
    """The controller of Kubernetes that does it, looking each second."""
    assert cluster.assets.kube_controller_manager is not None
    command = [
        str(cluster.assets.kube_controller_manager),
        f"--kubeconfig={cluster.kubeconfig_for('autoscaler', ['system:masters'])}",
        "--controllers=horizontal-pod-autoscaler-controller",
        "--horizontal-pod-autoscaler-sync-period=1s",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--secure-port=0",
        f"--cert-dir={folder}",
    ]
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield
        finally:
            running.terminate()
            running.wait()


def test_kubernetes_scales_the_pool_of_the_example_by_its_metric(cluster: Kubernetes, tmp_path: Path) -> None:
    if cluster.assets.kube_controller_manager is None:
        pytest.skip("there is no kube-controller-manager: `make kube-assets` builds it")
    cluster.kubectl("apply", "--server-side", "-k", str(REPOSITORY / "config" / "crd"))
    cluster.wait_until_served()
    example = str(REPOSITORY / "examples" / "hpa" / "cluster")
    cluster.kubectl("apply", "-n", "default", "-k", example)
    # What our controllers write; they do not run here.
    status = {"status": {"replicas": 2, "readyReplicas": 2, "selector": "agents.x-k8s.io/warm-pool-sandbox=abc"}}
    patch = ["--subresource=status", "--type=merge", "-p", json.dumps(status)]
    cluster.kubectl("patch", "-n", "default", "swp/hpa-pool", *patch)

    try:
        with adapter(cluster) as asked, autoscaling(cluster, tmp_path):
            wanted = "--for=jsonpath={.spec.replicas}=8"  # 0.75 claims a second, 0.1 a member
            cluster.kubectl("wait", "-n", "default", "swp/hpa-pool", wanted, "--timeout=120s")
    finally:
        cluster.kubectl("delete", "-n", "default", "-k", example)

    assert asked == {(f"/apis/{GROUP}/{VERSION}/namespaces/default/{METRIC}", "sandbox_template=hpa-template")}
