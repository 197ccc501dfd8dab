"""What a Sandbox made from a template looks like, and a hash that says whether a Sandbox still looks so.

The hash covers what matters to who runs inside: the Pod's spec, the volumes and the Service; never labels or
annotations, so that an edit of metadata makes nobody stale. It is taken from content, on both sides: a label with a
hash is a note, not a proof.
"""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from agent_sandbox_api.extensions.v1alpha1 import SandboxTemplate
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.pod_template import VolumeClaimTemplate

DEFAULTS: Final[Mapping[str, Any]] = {"automountServiceAccountToken": False}
"""What a template's Pod spec says if its author says nothing."""


def secured_pod_spec(spec: JsonObject) -> JsonObject:
    """A copy of a template's Pod spec in which nobody gets API credentials without having asked for them."""
    return {**DEFAULTS, **copy.deepcopy(spec)}


def content_hash(value: Any) -> str:
    """A hash of JSON content that does not depend on the order of keys; fits into a label."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:32]


def blueprint_hash(
    pod_spec: Mapping[str, Any], volumes: Sequence[Mapping[str, Any]] | None, service: bool | None
) -> str:
    """The hash of what a Sandbox consists of.

    Args:
        pod_spec: the Pod's spec, with the defaults that we add.
        volumes: volumeClaimTemplates in wire form; only names and specs count.
        service: unset and True both mean a Service, and are one here.
    """
    claims = [{"name": (claim.get("metadata") or {}).get("name"), "spec": claim.get("spec")} for claim in volumes or ()]
    return content_hash({"pod": pod_spec, "volumes": claims, "service": service is not False})


def volumes_json(volumes: Sequence[VolumeClaimTemplate] | None) -> list[JsonObject]:
    """volumeClaimTemplates in wire form."""
    return [volume.to_json() for volume in volumes or ()]


def template_hash(template: SandboxTemplate) -> str:
    """The hash of a Sandbox that would be made from this template now."""
    spec = template.spec
    return blueprint_hash(
        {**DEFAULTS, **spec.pod_template.spec}, volumes_json(spec.volume_claim_templates), spec.service
    )


class _PodTemplateGlance(msgspec.Struct, rename="camel"):
    spec: dict[str, Any] = {}


class SpecGlance(msgspec.Struct, rename="camel"):
    """The parts of a Sandbox's spec that caches are asked about, decoded without pydantic."""

    pod_template: _PodTemplateGlance = msgspec.field(default_factory=_PodTemplateGlance)
    volume_claim_templates: list[dict[str, Any]] | None = None
    service: bool | None = None
    replicas: int | None = None


_glance_decoder = msgspec.json.Decoder(SpecGlance)


def glance(spec: msgspec.Raw | bytes) -> SpecGlance:
    """Read those parts of a cached spec."""
    return _glance_decoder.decode(spec)


def sandbox_hash(spec: msgspec.Raw) -> str:
    """The blueprint hash of a Sandbox's own content; the members of a pool, which are alike, share the work."""
    return _sandbox_hash(bytes(spec))


@lru_cache(maxsize=1024)
def _sandbox_hash(spec: bytes) -> str:
    seen = glance(spec)
    return blueprint_hash(seen.pod_template.spec, seen.volume_claim_templates, seen.service)
