"""What the process serves: health that means something, TLS that is renewed, webhooks that fail closed, metrics for the
entitled. Real sockets, real certificates."""

import base64
import datetime
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.streams.tls
import pytest
from aiohttp.test_utils import make_mocked_request
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient
from agent_sandbox.runtime import (
    AdmissionRequest,
    Allowed,
    CertificateFiles,
    CertificateWatcher,
    Controller,
    Denied,
    LeaderElectionOptions,
    Manager,
    ManagerOptions,
    Metrics,
    Request,
    Result,
    WebhookServer,
)
from agent_sandbox.runtime.metrics_auth import QUESTIONS_AT_ONCE, KubernetesAuthorizer
from agent_sandbox.testing import Fault, FaultyTransport, InMemoryApiServer, VirtualClock
from agent_sandbox_api.core import PODS


def write_pair(directory: Path, name: str) -> CertificateFiles:
    """A self-signed certificate for localhost whose subject is ``name``."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    files = CertificateFiles.in_directory(directory)
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def trusting_everybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def served_name(port: int) -> str:
    """The subject of the certificate that a new connection is shown."""
    stream = await anyio.connect_tcp(
        "127.0.0.1", port, tls=True, ssl_context=trusting_everybody(), tls_standard_compatible=False
    )
    async with stream:
        der = stream.extra(anyio.streams.tls.TLSAttribute.peer_certificate_binary)
        assert der is not None
        certificate = x509.load_der_x509_certificate(der)
        return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


# Certificates


@pytest.mark.virtual_time
async def test_a_certificate_replaced_by_a_symlink_swap_is_served_to_new_connections(
    tmp_path: Path, virtual_clock: VirtualClock
) -> None:
    write_pair(tmp_path / "v1", "first")
    write_pair(tmp_path / "v2", "second")
    (tmp_path / "..data").symlink_to("v1")
    files = CertificateFiles.in_directory(tmp_path / "..data")
    metrics = Metrics()
    server = WebhookServer("127.0.0.1:0", files, clock=virtual_clock, metrics=metrics)
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.run)
        assert await served_name(server.port) == "first"

        (tmp_path / "new").symlink_to("v2")
        (tmp_path / "new").rename(tmp_path / "..data")
        await virtual_clock.sleep(11)
        assert await served_name(server.port) == "second"
        tasks.cancel_scope.cancel()
    assert metrics.registry.get_sample_value("certwatcher_read_certificate_total") == 2


@pytest.mark.virtual_time
async def test_a_pair_that_does_not_fit_together_is_not_served(tmp_path: Path, virtual_clock: VirtualClock) -> None:
    files = write_pair(tmp_path, "first")
    metrics = Metrics()
    watcher = CertificateWatcher(files, clock=virtual_clock, metrics=metrics)
    async with anyio.create_task_group() as tasks:
        await tasks.start(watcher.run)
        other = write_pair(tmp_path / "other", "second")
        files.key.write_bytes(other.key.read_bytes())
        await virtual_clock.sleep(25)
        assert metrics.registry.get_sample_value("certwatcher_read_certificate_errors_total") == 2

        files.certificate.write_bytes(other.certificate.read_bytes())
        await virtual_clock.sleep(10)
        assert metrics.registry.get_sample_value("certwatcher_read_certificate_errors_total") == 2
        assert metrics.registry.get_sample_value("certwatcher_read_certificate_total") == 4
        tasks.cancel_scope.cancel()


async def test_a_missing_certificate_is_an_error_at_the_start(tmp_path: Path) -> None:
    watcher = CertificateWatcher(CertificateFiles.in_directory(tmp_path), clock=SystemClock(), metrics=Metrics())
    with pytest.raises(FileNotFoundError):
        await watcher.load()


# Webhooks


async def decide(request: AdmissionRequest) -> Allowed | Denied:
    if request.object.get("spec", {}).get("broken"):
        raise TypeError("a bug in a webhook")
    if request.operation == "DELETE":
        return Denied(f"{request.name} is needed by {request.user}", code=409)
    return Allowed(warnings=["old field"], patch=[{"op": "add", "path": "/spec/x", "value": 1}])


def convert(thing: Any, version: str) -> Any:
    if "spec" not in thing:
        raise ValueError("there is no spec to convert")
    return {**thing, "apiVersion": version}


@asynccontextmanager
async def webhooks(tmp_path: Path, metrics: Metrics) -> AsyncIterator[str]:
    server = WebhookServer("127.0.0.1:0", write_pair(tmp_path, "webhook"), clock=SystemClock(), metrics=metrics)
    server.admit("/decide", decide)
    server.convert("/convert", convert)
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.run)
        yield f"https://127.0.0.1:{server.port}"
        tasks.cancel_scope.cancel()


async def post(url: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.post(url, json=body, ssl=trusting_everybody()) as answer:
        return answer.status, await answer.json() if answer.status == 200 else {}


def review(**request: Any) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "u-1", "operation": "CREATE", "name": "a", "userInfo": {"username": "me"}, **request},
    }


async def test_admission_answers_in_the_shape_of_the_api(tmp_path: Path) -> None:
    metrics = Metrics()
    async with webhooks(tmp_path, metrics) as url:
        status, allowed = await post(f"{url}/decide", review(object={"spec": {}}))
        assert status == 200
        assert (allowed["kind"], allowed["response"]["uid"], allowed["response"]["allowed"]) == (
            "AdmissionReview",
            "u-1",
            True,
        )
        assert allowed["response"]["warnings"] == ["old field"]
        assert base64.b64decode(allowed["response"]["patch"]) == b'[{"op":"add","path":"/spec/x","value":1}]'

        _, denied = await post(f"{url}/decide", review(operation="DELETE"))
        assert denied["response"] == {
            "uid": "u-1",
            "allowed": False,
            "status": {"code": 409, "message": "a is needed by me"},
        }

        status, _ = await post(f"{url}/decide", review(object={"spec": {"broken": True}}))
        assert status == 500, "an exception is no yes"
    codes = {
        code: metrics.registry.get_sample_value(
            "controller_runtime_webhook_requests_total", {"webhook": "/decide", "code": code}
        )
        for code in ("200", "500")
    }
    assert codes == {"200": 2, "500": 1}


async def test_conversion_answers_for_all_objects_or_none(tmp_path: Path) -> None:
    async with webhooks(tmp_path, Metrics()) as url:
        request = {"uid": "u", "desiredAPIVersion": "example.com/v2", "objects": [{"spec": {}, "apiVersion": "v1"}]}
        body = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "request": request}
        _, converted = await post(f"{url}/convert", body)
        assert converted["response"]["convertedObjects"] == [{"spec": {}, "apiVersion": "example.com/v2"}]

        request["objects"] = [{"spec": {}}, {}]
        _, failed = await post(f"{url}/convert", body)
        assert failed["response"]["result"] == {"status": "Failure", "message": "there is no spec to convert"}
        assert "convertedObjects" not in failed["response"]


# Health, introspection, entitled scrapes


class Nothing:
    async def reconcile(self, _: Request) -> Result:
        return Result.done()


async def get(port: int, path: str, *, token: str = "", tls: bool = False) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}{path}"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(url, ssl=trusting_everybody()) as answer,
    ):
        return answer.status, await answer.text()


@pytest.mark.virtual_time
async def test_readiness_means_that_the_caches_are_filled_and_shows_who_leads(virtual_clock: VirtualClock) -> None:
    async with InMemoryApiServer(clock=virtual_clock) as server:
        wire = FaultyTransport(server.transport())
        wire.inject(Fault.error(500), path="/pods", times=None)
        election = LeaderElectionOptions(namespace="default", name="x", identity="me")
        options = ManagerOptions(health_address="127.0.0.1:0", leader_election=election)
        manager = Manager(KubeClient(wire, clock=virtual_clock), clock=virtual_clock, options=options)
        manager.add(Controller("nothing", Nothing()).watches_for(PODS))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(manager.run)
            await virtual_clock.sleep(5)
            (port,) = manager.ports
            assert await get(port, "/healthz") == (200, "[+]ping ok\nhealthz check passed\n")
            status, text = await get(port, "/readyz")
            assert status == 500
            assert "[-]caches not filled yet: pods" in text
            assert "[i]leader standby as me" in text

            wire.heal()
            await virtual_clock.sleep(60)
            assert (await get(port, "/readyz"))[0] == 200
            assert "[i]leader leading as me" in (await get(port, "/readyz"))[1]
            assert await get(port, "/readyz/caches") == (200, "ok\n")
            assert (await get(port, "/readyz/unknown"))[0] == 404
            assert (await get(port, "/debug/tasks"))[0] == 404, "introspection is off by default"
            tasks.cancel_scope.cancel()


async def test_introspection_shows_tasks_queues_and_caches() -> None:
    async with InMemoryApiServer() as server:
        options = ManagerOptions(health_address="127.0.0.1:0", introspection=True)
        manager = Manager(KubeClient(server.transport()), options=options)
        manager.add(Controller("nothing", Nothing()).watches_for(PODS))
        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            (port,) = manager.ports
            assert "nothing worker 0" in (await get(port, "/debug/tasks"))[1]
            assert '"resource": "pods"' in (await get(port, "/debug/caches"))[1]
            assert '"nothing"' in (await get(port, "/debug/queues"))[1]
            assert (await get(port, "/debug/secrets"))[0] == 404
            tasks.cancel_scope.cancel()


class Reviews(FaultyTransport):
    """Answers TokenReview and SubjectAccessReview as an API server with two tokens would."""

    async def request(self, method: str, path: str, **rest: Any) -> Any:
        import msgspec

        from agent_sandbox.kube import RawResponse

        if not path.endswith("reviews"):
            return await super().request(method, path, **rest)
        self._note(method, path, None, watch=False)
        spec = msgspec.json.decode(rest["body"])["spec"]
        status: dict[str, Any]
        if path.endswith("tokenreviews"):
            status = {"authenticated": spec["token"] in ("scraper", "visitor"), "user": {"username": spec["token"]}}
        else:
            wanted = {"path": "/metrics", "verb": "get"}
            status = {"allowed": spec["user"] == "scraper" and spec["nonResourceAttributes"] == wanted}
        return RawResponse(201, {}, msgspec.json.encode({"status": status}))


async def test_only_those_whom_kubernetes_lets_may_scrape_and_answers_are_remembered(tmp_path: Path) -> None:
    async with InMemoryApiServer() as server:
        wire = Reviews(server.transport())
        options = ManagerOptions(
            metrics_address="127.0.0.1:0",
            metrics_authorization=True,
            metrics_certificate=write_pair(tmp_path, "metrics"),
        )
        manager = Manager(KubeClient(wire), options=options)
        async with anyio.create_task_group() as tasks:
            await tasks.start(manager.run)
            (port,) = manager.ports
            assert (await get(port, "/metrics", tls=True))[0] == 401
            assert (await get(port, "/metrics", token="stranger", tls=True))[0] == 401
            assert (await get(port, "/metrics", token="visitor", tls=True))[0] == 403
            for _ in range(3):
                status, text = await get(port, "/metrics", token="scraper", tls=True)
                assert status == 200
                assert "rest_client_requests_total" in text
            tasks.cancel_scope.cancel()
        reviews = [request for request in wire.seen if "reviews" in request.path]
        assert len(reviews) == 1 + 2 + 2, "three scrapes of one token ask once"


@pytest.mark.virtual_time
async def test_strangers_with_ever_new_tokens_cost_a_bounded_number_of_questions(virtual_clock: VirtualClock) -> None:
    """Nor do they make it forget who may scrape."""
    async with InMemoryApiServer() as server:
        wire = Reviews(server.transport())
        authorize = KubernetesAuthorizer(KubeClient(wire), clock=virtual_clock)

        async def ask(token: str) -> int:
            request = make_mocked_request("GET", "/metrics", {"Authorization": f"Bearer {token}"})
            answer = await authorize(request)
            return 200 if answer is None else answer.status

        assert await ask("scraper") == 200
        strangers = [await ask(f"stranger {number}") for number in range(1000)]
        assert await ask("scraper") == 200
        asked = len(wire.seen)
        await virtual_clock.sleep(1)
        later = await ask("visitor")

    assert strangers[:10] == [401] * 10
    assert set(strangers) == {401, 429}
    assert asked <= 2 + QUESTIONS_AT_ONCE
    assert later == 403
