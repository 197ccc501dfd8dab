"""Reads an image from an OCI layout (a directory or a tar of one) or from the older archive of ``docker save``.

In: a directory. Out: an ``ImageSpec``: its names, what it says about containers, and its layers in order. Nothing in
the directory is trusted: blobs are checked against their digests.
"""

import hashlib
import json
import platform
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from agent_sandbox.local.node.oci.errors import ImageFormatError

_Json = dict[str, Any]

_CHUNK: Final = 1 << 20
_REF_NAME: Final = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME: Final = "io.containerd.image.name"
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """One layer: its file, and whether that is compressed by ``gzip``, ``zstd`` or nothing."""

    file: Path
    compression: str


@dataclass(frozen=True)
class ImageSpec:
    """An image that can be unpacked.

    Attributes:
        digest: of its configuration, which names its content: the image's id.
        names: references under which it was saved.
        config: what it says about containers: ``Env``, ``Entrypoint``, ``Cmd``, ``WorkingDir``, ``User``.
        layers: the lowest first.
    """

    digest: str
    names: tuple[str, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[Layer, ...] = ()


def machine() -> str:
    """This machine's architecture, as images name it."""
    return _MACHINES.get(platform.machine(), platform.machine())


def extract_archive(archive: Path, target: Path) -> None:
    """Unpack a tar of a layout, or of ``docker save``, into an empty directory.

    Raises:
        ImageFormatError: it is no such archive.
    """
    target.mkdir(exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _extract(tar, member, target)
    except (tarfile.TarError, EOFError) as error:
        raise ImageFormatError(f"{archive} is no archive of an image: {error}") from error


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """One entry of an archive; nothing but files is made, so that no name can lead out through a link."""
    path = _inside(target, member.name)
    if member.isfile():
        source = tar.extractfile(member)
        assert source is not None, "a regular file has content"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
    elif member.issym() or member.islnk():  # old archives have equal layers once
        name = member.linkname if member.islnk() else str(PurePosixPath(member.name).parent / member.linkname)
        original = _inside(target, name)
        if original.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(original)


def read_layout(directory: Path) -> list[ImageSpec]:
    """The images of a directory that are for this machine.

    Raises:
        ImageFormatError: there is none, or a file is missing or damaged.
    """
    try:
        if (directory / "index.json").exists():
            found = _read_oci(directory)
        elif (directory / "manifest.json").exists():
            found = [_read_saved(directory, entry) for entry in json.loads((directory / "manifest.json").read_bytes())]
        else:
            raise ImageFormatError(f"{directory} is no OCI layout: it has neither index.json nor manifest.json")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImageFormatError(f"the image in {directory} is damaged: {error!r}") from error
    if not found:
        raise ImageFormatError(f"{directory} has no image for linux/{machine()}")
    return found


def _read_oci(directory: Path) -> list[ImageSpec]:
    index: _Json = json.loads((directory / "index.json").read_bytes())
    return [
        spec
        for entry in index["manifests"]
        for spec in _manifests(directory, entry, _names(entry.get("annotations") or {}))
    ]


def _names(annotations: Mapping[str, str]) -> tuple[str, ...]:
    whole = annotations.get(_CONTAINERD_NAME) or annotations.get(_REF_NAME)
    return (whole,) if whole else ()


def _manifests(directory: Path, descriptor: _Json, names: tuple[str, ...]) -> list[ImageSpec]:
    """The manifest behind a descriptor, or those of an index that are for this machine."""
    wanted = descriptor.get("platform") or {}
    if wanted.get("architecture", machine()) != machine() or wanted.get("os", "linux") != "linux":
        return []
    manifest: _Json = json.loads(_blob(directory, descriptor["digest"]).read_bytes())
    if "manifests" in manifest:
        return [spec for entry in manifest["manifests"] for spec in _manifests(directory, entry, names)]
    kinds = [entry["mediaType"] for entry in manifest["layers"]]
    if kinds and not any("rootfs" in kind or "layer" in kind for kind in kinds):
        return []  # an attestation or another artifact beside the image
    digest = manifest["config"]["digest"]
    config: _Json = json.loads(_blob(directory, digest).read_bytes())
    _check_machine(config)
    layers = tuple(_layer(_blob(directory, entry["digest"])) for entry in manifest["layers"])
    return [ImageSpec(digest, names, config.get("config") or {}, layers)]


def _blob(directory: Path, digest: str) -> Path:
    algorithm, _, value = digest.partition(":")
    if algorithm not in {"sha256", "sha512"} or not value.isalnum():
        raise ImageFormatError(f"{digest!r} is no digest")
    path = directory / "blobs" / algorithm / value
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != value:
        raise ImageFormatError(f"blob {digest} is damaged: its content has the digest {found}")
    return path


def _read_saved(directory: Path, entry: _Json) -> ImageSpec:
    data = _inside(directory, entry["Config"]).read_bytes()
    config: _Json = json.loads(data)
    _check_machine(config)
    layers = tuple(_layer(_inside(directory, name)) for name in entry["Layers"])
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return ImageSpec(digest, tuple(entry.get("RepoTags") or ()), config.get("config") or {}, layers)


def _inside(directory: Path, name: str) -> Path:
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise ImageFormatError(f"{name!r} leads out of the archive")
    return path


def _check_machine(config: _Json) -> None:
    found = config.get("architecture") or machine()
    if found != machine():
        raise ImageFormatError(f"the image is for {found}; this machine is {machine()}")


def _layer(path: Path) -> Layer:
    # By content: Docker compresses what its archive calls a plain tar, and the other way round.
    with path.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return Layer(path, "gzip")
    return Layer(path, "zstd" if magic == b"\x28\xb5\x2f\xfd" else "")
