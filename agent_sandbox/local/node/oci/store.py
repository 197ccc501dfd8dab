"""Unpacked images in the state directory.

::

    <state>/images/<digest>/rootfs/       the files; read-only ground of every container's own layer
    <state>/images/<digest>/image.json    what the image says about containers, its names, its users

An image appears by one rename when it is whole; what a killed unpacking left is removed at the next start. Everything
is written with plain calls: call from a worker thread.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

from agent_sandbox.local.node.oci.errors import ImageFormatError
from agent_sandbox.local.node.oci.layout import ImageSpec, Layer, extract_archive, read_layout
from agent_sandbox.local.node.oci.reference import normalized
from agent_sandbox.local.node.records import remove_tree, write_atomically

_PART: Final = ".part-"
_UNPACKER: Final = Path(__file__).with_name("unpacker.py")


@dataclass(frozen=True)
class StoredImage:
    """An image that containers can be made from.

    Attributes:
        digest: its id, ``sha256:…``.
        names: complete references by which it is known.
        config: what it says about containers.
        passwd: its ``/etc/passwd``.
        group: its ``/etc/group``.
    """

    digest: str
    names: tuple[str, ...]
    config: dict[str, Any]
    passwd: str = ""
    group: str = ""

    @property
    def directory_name(self) -> str:
        """The name of its directory."""
        return self.digest.replace(":", "-")


class ImageStore:
    """The images of one state directory."""

    def __init__(self, root: Path) -> None:
        """
        Args:
            root: the directory of images; made if it does not exist.
        """
        self.root = root

    def create(self) -> None:
        """Make the directory, and remove what a killed unpacking left. Call it only while nobody unpacks."""
        self.root.mkdir(exist_ok=True, parents=True)
        self.root.chmod(0o711)
        for path in self.root.glob(f"{_PART}*"):
            remove_tree(path)

    def images(self) -> list[StoredImage]:
        """All images, by name."""
        found = []
        for path in self.root.glob("*/image.json"):
            try:
                values = json.loads(path.read_bytes())
                found.append(StoredImage(**{**values, "names": tuple(values["names"])}))
            except (OSError, ValueError, TypeError, KeyError):
                continue  # removed meanwhile, or of a later version
        return sorted(found, key=lambda image: image.names)

    def find(self, reference: str) -> StoredImage | None:
        """The image of a name or an id, or None."""
        wanted = normalized(reference)
        return next((image for image in self.images() if wanted in image.names or image.digest == reference), None)

    def add_layout(self, path: Path, names: Sequence[str] = ()) -> list[StoredImage]:
        """Unpack the images of an OCI layout: a directory, a tar of one, or what ``docker save`` wrote.

        Args:
            path: where it is.
            names: names for its one image, instead of its own.

        Raises:
            ImageFormatError: it holds no image for this machine, several where names were given, or damaged ones.
        """
        with ExitStack() as stack:
            if not path.is_dir():
                self.root.mkdir(exist_ok=True, parents=True)
                directory = stack.enter_context(tempfile.TemporaryDirectory(prefix=_PART, dir=self.root))
                extract_archive(path, Path(directory))
                path = Path(directory)
            specs = read_layout(path)
            if names and len(specs) != 1:
                raise ImageFormatError(f"{path} holds {len(specs)} images: they cannot all have the name {names[0]!r}")
            return [self._add(replace(spec, names=tuple(names)) if names else spec) for spec in specs]

    def _add(self, spec: ImageSpec) -> StoredImage:
        names = tuple(dict.fromkeys(normalized(name) for name in spec.names))
        image = StoredImage(spec.digest, names, dict(spec.config))
        place = self.root / image.directory_name
        if place.exists():
            known = next((entry for entry in self.images() if entry.digest == spec.digest), image)
            image = replace(known, names=tuple(dict.fromkeys([*known.names, *names])))
        else:
            self.root.mkdir(exist_ok=True, parents=True)
            part = Path(tempfile.mkdtemp(prefix=_PART, dir=self.root))
            try:
                rootfs = part / "rootfs"
                rootfs.mkdir()
                users = _unpack(spec.layers, rootfs)
                rootfs.chmod(0o755)
                image = replace(image, passwd=users["passwd"], group=users["group"])
                _write(part, image)
                part.chmod(0o711)
                part.rename(place)
            except BaseException:
                remove_tree(part)
                raise
        self._take_names(image)
        _write(place, image)
        return image

    def _take_names(self, image: StoredImage) -> None:
        """A name belongs to the newest image that claims it."""
        for other in self.images():
            kept = tuple(name for name in other.names if name not in image.names)
            if other.digest != image.digest and kept != other.names:
                _write(self.root / other.directory_name, replace(other, names=kept))

    def remove(self, reference: str) -> bool:
        """Remove an image; False if there is none of that name. Containers that run on it keep its open files only."""
        image = self.find(reference)
        if image is None:
            return False
        remove_tree(self.root / image.directory_name)
        return True


def _write(directory: Path, image: StoredImage) -> None:
    write_atomically(directory / "image.json", json.dumps(asdict(image)).encode(), 0o600)


def _unpack(layers: Sequence[Layer], rootfs: Path) -> dict[str, str]:
    """Unpack layers in processes whose root is the target; the image's users."""
    for layer in layers:
        with layer.file.open("rb") as file:
            if layer.compression == "zstd":
                with _zstd(file) as plain:
                    _run_unpacker("apply", rootfs, plain)
            else:
                _run_unpacker("apply", rootfs, file)
    users: dict[str, str] = json.loads(_run_unpacker("finish", rootfs, None))
    return users


@contextmanager
def _zstd(file: BinaryIO) -> Iterator[IO[bytes]]:
    program = shutil.which("zstd")
    if program is None:
        raise ImageFormatError("a layer is compressed by zstd, and that program is not installed: apt-get install zstd")
    with subprocess.Popen([program, "-dcq"], stdin=file, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None, "its output was asked for"
        yield process.stdout


def _run_unpacker(what: str, rootfs: Path, layer: IO[bytes] | None) -> bytes:
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-I", "-S", str(_UNPACKER), what, str(rootfs)],
        stdin=layer if layer is not None else subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env={"PATH": os.defpath},
    )
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise ImageFormatError(f"a layer cannot be unpacked: {last}")
    return done.stdout
