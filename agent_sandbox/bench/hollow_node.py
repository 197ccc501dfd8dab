"""A node that runs nothing: it reports every new Pod as Ready after a while, so that only the control plane works."""

import random
from typing import Final

import anyio
import anyio.abc

from agent_sandbox.bench.start_delay import StartDelay
from agent_sandbox.clock import Clock
from agent_sandbox.kube import ConflictError, KubeClient, KubeError, MergePatch, NotFoundError
from agent_sandbox.runtime import Change, Informer, InformerOptions
from agent_sandbox_api.core import PODS, PodView

SCHEDULER: Final = "agent-sandbox-bench"
"""``schedulerName`` of Pods that no real scheduler may bind to a real node."""


class HollowNode:
    """Takes the Pods of one namespace.

    Errors:
        ``run`` raises what the API server refuses beside a Pod that is gone; failures of the watch are waited out.
    """

    def __init__(
        self, client: KubeClient, namespace: str, delay: StartDelay, *, clock: Clock, random: random.Random
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._delay = delay
        self._clock = clock
        self._random = random
        self._started = 0

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Started when the Pods that exist are known."""
        informer: Informer[PodView] = Informer(
            self._client,
            PODS,
            clock=self._clock,
            random=self._random,
            options=InformerOptions(namespaces=[self._namespace], resync_period=None),
        )
        async with anyio.create_task_group() as tasks:

            def take(change: Change[PodView]) -> None:
                if change.old is None and change.new is not None and change.new.status.phase != "Running":
                    tasks.start_soon(self._start, change.new, name=f"hollow {change.new.metadata.name}")

            informer.add_handler(take)
            tasks.start_soon(informer.run)
            await informer.wait_until_synced()
            task_status.started()

    async def _start(self, pod: PodView) -> None:
        await self._clock.sleep(self._delay.draw(self._random))
        self._started += 1
        address = f"10.{64 + (self._started >> 16) % 64}.{self._started >> 8 & 255}.{self._started & 255}"
        conditions = [{"type": name, "status": "True"} for name in ("PodScheduled", "Initialized", "Ready")]
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}
        # The UID lets the report miss a Pod that has taken the name since.
        patch = MergePatch({"metadata": {"uid": pod.metadata.uid}, "status": status})
        try:
            await self._client.patch(PODS, pod.metadata.name, patch, self._namespace, subresource="status")
        except (NotFoundError, ConflictError):
            return
        except KubeError as error:
            error.add_note(f"while the hollow node reported Pod {pod.metadata.name} as Ready")
            raise
