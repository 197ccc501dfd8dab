"""Where containers' images come from: what is built in, what is in the store, and what Podman or Docker fetch.

``imagePullPolicy`` is a kubelet's: ``Never`` looks at what is here, ``IfNotPresent`` fetches what is not, ``Always``
asks the engine each time. Without an engine there is nothing to ask, so an image in the store counts as present.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import anyio
import anyio.to_thread

from agent_sandbox.local.node.errors import ContainerError, ImageError
from agent_sandbox.local.node.images import Image, built_in_image
from agent_sandbox.local.node.oci.engine import ImageEngine
from agent_sandbox.local.node.oci.errors import ImageFormatError
from agent_sandbox.local.node.oci.reference import normalized
from agent_sandbox.local.node.oci.store import ImageStore, StoredImage

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class FoundImage:
    """An image, and whether it had to be fetched."""

    image: Image
    fetched: bool = False


class ImageSource:
    """Finds images. One image is fetched once, however many Pods ask for it at the same time."""

    def __init__(self, store: ImageStore, find_engine: Callable[[], ImageEngine | None]) -> None:
        self._store = store
        self._find_engine = find_engine
        self._fetching: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)

    async def find(self, reference: str, policy: str) -> FoundImage:
        """The image of a reference.

        Raises:
            ContainerError: there is none, with the kubelet's reason and what to do.
        """
        built_in = built_in_image(reference)
        if built_in is not None:
            return FoundImage(built_in)
        async with self._fetching[normalized(reference)]:
            stored = await anyio.to_thread.run_sync(self._store.find, reference)
            engine = None if policy == "Never" and stored else self._find_engine()
            if engine is None:
                return FoundImage(to_image(stored if stored is not None else _refuse(reference, policy)))
            if stored is not None and policy != "Always":
                return FoundImage(to_image(stored))
            return await self._ask(engine, reference, policy, stored)

    async def _ask(self, engine: ImageEngine, reference: str, policy: str, stored: StoredImage | None) -> FoundImage:
        local = normalized(reference).startswith("localhost/")  # a name that no registry can have
        there = await engine.image_id(reference)
        pulls = policy == "Always" and not local
        if policy != "Never" and (pulls or (there is None and stored is None)):
            await engine.pull(reference)
            there = await engine.image_id(reference)
        if there is None:
            return FoundImage(to_image(stored if stored is not None else _refuse(reference, policy)))
        if stored is not None and stored.digest == there:
            return FoundImage(to_image(stored))
        return FoundImage(to_image(await self._fetch(engine, reference)), fetched=True)

    async def _fetch(self, engine: ImageEngine, reference: str) -> StoredImage:
        directory = await anyio.to_thread.run_sync(tempfile.TemporaryDirectory)
        try:
            archive = Path(directory.name, "image.tar")
            await engine.save(reference, archive)
            found = await anyio.to_thread.run_sync(self._store.add_layout, archive, [reference])
        except (ImageFormatError, OSError) as error:
            raise ImageError(f"{reference}: {error}") from error
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(directory.cleanup)
        return found[0]


def _refuse(reference: str, policy: str) -> NoReturn:
    if policy == "Never":
        raise ContainerError(
            "ErrImageNeverPull", f"Container image {reference!r} is not present with pull policy of Never"
        )
    raise ImageError(
        f"image {reference!r} does not exist on the local node. It has 'python-runtime-sandbox' (in any registry and"
        " with any tag), 'localhost/host' (this machine's /usr, read-only, with the container's own command), and what"
        " you give it: `agent-sandbox local images import <OCI layout or archive>`, or any image while Podman's or"
        " Docker's socket is there"
    )


def to_image(stored: StoredImage) -> Image:
    """What a container needs to know of a stored image."""
    config = stored.config
    env = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
    uid, gid = user_ids(config.get("User") or "", stored.passwd, stored.group)
    return Image(
        name=stored.digest,
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        env={"PATH": _PATH, "HOME": _home(uid, stored.passwd), **env},
        workdir=config.get("WorkingDir") or "/",
        root=f"{stored.directory_name}/rootfs",
        uid=uid,
        gid=gid,
    )


def user_ids(user: str, passwd: str, group: str) -> tuple[int, int]:
    """uid and gid of an image's ``USER``: names or numbers, ``user[:group]``; 0 where none is named.

    Raises:
        ImageError: the image has no such user or group.
    """
    name, _, group_name = user.partition(":")
    users, groups = _table(passwd), _table(group)
    if not name or name.isdigit():
        uid = int(name or 0)
        gid = next((int(entry[3]) for entry in users.values() if len(entry) > 3 and entry[2] == str(uid)), 0)
    elif name in users:
        uid, gid = int(users[name][2]), int(users[name][3])
    else:
        raise ImageError(f"the image starts as user {name!r}, whom its /etc/passwd does not know")
    if group_name.isdigit():
        gid = int(group_name)
    elif group_name:
        if group_name not in groups:
            raise ImageError(f"the image starts in group {group_name!r}, which its /etc/group does not know")
        gid = int(groups[group_name][2])
    return uid, gid


def _home(uid: int, passwd: str) -> str:
    entries: Any = _table(passwd).values()
    return next((entry[5] for entry in entries if len(entry) > 5 and entry[2] == str(uid) and entry[5]), "/")


def _table(text: str) -> Mapping[str, list[str]]:
    lines = (line.split(":") for line in text.splitlines())
    return {line[0]: line for line in lines if len(line) > 2 and line[2].isdigit()}
