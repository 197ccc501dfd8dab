"""A SandboxClaim from its creation to its end, as its creator sees it.

In: what sandbox is wanted. Out: the Sandbox that the cluster bound to the claim, or an error that says why there is
none. A claim is written once and then watched from that write's resourceVersion, so no state is missed and nothing is
polled. A condition that waiting cannot cure ends the wait at once.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import anyio

from agent_sandbox.kube import (
    AlreadyExistsError,
    ConflictError,
    KubeClient,
    KubeError,
    NotFoundError,
    OutcomeUnknownError,
    ServerError,
    TooManyRequestsError,
    TransportError,
)
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.errors import (
    SandboxClaimFailedError,
    SandboxCleanupError,
    SandboxError,
    SandboxOutcomeUnknownError,
    SandboxPodFailedError,
    SandboxTemplateNotFoundError,
    SandboxWarmPoolNotFoundError,
)
from agent_sandbox.sdk.following import follow_until
from agent_sandbox.shielding import unbroken
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SandboxClaimView
from agent_sandbox_api.meta import format_time
from agent_sandbox_api.names import (
    ANNOTATION_CLIENT_FIRST_REQUESTED_AT,
    CONDITION_READY,
    LABEL_CREATED_BY,
)
from agent_sandbox_api.views import ConditionView, MetaView, find_condition

CREATED_BY: Final = "python-client"
ANNOTATION_OPERATION: Final = "client.agents.x-k8s.io/operation-id"
"""Marks a claim as the product of one particular call, so that a create whose answer was lost can be recognised."""

# Conditions of a claim that waiting does not cure.
REFUSED_REASONS: Final = frozenset(
    {
        "ClaimExpired",
        "EnvVarsInjectionRejected",
        "InvalidMetadata",
        "MetadataConflict",
        "Rejected",
        "SandboxExpired",
        "SandboxMissing",
        "SandboxNameConflict",
        "TemplateNotAllowed",
        "VolumeClaimTemplatesError",
        "WarmPoolMismatch",
    }
)
# What kubelets call a container that cannot start, and how a Pod ends.
POD_FAILURE_REASONS: Final = frozenset(
    {
        "ContainerCannotRun",
        "ContainerFailed",
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "PodFailed",
        "PodSucceeded",
        "RunContainerError",
        "StartError",
    }
)

_CLEANUP_SECONDS: Final = 15.0
_CREATE_SECONDS: Final = 30.0
_LATE_SECONDS: Final = 1.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0

HEARTBEAT_SECONDS: Final = 60.0
"""How long a sandbox with a heartbeat outlives its program, unless another time is given."""


@dataclass(frozen=True)
class ClaimRequest:
    """The sandbox that is wanted.

    Attributes:
        template_name: the SandboxTemplate to make it from.
        namespace: where the claim and the sandbox live.
        name: name of the claim; None makes one up.
        template_namespace: namespace of the template if it is another one.
        warmpool: ``default`` takes any pool of the template, ``none`` starts cold, else the name of a pool.
        ttl: seconds until the claim expires and everything of it is deleted; None means never.
        labels: labels of the claim.
        annotations: annotations of the claim.
        env: environment variables of the sandbox; the template must allow them, and they make the start cold.
        pod_labels: labels to add to the Pod.
        pod_annotations: annotations to add to the Pod.
        volume_claim_templates: volumes of its own, as in a StatefulSet; the template must allow them, and they make the
            start cold.
    """

    template_name: str
    namespace: str = "default"
    name: str | None = None
    template_namespace: str | None = None
    warmpool: str | None = None
    ttl: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    volume_claim_templates: Sequence[Mapping[str, Any]] = ()

    def manifest(self, name: str, operation_id: str, now: datetime) -> dict[str, Any]:
        """The SandboxClaim to create."""
        template: dict[str, str] = {"name": self.template_name}
        if self.template_namespace:
            template["namespace"] = self.template_namespace
        spec: dict[str, Any] = {"sandboxTemplateRef": template}
        if self.warmpool is not None:
            spec["warmpool"] = self.warmpool
        if self.ttl is not None:
            spec["lifecycle"] = {
                "shutdownTime": format_time(expiry(now, self.ttl)),
                "shutdownPolicy": "Delete",
            }
        if self.env:
            spec["env"] = [{"name": key, "value": value} for key, value in self.env.items()]
        if self.volume_claim_templates:
            spec["volumeClaimTemplates"] = [dict(template) for template in self.volume_claim_templates]
        pod_metadata = {"labels": dict(self.pod_labels), "annotations": dict(self.pod_annotations)}
        if any(pod_metadata.values()):
            spec["additionalPodMetadata"] = {key: value for key, value in pod_metadata.items() if value}
        return {
            "apiVersion": SANDBOX_CLAIMS.api_version,
            "kind": SANDBOX_CLAIMS.kind,
            "metadata": {
                "name": name,
                "namespace": self.namespace,
                "labels": {**self.labels, LABEL_CREATED_BY: CREATED_BY},
                "annotations": {
                    **self.annotations,
                    ANNOTATION_CLIENT_FIRST_REQUESTED_AT: now.isoformat().replace("+00:00", "Z"),
                    ANNOTATION_OPERATION: operation_id,
                },
            },
            "spec": spec,
        }


@dataclass(frozen=True)
class Binding:
    """The Sandbox that a claim holds."""

    claim_name: str
    namespace: str
    claim_uid: str
    sandbox_name: str
    pod_ips: tuple[str, ...]


def new_claim_name() -> str:
    """A name that nobody else has, in the form that the Go project's clients use."""
    return f"sandbox-claim-{secrets.token_hex(4)}"


def expiry(now: datetime, ttl: float) -> datetime:
    """``ttl`` seconds from now, rounded up to the whole second that Kubernetes times have.

    Raises:
        ValueError: ``ttl`` is no positive number of seconds, or leads to the end of time.
    """
    if not ttl > 0:
        raise ValueError(f"a lifetime is a positive number of seconds, not {ttl!r}")
    try:
        return (now + timedelta(seconds=ttl)).replace(microsecond=0) + timedelta(seconds=1)
    except OverflowError as error:
        raise ValueError(f"a lifetime of {ttl:g} s has no end: leave it out for a sandbox that lives on") from error


def judge(claim: SandboxClaimView) -> Binding | SandboxError | None:
    """What a claim's status means to its creator: bound and Ready, hopeless, or (None) not decided yet."""
    status = claim.status
    ready = find_condition(status.conditions, CONDITION_READY)
    if ready is None or ready.observed_generation not in {None, 0, claim.metadata.generation}:
        return None
    if ready.status == "True":
        name = status.sandbox_name or (status.sandbox.name if status.sandbox else None) or claim.metadata.name
        pod_ips = status.sandbox.pod_ips if status.sandbox else ()
        return Binding(claim.metadata.name, claim.metadata.namespace, claim.metadata.uid, name, pod_ips)
    return _hopeless(claim, ready)


def _hopeless(claim: SandboxClaimView, ready: ConditionView) -> SandboxError | None:
    where = f"SandboxClaim {claim.metadata.namespace}/{claim.metadata.name}"
    match ready.reason:
        case "TemplateNotFound":
            return SandboxTemplateNotFoundError(
                f"{where} has no template: {ready.message or 'create the template, or name another one'}"
            )
        case "WarmPoolNotFound":
            return SandboxWarmPoolNotFoundError(
                f"{where} has no pool: {ready.message or 'create the pool, or name another one'}"
            )
        case reason if reason in POD_FAILURE_REASONS:
            return SandboxPodFailedError(
                f"{where} cannot become ready: {reason}: {ready.message}",
                reason=reason,
                condition_message=ready.message,
            )
        case reason if reason in REFUSED_REASONS:
            return SandboxClaimFailedError(
                f"{where} was refused: {reason}: {ready.message}", reason=reason, condition_message=ready.message
            )
        case _:
            return None


async def create_claim(
    kube: KubeClient, request: ClaimRequest, *, now: datetime, keep: Callable[[SandboxClaimView], None] | None = None
) -> SandboxClaimView:
    """Write the claim, and know afterwards whether it exists.

    The write is not cut short by cancellation: a request given up half-way would leave a claim that nobody knows of.
    A lost answer is resolved by reading.

    Args:
        kube: where to write it.
        request: the sandbox that is wanted.
        now: the time by which its lifetime counts.
        keep: gets the claim even if the caller was cancelled meanwhile, so that it can be deleted.

    Raises:
        SandboxError: the cluster refused the claim or cannot be reached.
    """
    name = request.name or new_claim_name()
    operation_id = secrets.token_hex(8)
    known = False

    async def create() -> SandboxClaimView:
        nonlocal known
        try:
            return await _create(kube, request, name, operation_id, now)
        except Exception:
            known = True
            raise

    def keep_known(claim: SandboxClaimView) -> None:
        nonlocal known
        known = True
        if keep is not None:
            keep(claim)

    try:
        return await unbroken(create, keep=keep_known)
    except BaseException:
        if not known and keep is not None:
            # A signal handler of the program's raised SystemExit in the middle of the request.
            claim = await unbroken(lambda: _find_late(kube, request.namespace, name, operation_id))
            if claim is not None:
                keep(claim)
        raise


async def _create(
    kube: KubeClient, request: ClaimRequest, name: str, operation_id: str, now: datetime
) -> SandboxClaimView:
    body = request.manifest(name, operation_id, now)
    doing = f"creating SandboxClaim {request.namespace}/{name}"
    with anyio.move_on_after(_CREATE_SECONDS):
        while True:
            try:
                return await kube.create(SANDBOX_CLAIMS, body, request.namespace)
            except (OutcomeUnknownError, AlreadyExistsError, ServerError) as error:
                failure = error  # each may come although an attempt of ours was carried out
            except KubeError as error:
                raise explain(error, doing) from error
            try:
                claim = await _find_own(kube, request.namespace, name, operation_id)
                if claim is not None:
                    return claim
                if not isinstance(failure, OutcomeUnknownError):
                    raise explain(failure, doing) from failure
            except (TransportError, ServerError, TooManyRequestsError):
                pass  # whether it exists is not known yet
            except KubeError as error:
                raise explain(error, doing) from error
            await anyio.sleep(_FIRST_PAUSE)
    raise SandboxOutcomeUnknownError(
        f"{doing}: the API server did not answer for {_CREATE_SECONDS:g} s. The claim may exist"
    )


async def _find_own(kube: KubeClient, namespace: str, name: str, operation_id: str) -> SandboxClaimView | None:
    try:
        claim = await kube.get(SANDBOX_CLAIMS, name, namespace)
    except NotFoundError:
        return None
    return claim if claim.metadata.annotations.get(ANNOTATION_OPERATION) == operation_id else None


async def _find_late(kube: KubeClient, namespace: str, name: str, operation_id: str) -> SandboxClaimView | None:
    """Look for a claim whose request was given up: the server may still be about to write it."""
    with anyio.move_on_after(_LATE_SECONDS):
        while True:
            with suppress(KubeError):
                claim = await _find_own(kube, namespace, name, operation_id)
                if claim is not None:
                    return claim
            await anyio.sleep(_FIRST_PAUSE)
    return None


async def wait_until_bound(kube: KubeClient, claim: SandboxClaimView, *, timeout: float) -> Binding:
    """Follow the claim until it is Ready.

    Args:
        kube: where it lives.
        claim: the claim as it was last seen.
        timeout: seconds.

    Raises:
        SandboxReadyTimeoutError: it took too long; the error carries the last Ready condition.
        SandboxGoneError: somebody deleted the claim.
        SandboxNotFoundError, SandboxClaimFailedError: a condition that waiting does not cure.
    """
    return await follow_until(kube, SANDBOX_CLAIMS, claim, _binding_of, timeout=timeout, goal="ready")


def _binding_of(claim: SandboxClaimView) -> Binding | None:
    verdict = judge(claim)
    if isinstance(verdict, SandboxError):
        raise verdict
    return verdict


async def delete_claim(kube: KubeClient, claim: SandboxClaimView) -> None:
    """Delete the claim, even while the caller is being cancelled; one that is gone already is fine.

    Raises:
        SandboxCleanupError: it still exists, as far as we know.
    """
    await unbroken(lambda: _delete(kube, claim.metadata))


async def _delete(kube: KubeClient, meta: MetaView) -> None:
    failure: KubeError | None = None
    pause = _FIRST_PAUSE
    with anyio.move_on_after(_CLEANUP_SECONDS):
        while True:
            try:
                await kube.delete(SANDBOX_CLAIMS, meta.name, meta.namespace, uid=meta.uid)
            except (NotFoundError, ConflictError):
                return  # gone, or another object carries the name by now
            except (TransportError, ServerError, TooManyRequestsError) as error:
                failure = error
            except KubeError as error:
                failure = error
                break
            else:
                return
            await anyio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
    raise SandboxCleanupError(
        f"SandboxClaim {meta.namespace}/{meta.name} could not be deleted and still exists: "
        f"{failure or 'the API server did not answer in time'}. "
        f"Delete it with: kubectl delete sandboxclaim {meta.name} -n {meta.namespace}"
    ) from failure


async def delete_after(kube: KubeClient, claim: SandboxClaimView, original: BaseException) -> None:
    """Delete the claim because of an error on its way up; a failure to do so becomes a note on that error."""
    try:
        await delete_claim(kube, claim)
    except SandboxCleanupError as error:
        original.add_note(f"Besides, {error}")
