"""The ``scale`` subresource, which is another kind than the object that it belongs to: autoscaling/v1 Scale."""

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True)
class Scale:
    """The ``scale`` subresource: what autoscalers and ``kubectl scale`` read and write."""

    replicas: int
    observed_replicas: int
    selector: str
    resource_version: str


class _ScaleSpec(msgspec.Struct):
    replicas: int = 0


class _ScaleStatus(msgspec.Struct):
    replicas: int = 0
    selector: str = ""


class _ScaleMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _ScaleBody(msgspec.Struct):
    metadata: _ScaleMeta = msgspec.field(default_factory=_ScaleMeta)
    spec: _ScaleSpec = msgspec.field(default_factory=_ScaleSpec)
    status: _ScaleStatus = msgspec.field(default_factory=_ScaleStatus)


def decode_scale(body: bytes) -> Scale:
    """Read the answer to a request for the subresource."""
    scale = msgspec.json.decode(body, type=_ScaleBody)
    return Scale(scale.spec.replicas, scale.status.replicas, scale.status.selector, scale.metadata.resource_version)
