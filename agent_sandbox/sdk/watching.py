"""Follows all sandboxes of a namespace: first as they are, then each change, across lost connections."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import anyio

from agent_sandbox.kube import (
    EventType,
    GoneError,
    KubeClient,
    KubeError,
    ServerError,
    TooManyRequestsError,
    TransportError,
)
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.results import SandboxChange, SandboxInfo
from agent_sandbox.sdk.status import info_of
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS

_WATCH_SECONDS: Final = 240
_PAUSE: Final = 1.0


class ClaimWatch:
    """One watch on the claims of a namespace that remembers what was told."""

    def __init__(self, kube: KubeClient, namespace: str | None, label_selector: str) -> None:
        """
        Args:
            kube: the cluster.
            namespace: one namespace, or None for all.
            label_selector: only what it matches.
        """
        self._kube = kube
        self._namespace = namespace
        self._selector = label_selector
        self._known: dict[str, SandboxInfo] = {}
        self._resource_version = ""

    async def changes(self) -> AsyncGenerator[SandboxChange, None]:
        """Every change, for ever. A server that goes away later is waited for.

        Raises:
            SandboxError: the cluster cannot be reached at first, or refuses.
        """
        listed_once = False
        while True:
            try:
                for change in await self._list():
                    yield change
                listed_once = True
                while True:
                    async with aclosing(self._watch()) as changes:
                        async for change in changes:
                            yield change
            except GoneError:
                continue  # the version is too old: list again
            except (TransportError, ServerError, TooManyRequestsError) as error:
                if not listed_once:
                    raise explain(error, "listing sandboxes") from error
                await anyio.sleep(_PAUSE)
            except KubeError as error:
                raise explain(error, "watching sandboxes") from error

    async def _list(self) -> list[SandboxChange]:
        """What has changed since it was told, and what has gone."""
        found = await self._kube.list(SANDBOX_CLAIMS, self._namespace, label_selector=self._selector)
        now = {claim.metadata.uid: info_of(claim) for claim in found.items}
        self._resource_version = found.resource_version
        gone = [_deleted(self._known.pop(uid)) for uid in self._known.keys() - now.keys()]
        changes = [self._note(uid, info) for uid, info in now.items()]
        return gone + [change for change in changes if change is not None]

    async def _watch(self) -> AsyncGenerator[SandboxChange, None]:
        """What happens until the server ends the watch."""
        async with self._kube.watch(
            SANDBOX_CLAIMS,
            self._namespace,
            resource_version=self._resource_version,
            label_selector=self._selector,
            timeout_seconds=_WATCH_SECONDS,
            read_timeout=_WATCH_SECONDS + 30.0,
        ) as events:
            async for event in events:
                self._resource_version = event.resource_version or self._resource_version
                if event.view is None:
                    continue
                uid, info = event.view.metadata.uid, info_of(event.view)
                if event.type is EventType.DELETED:
                    self._known.pop(uid, None)
                    yield _deleted(info)
                elif (change := self._note(uid, info)) is not None:
                    yield change

    def _note(self, uid: str, info: SandboxInfo) -> SandboxChange | None:
        """The change, or None for a write that changes nothing of what is told."""
        before = self._known.get(uid)
        self._known[uid] = info
        if before == info:
            return None
        return SandboxChange("added" if before is None else "changed", info)


def _deleted(info: SandboxInfo) -> SandboxChange:
    """What nothing held went without a mark, so its last state still reads as if it lived."""
    return SandboxChange("deleted", replace(info, status=replace(info.status, state="Deleting")))
