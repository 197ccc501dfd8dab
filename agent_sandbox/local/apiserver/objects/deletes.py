"""How an object ends: preconditions, grace, finalizers and propagation."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from agent_sandbox.local.apiserver.errors import BadRequestError, Cause, ConflictError, OptionError
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox_api.meta import format_time

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_POLICIES = {"Foreground": FOREGROUND, "Orphan": ORPHAN}


@dataclass(frozen=True)
class Preconditions:
    """What must still hold for a delete to happen."""

    uid: str | None = None
    resource_version: str | None = None

    def check(self, resource: ResourceType, metadata: JsonObject) -> None:
        """
        Raises:
            ConflictError: a precondition does not hold.
        """
        name = metadata["name"]
        if self.uid and self.uid != metadata.get("uid"):
            detail = (
                f"the UID in the precondition ({self.uid}) does not match the UID in record ({metadata.get('uid')}). "
                "The object might have been deleted and then recreated"
            )
            raise ConflictError(_by_kind(resource), name, detail)
        if self.resource_version and self.resource_version != metadata["resourceVersion"]:
            detail = (
                f"the ResourceVersion in the precondition ({self.resource_version}) does not match the ResourceVersion "
                f"in record ({metadata['resourceVersion']}). The object might have been modified"
            )
            raise ConflictError(_by_kind(resource), name, detail)


def _by_kind(resource: ResourceType) -> ResourceType:
    """Kubernetes names the kind, not the resource, when a delete's precondition fails."""
    return replace(resource, plural=resource.kind)


@dataclass(frozen=True)
class DeleteOptions:
    """``metav1.DeleteOptions`` as far as it changes anything here."""

    grace_period_seconds: int | None = None
    propagation: str = ""
    preconditions: Preconditions = Preconditions()
    dry_run: bool = False

    @classmethod
    def parse(cls, source: dict[str, Any]) -> "DeleteOptions":
        """Read the JSON form.

        Raises:
            BadRequestError: the propagation policy is unknown, or given in two ways.
        """
        policy = source.get("propagationPolicy") or ""
        if policy not in ("", "Background", *_POLICIES):
            allowed = ("Foreground", "Background", "Orphan", "nil")
            raise OptionError("DeleteOptions", Cause.unsupported("propagationPolicy", policy, allowed))
        if source.get("orphanDependents") is not None:
            if policy:
                raise BadRequestError("orphanDependents and deletionPropagation cannot be both set")
            policy = "Orphan" if source["orphanDependents"] else "Background"
        wanted = source.get("preconditions") or {}
        return cls(
            source.get("gracePeriodSeconds"),
            policy,
            Preconditions(wanted.get("uid"), wanted.get("resourceVersion")),
            bool(source.get("dryRun")),
        )


def finalizers_for(metadata: JsonObject, propagation: str) -> list[str]:
    """The object's finalizers once the propagation policy is written into them."""
    present = [entry for entry in metadata.get("finalizers") or [] if entry not in _POLICIES.values()]
    if not propagation:
        # Without a policy, one that was set before stays.
        return list(metadata.get("finalizers") or [])
    wanted = _POLICIES.get(propagation)
    return [*present, wanted] if wanted else present


def mark_deleting(value: JsonObject, resource: ResourceType, options: DeleteOptions, now: datetime) -> bool:
    """Mark an object as deleting, in place; one that nothing holds goes unmarked, as it was.

    Returns:
        True if nothing holds the object any more: it can go now.
    """
    metadata = value["metadata"]
    grace = resource.strategy.grace_seconds(value, options.grace_period_seconds)
    if not metadata.get("deletionTimestamp"):
        resource.strategy.prepare_delete(value)
    finalizers = finalizers_for(metadata, options.propagation)
    if grace is None and not finalizers and not metadata.get("deletionTimestamp") and not _ends_by_itself(value):
        metadata.pop("finalizers", None)
        return True
    grace = grace or 0
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = format_time(now + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
        if metadata.get("generation"):
            metadata["generation"] += 1
    elif options.grace_period_seconds is not None and grace < metadata.get("deletionGracePeriodSeconds", 0):
        # A second delete may only shorten the wait.
        passed = metadata["deletionGracePeriodSeconds"]
        started = datetime.fromisoformat(metadata["deletionTimestamp"]) - timedelta(seconds=passed)
        metadata["deletionTimestamp"] = format_time(max(started + timedelta(seconds=grace), now))
        metadata["deletionGracePeriodSeconds"] = grace
    return may_go(value)


def may_go(value: JsonObject) -> bool:
    """True for a deleting object without finalizers whose grace period is over or was none."""
    metadata = value["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    # Only the one who holds the object (a Pod's node) ends a running grace period, by a delete with none.
    if metadata.get("deletionGracePeriodSeconds", 0) > 0:
        return False
    return not _ends_by_itself(value)


def _ends_by_itself(value: JsonObject) -> bool:
    """A namespace is emptied first."""
    return bool(value["kind"] == "Namespace" and (value.get("spec") or {}).get("finalizers"))
