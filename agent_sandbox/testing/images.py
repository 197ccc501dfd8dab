"""Small OCI images for tests, made out of this machine's own shell; nothing is downloaded."""

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_sandbox.local.node.oci.layout import machine

_PROGRAMS = ("sh", "cat", "false", "find", "grep", "head", "id", "ls", "mkdir", "sleep", "test", "touch", "true")


@dataclass(frozen=True)
class Entry:
    """One entry of a layer: a file unless it says otherwise."""

    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    link: str = ""


Layer = Mapping[str, Entry]


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(kind=tarfile.SYMTYPE, link=target)


def directory(mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(kind=tarfile.DIRTYPE, mode=mode)


def pack(layer: Layer) -> bytes:
    """A layer as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, entry in layer.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.type, info.linkname = len(entry.data), entry.mode, entry.kind, entry.link
            tar.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


def programs(*names: str) -> dict[str, Entry]:
    """Programs of this machine with the libraries that they need."""
    found: dict[str, Entry] = {}
    for name in names:
        path = shutil.which(name)
        assert path is not None, f"this machine has no {name}"
        needed = subprocess.run(["/usr/bin/ldd", path], capture_output=True, text=True, check=False).stdout  # noqa: S603
        found[f"bin/{name}"] = Entry(Path(path).read_bytes(), 0o755)
        for library in re.findall(r"(/\S+) \(0x", needed):
            found[library.lstrip("/")] = Entry(Path(library).read_bytes(), 0o755)
    return found


def make_layout(path: Path, layers: Iterable[Layer], *, name: str = "", **config: Any) -> Path:
    """An OCI layout with one image."""
    return write_layout(path, [pack(layer) for layer in layers], name=name, config=config)


def write_layout(path: Path, layers: Sequence[bytes], *, name: str, config: Mapping[str, Any], arch: str = "") -> Path:
    """An OCI layout with one image of packed layers."""
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.oci.image"
    body = {"architecture": arch or machine(), "os": "linux", "config": dict(config), "rootfs": {"type": "layers"}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", **blob(json.dumps(body).encode())},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", **blob(gzip.compress(layer, 1))} for layer in layers],
    }
    entry = {"mediaType": f"{kind}.manifest.v1+json", **blob(json.dumps(manifest).encode())}
    if name:
        entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path


def shell_image(path: Path, name: str = "localhost/shell:1", **config: Any) -> Path:
    """An image with a shell and a few programs, as an OCI layout."""
    base = {"etc": directory(), "usr": directory(), **programs(*_PROGRAMS)}
    users = "root:x:0:0:root:/root:/bin/sh\napp:x:1234:1235:app:/home/app:/bin/sh\n"
    own = {"etc/passwd": Entry(users.encode()), "etc/greeting": Entry(b"hello from the image\n")}
    return make_layout(path, [base, own], name=name, **config)
