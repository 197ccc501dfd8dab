"""Turns the volumes of a Pod into directories on the host and says where each appears in a container.

Understood: emptyDir (on disk or in memory), persistentVolumeClaim, configMap, secret, downwardAPI, projected (of
those). Files of the last four follow the objects that they come from (``VolumeMaker.refresh``).
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec

from agent_sandbox.kube import KubeClient, NotFoundError
from agent_sandbox.local.node.claims import ClaimData
from agent_sandbox.local.node.environment import Facts, pod_field, resource_value
from agent_sandbox.local.node.errors import ContainerError
from agent_sandbox.local.node.payload import PayloadFile, write_payload
from agent_sandbox.local.node.pods import Container, Pod, ResourceSelector
from agent_sandbox.local.node.records import PodRecord, owned_directory
from agent_sandbox.local.quantities import parse_quantity
from agent_sandbox_api.core import MetaOnlyView
from agent_sandbox_api.resource import Resource

_Json = dict[str, Any]

CONFIG_MAPS: Final[Resource[MetaOnlyView]] = Resource("", "v1", "configmaps", "ConfigMap", MetaOnlyView)
SECRETS: Final[Resource[MetaOnlyView]] = Resource("", "v1", "secrets", "Secret", MetaOnlyView)

_DEFAULT_MEMORY_BYTES: Final = 256 * 1024 * 1024
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PAYLOADS: Final = ("projected", "configMap", "secret", "downwardAPI")


@dataclass(frozen=True)
class Volume:
    """A volume that exists.

    Attributes:
        path: its directory on the host; None for one in memory.
        seen: the same as the helper's processes see it; empty if that follows from ``path``.
        memory_bytes: size of one in memory.
        read_only: whether nobody may write.
        payload: whether it consists of files that the node writes (``payload``).
    """

    path: Path | None = None
    seen: str = ""
    memory_bytes: int = 0
    read_only: bool = False
    payload: bool = False


@dataclass(frozen=True)
class ReferredObjects:
    """Data of the ConfigMaps and Secrets that a Pod names, decoded to text and bytes."""

    config_maps: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)

    def as_text(self, which: str) -> dict[str, dict[str, str]]:
        """The same for environment variables."""
        source = self.config_maps if which == "config_maps" else self.secrets
        return {
            name: {key: value.decode(errors="replace") for key, value in data.items()} for name, data in source.items()
        }


def referred_names(pod: Pod) -> tuple[set[str], set[str]]:
    """Names of all ConfigMaps and Secrets that a Pod refers to."""
    config_maps: set[str] = set()
    secrets: set[str] = set()
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        for many in container.env_from:
            config_maps |= {many.config_map_ref.name} if many.config_map_ref else set()
            secrets |= {many.secret_ref.name} if many.secret_ref else set()
        for variable in container.env:
            source = variable.value_from
            if source is not None:
                config_maps |= {source.config_map_key_ref.name} if source.config_map_key_ref else set()
                secrets |= {source.secret_key_ref.name} if source.secret_key_ref else set()
    for volume in pod.spec.volumes:
        for source in (volume, *volume.get("projected", {}).get("sources", ())):
            if "configMap" in source:
                config_maps.add(source["configMap"].get("name", ""))
            if "secret" in source:
                secrets.add(source["secret"].get("secretName") or source["secret"].get("name", ""))
    return config_maps, secrets


async def read_referred(client: KubeClient, pod: Pod) -> ReferredObjects:
    """Read what a Pod refers to; what does not exist is left out and complained about by its reader."""
    config_names, secret_names = referred_names(pod)
    config_maps = {}
    for name in config_names:
        found = await _read(client, CONFIG_MAPS, name, pod.metadata.namespace)
        if found is not None:
            plain = {key: str(value).encode() for key, value in (found.get("data") or {}).items()}
            config_maps[name] = plain | _decoded(found.get("binaryData"))
    secrets = {}
    for name in secret_names:
        found = await _read(client, SECRETS, name, pod.metadata.namespace)
        if found is not None:
            secrets[name] = _decoded(found.get("data"))
    return ReferredObjects(config_maps, secrets)


async def _read(client: KubeClient, resource: Resource[MetaOnlyView], name: str, namespace: str) -> _Json | None:
    try:
        return await client.get_object(resource, name, namespace)
    except NotFoundError:
        return None


def _decoded(data: Mapping[str, str] | None) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in (data or {}).items()}


class VolumeMaker:
    """Makes the volumes of one Pod. Its methods write to disk: call them in a worker thread."""

    def __init__(
        self,
        record: PodRecord,
        directory: Path,
        facts: Facts,
        objects: ReferredObjects,
        claims: Mapping[str, ClaimData],
    ) -> None:
        """
        Args:
            record: the Pod's record.
            directory: where its volumes lie.
            facts: the Pod and its addresses.
            objects: what it refers to.
            claims: data of its PersistentVolumeClaims, by claim name.
        """
        self._record = record
        self._directory = directory
        self._facts = facts
        self._objects = objects
        self._claims = claims

    def make(self) -> dict[str, Volume]:
        """All volumes by name.

        Raises:
            ContainerError: a volume is of an unknown kind, or names something that does not exist.
        """
        return {volume["name"]: self._one(volume) for volume in self._facts.pod.spec.volumes}

    def refresh(self) -> None:
        """Write again what ConfigMaps, Secrets and fields of the Pod say now.

        Raises:
            ContainerError: something that it names does not exist any more; the files stay as they are.
        """
        for volume in self._facts.pod.spec.volumes:
            if is_payload(volume):
                self._one(volume)

    def _one(self, volume: _Json) -> Volume:
        if not _NAME.fullmatch(volume["name"]):
            # The API server refuses it, too; here it becomes a path of this machine.
            raise ContainerError("CreateContainerConfigError", f"{volume['name']!r} is no name of a volume")
        path = self._directory / volume["name"]
        if "emptyDir" in volume:
            return self._empty(volume["emptyDir"] or {}, path)
        if "persistentVolumeClaim" in volume:
            source = volume["persistentVolumeClaim"]
            claim = self._claims[source["claimName"]]
            return Volume(claim.path, claim.seen, read_only=bool(source.get("readOnly")))
        files: dict[str, PayloadFile] = {}
        for source in volume["projected"].get("sources") or () if "projected" in volume else (volume,):
            files |= self._files(source, volume["name"])
        kind = next(key for key in _PAYLOADS if key in volume)
        write_payload(path, files, volume[kind].get("defaultMode", 0o644), self._record.owner)
        return Volume(path, read_only=True, payload=True)

    def _empty(self, source: _Json, path: Path) -> Volume:
        if source.get("medium") == "Memory":
            limit = source.get("sizeLimit")
            return Volume(memory_bytes=int(parse_quantity(limit)) if limit else _DEFAULT_MEMORY_BYTES)
        return Volume(owned_directory(path, self._record.owner, 0o777))

    def _files(self, source: _Json, volume: str) -> dict[str, PayloadFile]:
        if "configMap" in source:
            wanted = source["configMap"]
            return _keys("configmap", self._objects.config_maps, wanted.get("name", ""), wanted)
        if "secret" in source:
            wanted = source["secret"]
            name = wanted.get("secretName") or wanted.get("name", "")
            return _keys("secret", self._objects.secrets, name, wanted)
        if "downwardAPI" in source:
            items = source["downwardAPI"].get("items") or ()
            return {item["path"]: PayloadFile(self._downward(item), item.get("mode")) for item in items}
        kinds = ", ".join(key for key in source if key != "name")
        raise ContainerError(
            "CreateContainerConfigError", f"volume {volume!r} is of a kind the local node does not have: {kinds}"
        )

    def _downward(self, item: _Json) -> bytes:
        if item.get("resourceFieldRef"):
            selector = msgspec.convert(item["resourceFieldRef"], ResourceSelector)
            return resource_value(selector, self._facts).encode()
        return pod_field((item.get("fieldRef") or {}).get("fieldPath", ""), self._facts).encode()


def is_payload(volume: _Json) -> bool:
    """Whether a volume consists of files that the node writes and keeps up to date."""
    return any(kind in volume for kind in _PAYLOADS)


def _keys(kind: str, objects: Mapping[str, Mapping[str, bytes]], name: str, wanted: _Json) -> dict[str, PayloadFile]:
    found = objects.get(name)
    if found is None:
        if wanted.get("optional"):
            return {}
        raise ContainerError("CreateContainerConfigError", f"{kind} {name!r} not found")
    items = wanted.get("items")
    if not items:
        return {key: PayloadFile(data) for key, data in found.items()}
    missing = [item["key"] for item in items if item["key"] not in found]
    if missing and not wanted.get("optional"):
        raise ContainerError("CreateContainerConfigError", f"{kind} {name!r} has no key {missing[0]!r}")
    return {item["path"]: PayloadFile(found[item["key"]], item.get("mode")) for item in items if item["key"] in found}


def claim_names(pod: Pod) -> list[str]:
    """PersistentVolumeClaims that a Pod mounts."""
    claims = (volume.get("persistentVolumeClaim") for volume in pod.spec.volumes)
    return [claim["claimName"] for claim in claims if claim]


@dataclass(frozen=True)
class VolumeUse:
    """One volume mount of a container.

    Attributes:
        name: the volume's name.
        volume: the volume.
        target: path inside the container.
        sub_path: the part of the volume that is mounted, empty for all of it.
        read_only: whether the container may not write.
    """

    name: str
    volume: Volume
    target: str
    sub_path: str
    read_only: bool


def mounts_of(container: Container, volumes: Mapping[str, Volume]) -> list[VolumeUse]:
    """What a container mounts.

    Raises:
        ContainerError: it names a volume that the Pod does not have, or a part outside of its volume.
    """
    found = []
    for mount in container.volume_mounts:
        volume = volumes.get(mount.name)
        if volume is None:
            raise ContainerError("CreateContainerConfigError", f"the Pod has no volume {mount.name!r}")
        below = PurePosixPath(mount.sub_path)
        if below.is_absolute() or ".." in below.parts:
            raise ContainerError("CreateContainerConfigError", f"subPath {mount.sub_path!r} leaves its volume")
        found.append(
            VolumeUse(mount.name, volume, mount.mount_path, mount.sub_path, mount.read_only or volume.read_only)
        )
    return found
