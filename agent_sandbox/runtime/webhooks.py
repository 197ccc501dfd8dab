"""Serves admission and conversion webhooks: the API server asks before it stores.

In: functions over one request. Out: HTTPS answers in the shape of admission.k8s.io/v1 and apiextensions.k8s.io/v1.
What fails here fails closed: an exception refuses the object.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import structlog
from aiohttp import web

from agent_sandbox.clock import Clock
from agent_sandbox.runtime.certificates import CertificateFiles, CertificateWatcher
from agent_sandbox.runtime.metrics import Metrics
from agent_sandbox.runtime.server import HttpServer

log = structlog.get_logger(__name__)

MAX_BODY: Final = 7 * 1024 * 1024
"""Bytes of a review: an object of at most 3 MiB (etcd's limit is below that), its old state, and room."""


@dataclass(frozen=True)
class AdmissionRequest:
    """What the API server asks about.

    Attributes:
        operation: CREATE, UPDATE, DELETE or CONNECT.
        object: the object as it would be; empty on DELETE.
        old_object: the object as it is; empty on CREATE.
    """

    uid: str
    operation: str
    namespace: str
    name: str
    object: Mapping[str, Any]
    old_object: Mapping[str, Any]
    user: str
    dry_run: bool


@dataclass(frozen=True)
class Allowed:
    """Yes; with warnings that kubectl shows, and changes as RFC 6902 operations (mutating webhooks only)."""

    warnings: Sequence[str] = ()
    patch: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Denied:
    """No, because of what the message says; the code is an HTTP status, 403 by default."""

    message: str
    code: int = 403


Admission: TypeAlias = Callable[[AdmissionRequest], Awaitable[Allowed | Denied]]
Conversion: TypeAlias = Callable[[Mapping[str, Any], str], Mapping[str, Any]]
"""(object, desired apiVersion) → the object in that version; raises ValueError if it cannot be converted."""


class WebhookServer:
    """Webhooks of one process, on one TLS port. Give it to ``Manager.add_runnable`` with ``needs_leadership=False``."""

    def __init__(self, address: str, files: CertificateFiles, *, clock: Clock, metrics: Metrics) -> None:
        """
        Args:
            address: ``host:port``; ``:9443`` by custom.
            files: certificate and key; reloaded when they change.
            clock: measures latency, paces the reloads.
            metrics: where they are counted.
        """
        self._app = web.Application(client_max_size=MAX_BODY)
        self._certificates = CertificateWatcher(files, clock=clock, metrics=metrics)
        self._server = HttpServer(address, self._app, tls=self._certificates.context)
        self._clock = clock
        self._metrics = metrics

    @property
    def port(self) -> int:
        """The port, once running."""
        return self._server.port

    def admit(self, path: str, admission: Admission) -> None:
        """Serve an admission webhook, validating or mutating, under this path."""

        async def answer(body: bytes) -> dict[str, Any]:
            review = msgspec.json.decode(body)
            request = _read_request(review["request"])
            verdict = await admission(request)
            return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": _write(request, verdict)}

        self._serve(path, answer)

    def convert(self, path: str, conversion: Conversion) -> None:
        """Serve a CRD's conversion webhook under this path. One object that fails fails the whole request."""

        async def answer(body: bytes) -> dict[str, Any]:
            await anyio.lowlevel.checkpoint()
            review = msgspec.json.decode(body)
            request = review["request"]
            response: dict[str, Any] = {"uid": request["uid"], "result": {"status": "Success"}}
            try:
                wanted = request["desiredAPIVersion"]
                response["convertedObjects"] = [conversion(each, wanted) for each in request["objects"]]
            except ValueError as error:
                response["result"] = {"status": "Failure", "message": str(error)}
            return {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}

        self._serve(path, answer)

    def _serve(self, path: str, answer: Callable[[bytes], Awaitable[dict[str, Any]]]) -> None:
        latency = self._metrics.webhook_latency.labels(path)
        in_flight = self._metrics.webhook_in_flight.labels(path)
        codes = {code: self._metrics.webhook_requests.labels(path, code) for code in ("200", "500")}

        async def handler(request: web.Request) -> web.Response:
            started = self._clock.monotonic()
            in_flight.inc()
            code = "500"
            try:
                body = msgspec.json.encode(await answer(await request.read()))
                code = "200"
                return web.Response(body=body, content_type="application/json")
            except Exception:
                log.exception("a webhook failed; the API server is told so and its failurePolicy decides", path=path)
                return web.Response(status=500, text="the webhook failed, see its log\n")
            finally:
                in_flight.dec()
                codes[code].inc()
                latency.observe(self._clock.monotonic() - started)

        self._app.router.add_post(path, handler)

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve, and follow the certificate, until cancelled.

        Raises:
            OSError, ssl.SSLError: there is no usable certificate, or the address is in use.
        """
        await self._certificates.load()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._certificates.run, name="certificate")
            await tasks.start(self._server.run, name="webhooks")
            task_status.started()


def _read_request(request: Mapping[str, Any]) -> AdmissionRequest:
    return AdmissionRequest(
        uid=request["uid"],
        operation=request["operation"],
        namespace=request.get("namespace", ""),
        name=request.get("name", ""),
        object=request.get("object") or {},
        old_object=request.get("oldObject") or {},
        user=(request.get("userInfo") or {}).get("username", ""),
        dry_run=bool(request.get("dryRun")),
    )


def _write(request: AdmissionRequest, verdict: Allowed | Denied) -> dict[str, Any]:
    if isinstance(verdict, Denied):
        status = {"code": verdict.code, "message": verdict.message}
        return {"uid": request.uid, "allowed": False, "status": status}
    response: dict[str, Any] = {"uid": request.uid, "allowed": True}
    if verdict.warnings:
        response["warnings"] = [*verdict.warnings]
    if verdict.patch:
        # msgspec writes bytes as base64, which is what the API asks for.
        response |= {"patchType": "JSONPatch", "patch": msgspec.json.encode([*verdict.patch])}
    return response
