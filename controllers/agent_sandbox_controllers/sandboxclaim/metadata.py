"""Which labels and annotations a claim may put on its Pod, and the metadata that results.

Labels select: NetworkPolicies, Services and quotas go by them. A claim may therefore set labels of allowed domains
only. Annotations configure meshes, networks and schedulers: those of domains whose readers do so are refused, and our
own.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from agent_sandbox_api.extensions.v1alpha1 import SandboxClaim
from agent_sandbox_api.meta import EmbeddedMetadata, JsonObject
from agent_sandbox_api.names import ANNOTATION_SAFE_TO_EVICT
from agent_sandbox_controllers.troubles import Trouble
from agent_sandbox_controllers.vocabulary import Reason

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
RESTRICTED_DOMAINS: Final = (
    "kubernetes.io",
    "k8s.io",
    "x-k8s.io",  # our own, and kueue.x-k8s.io
    "istio.io",
    "linkerd.io",
    "cilium.io",
    "projectcalico.org",
    "cni.cncf.io",
    "karpenter.sh",
    "keda.sh",
    "opentelemetry.io",  # injects programs
    "dapr.io",
    "hashicorp.com",  # Vault and Consul inject secrets and sidecars
    "amazonaws.com",  # kube2iam and kiam give out the role that a Pod names
    "gke.io",
    "azure.workload.identity",
)
"""Annotation domains (with subdomains) that a claim may not use: their readers change what a Pod runs or reaches."""

RESTRICTED_PREFIXES: Final = (
    "dev.gvisor.",
    "io.containerd.",
    "io.katacontainers.",
    "io.kubernetes.",  # CRI-O
    "org.systemd.property.",  # runc and crun: properties of the container's unit
    "run.oci.",
)
"""Annotations without a domain that a claim may not use: container runtimes take settings of the wall from them."""


def metadata_trouble(claim: SandboxClaim, allowed_domains: Sequence[str]) -> Trouble | None:
    """What is wrong with ``additionalPodMetadata``; None if nothing is."""
    given = claim.spec.additional_pod_metadata
    if given is None:
        return None
    for key, value in sorted((given.labels or {}).items()):
        if wrong := _label_fault(key, value, allowed_domains):
            return _invalid(f'failed to validate label "{key}": {wrong}')
    for key in sorted(given.annotations or {}):
        if wrong := _annotation_fault(key):
            return _invalid(f'failed to validate annotation "{key}": {wrong}')
    return None


def _invalid(text: str) -> Trouble:
    return Trouble(Reason.INVALID_METADATA, f"invalid additionalPodMetadata: {text}")


def _label_fault(key: str, value: str, allowed_domains: Sequence[str]) -> str:
    if key.lower() == "app" and value.lower() == "sandbox-router":
        return "it would make the sandbox pass for the router"
    if fault := _key_fault(key):
        return fault
    domain, slash, _ = key.rpartition("/")
    if not slash:
        return f"a label needs a domain; use one of {', '.join(allowed_domains)}, as in {allowed_domains[0]}/{key}"
    if not _within(domain, allowed_domains):
        return f'domain "{domain}" is not allowed; allowed are {", ".join(allowed_domains)} and their subdomains'
    if len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
        return (
            f'"{value}" is no label value: at most 63 letters, digits, -, _ and ., with a letter or digit at both ends'
        )
    return ""


def _annotation_fault(key: str) -> str:
    if fault := _key_fault(key):
        return fault
    domain, _, _ = key.rpartition("/")
    if key != ANNOTATION_SAFE_TO_EVICT and domain and _within(domain, RESTRICTED_DOMAINS):
        return f'domain "{domain}" is reserved for the system'
    if key.startswith(RESTRICTED_PREFIXES):
        return "it is reserved for container runtimes"
    return ""


def _key_fault(key: str) -> str:
    domain, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name):
        return "its name must be 1 to 63 letters, digits, -, _ and ., with a letter or digit at both ends"
    if slash and (len(domain) > 253 or not _DOMAIN.fullmatch(domain)):
        return f'"{domain}" is no domain'
    return ""


def _within(domain: str, domains: Sequence[str]) -> bool:
    return any(domain == allowed or domain.endswith(f".{allowed}") for allowed in domains)


def merged_metadata(template: EmbeddedMetadata | None, claim: SandboxClaim) -> JsonObject | Trouble:
    """The metadata of the Pod template of a claim's Sandbox, or why the claim contradicts its template."""
    given = claim.spec.additional_pod_metadata
    merged: JsonObject = {}
    for part in ("labels", "annotations"):
        base: Mapping[str, str] = getattr(template, part, None) or {}
        extra: Mapping[str, str] = getattr(given, part, None) or {}
        for key, value in sorted(extra.items()):
            if base.get(key, value) != value:
                return Trouble(
                    Reason.METADATA_CONFLICT,
                    f'metadata override conflict: {part[:-1]} "{key}" is "{base[key]}" in the template and "{value}" '
                    "in the claim; a claim may add to its template but not change it",
                )
        if base or extra:
            merged[part] = {**base, **extra}
    return merged
