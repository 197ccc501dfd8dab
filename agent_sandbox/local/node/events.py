"""Tells people what happened to a Pod: Events, written in the background and never at the cost of the Pod."""

from collections import deque
from datetime import datetime
from typing import Final

import anyio
import structlog

from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient, KubeError
from agent_sandbox.local.node.pods import Pod
from agent_sandbox_api.core import EVENTS

log = structlog.get_logger(__name__)

_QUEUE: Final = 1000
_NOTE_LIMIT: Final = 1024


class PodEvents:
    """A bounded queue of events; when it is full the newest are dropped, as a kubelet does."""

    def __init__(self, client: KubeClient, clock: Clock, node: str) -> None:
        self._client = client
        self._clock = clock
        self._node = node
        self._number = 0
        self._queue: deque[dict[str, object]] = deque()
        self._arrived = anyio.Event()

    def report(self, pod: Pod, kind: str, reason: str, message: str) -> None:
        """Queue one event; returns at once."""
        if len(self._queue) >= _QUEUE:
            log.warning("event dropped: the queue is full", pod=pod.key, reason=reason)
            return
        self._queue.append(self._event(pod, kind, reason, message, self._clock.now()))
        self._arrived.set()

    def _event(self, pod: Pod, kind: str, reason: str, message: str, now: datetime) -> dict[str, object]:
        self._number += 1
        metadata = pod.metadata
        name = f"{metadata.name[:200]}.{int(now.timestamp() * 1e6):x}{self._number:x}"
        return {
            "metadata": {"name": name, "namespace": metadata.namespace},
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "agent-sandbox/local-node",
            "reportingInstance": self._node,
            "action": reason,
            "reason": reason,
            "type": kind,
            "note": message[:_NOTE_LIMIT],
            "regarding": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": metadata.namespace,
                "name": metadata.name,
                "uid": metadata.uid,
            },
        }

    async def run(self) -> None:
        """Write queued events until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived = anyio.Event()
            while self._queue:
                await self._write(self._queue.popleft())

    async def _write(self, event: dict[str, object]) -> None:
        try:
            await self._client.create(EVENTS, event)
        except KubeError as error:
            log.warning("event not written", reason=event["reason"], error=str(error))
