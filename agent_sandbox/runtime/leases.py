"""One Lease object, read and written for an election: the only place that knows its fields."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent_sandbox.kube import KubeClient, MergePatch, NotFoundError
from agent_sandbox_api.core import LEASES, LeaseView


@dataclass(frozen=True)
class LeaseRecord:
    """What an election needs of a Lease.

    Two records are equal if nobody wrote the Lease in between, which is all that a candidate concludes from them: it
    never compares another machine's clock with its own.
    """

    resource_version: str
    holder: str
    transitions: int
    renewed: datetime | None


class LeaseLock:
    """A Lease of one name. Every write is conditional on the record last read."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self.namespace = namespace
        self.name = name
        self._client = client

    async def read(self) -> LeaseRecord | None:
        """The record now, or None if there is no such Lease."""
        try:
            return _record(await self._client.get(LEASES, self.name, self.namespace))
        except NotFoundError:
            return None

    async def create(self, holder: str, duration: float, now: datetime) -> LeaseRecord:
        """Make the Lease, held.

        Raises:
            AlreadyExistsError: another candidate was first.
        """
        body = {
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": round(duration),
                "acquireTime": micro_time(now),
                "renewTime": micro_time(now),
                "leaseTransitions": 0,
            },
        }
        return _record(await self._client.create(LEASES, body))

    async def take(self, seen: LeaseRecord, holder: str, duration: float, now: datetime) -> LeaseRecord:
        """Become, or remain, the holder.

        Raises:
            ConflictError: somebody wrote the Lease since ``seen``.
        """
        spec: dict[str, Any] = {
            "holderIdentity": holder,
            "leaseDurationSeconds": round(duration),
            "renewTime": micro_time(now),
        }
        if seen.holder != holder:
            spec |= {"acquireTime": micro_time(now), "leaseTransitions": seen.transitions + 1}
        return await self._write(seen, spec)

    async def release(self, seen: LeaseRecord, now: datetime) -> LeaseRecord:
        """Let go, so that the next candidate need not wait: no holder, and a duration of a second as client-go writes.

        Raises:
            ConflictError: somebody wrote the Lease since ``seen``.
        """
        return await self._write(seen, {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": micro_time(now)})

    async def _write(self, seen: LeaseRecord, spec: dict[str, Any]) -> LeaseRecord:
        patch = MergePatch({"metadata": {"resourceVersion": seen.resource_version}, "spec": spec})
        return _record(await self._client.patch(LEASES, self.name, patch, self.namespace))


def _record(view: LeaseView) -> LeaseRecord:
    spec = view.spec
    return LeaseRecord(
        view.metadata.resource_version, spec.holder_identity or "", spec.lease_transitions or 0, spec.renew_time
    )


def micro_time(moment: datetime) -> str:
    """``metav1.MicroTime``: RFC 3339 with exactly six digits of a second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
