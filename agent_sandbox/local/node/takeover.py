"""Finds the Pods that outlived a killed node, and ends the processes of those that may not go on.

In: what the helper has, what the API server has, and the records. A Pod lives on if all three agree on it; anything
else in the helper is ended before the node does anything with it, so that a Pod never runs twice.
"""

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from signal import SIGKILL
from typing import Final

import anyio
import msgspec
import structlog

from agent_sandbox.local.node.container import Takeover
from agent_sandbox.local.node.network import Ended, PodNetwork, Survivor
from agent_sandbox.local.node.pods import Pod, StatusOfContainer, StoredPod
from agent_sandbox.local.node.records import PodRecord
from agent_sandbox.local.node.runtime import About

log = structlog.get_logger(__name__)

_END_TIMEOUT: Final = 10.0
_ENDED: Final = frozenset({"Succeeded", "Failed"})

Takeovers = Mapping[str, Takeover]
"""Containers of an earlier node by name."""


async def find_living(
    network: PodNetwork, known: Mapping[str, StoredPod], records: Mapping[str, PodRecord], node: str
) -> list[tuple[Pod, Takeovers]]:
    """Pods that go on, with their containers; everything else in the helper is ended.

    Args:
        network: the pod network.
        known: Pods of the API server by uid.
        records: what was recorded of Pods, by uid.
        node: this node's name.
    """
    survivors: dict[str, list[Survivor]] = defaultdict(list)
    for survivor in await network.survivors():
        survivors[survivor.pod].append(survivor)
    networks = dict(network.networks)
    if not network.isolated:
        networks = {uid: records[uid].address for uid in survivors if uid in records}
    living: list[tuple[Pod, Takeovers]] = []
    for uid in [*networks, *(uid for uid in survivors if uid not in networks)]:
        pod = _pod(known.get(uid), node)
        record = records.get(uid)
        if pod is not None and record is not None and record.address == networks.get(uid):
            living.append((pod, await _containers(network, pod, survivors[uid])))
        else:
            await _end(network, uid, survivors[uid])
    if living:
        log.info("Pods of an earlier node go on", count=len(living))
    return living


def _pod(stored: StoredPod | None, node: str) -> Pod | None:
    """A Pod that may go on; not one that is being deleted, whose grace is over with its node."""
    if stored is None or stored.metadata.deleting or stored.status.phase in _ENDED:
        return None
    try:
        pod = stored.decode()
    except msgspec.ValidationError:
        return None
    return pod if pod.spec.node_name == node else None


async def _containers(network: PodNetwork, pod: Pod, survivors: list[Survivor]) -> Takeovers:
    """The last run of each container; what the runtime has beside them is the runtime's to find."""
    statuses = {entry.name: entry for entry in (*pod.status.container_statuses, *pod.status.init_container_statuses)}
    found: dict[str, Takeover] = {}
    for survivor in survivors:  # in the order of their start
        about = About.decode(survivor.about)
        if not about.is_container:
            survivor.close()
            continue
        name = about.launch.container
        if (earlier := found.get(name)) is not None:
            earlier.survivor.close()
            await network.forget(earlier.survivor.key)
        found[name] = Takeover(survivor, about, _started_at(survivor, about, statuses.get(name)))
    return found


def _started_at(survivor: Survivor, about: About, status: StatusOfContainer | None) -> datetime:
    """The moment that its status shows, if that is of this run already."""
    if status is not None and status.restart_count == about.launch.run and status.state.running is not None:
        shown = status.state.running.started_at
        if shown is not None:
            return shown
    return datetime.fromtimestamp(survivor.started, UTC)


async def _end(network: PodNetwork, pod: str, survivors: list[Survivor]) -> None:
    """Kill the processes of a Pod, wait for their end, and remove its network."""
    with anyio.move_on_after(_END_TIMEOUT):
        for survivor in survivors:
            survivor.close()
            ended = anyio.Event()

            def did_end(_: Ended, ended: anyio.Event = ended) -> None:
                ended.set()

            await network.follow(survivor.key, did_end)
            await network.kill(survivor.key, SIGKILL)
            await ended.wait()
    await network.delete(pod)
