"""Which status differences are news, and which are only the progress of something that was not Ready and is not yet."""

from enum import Enum

from agent_sandbox_api.names import CONDITION_FINISHED, CONDITION_READY, CONDITION_SUSPENDED
from agent_sandbox_controllers.conditions import reason_of, status_of
from agent_sandbox_controllers.status import Status
from agent_sandbox_controllers.vocabulary import Reason

_PROGRESS = frozenset({"", Reason.DEPENDENCIES_NOT_READY, Reason.SANDBOX_NOT_READY})
_ENDS = frozenset({Reason.SANDBOX_EXPIRED, Reason.CLAIM_EXPIRED})
_OBSTACLES = frozenset(value for key, value in vars(Reason).items() if key.isupper()) - {Reason.CONTAINER_FAILED}


_WISHES = _ENDS | {Reason.SANDBOX_SUSPENDED, Reason.POD_SUCCEEDED, Reason.DEPENDENCIES_READY}
"""Reasons of Ready that are what somebody asked for."""


class Urgency(Enum):
    """How soon a status difference must be written."""

    NOW = "now"
    """Ready, Suspended or Finished is or was True, or the object has expired: everybody acts on it."""
    NEWS = "news"
    """An obstacle appears, goes or becomes another: at once, unless it keeps doing so."""
    PROGRESS = "progress"
    """On the way, as expected."""


def urgency_of(old: Status, new: Status) -> Urgency:
    """How soon the difference between two statuses must be written.

    What a kubelet says of a container that cannot start alternates (ErrImagePull, ImagePullBackOff): it is one
    obstacle.
    """
    before, after = old.get("conditions", []), new.get("conditions", [])
    for kind in (CONDITION_READY, CONDITION_SUSPENDED):
        if "True" in (status_of(before, kind), status_of(after, kind)):
            return Urgency.NOW
    if status_of(before, CONDITION_FINISHED) != status_of(after, CONDITION_FINISHED):
        return Urgency.NOW
    if reason_of(after, CONDITION_READY) in _ENDS and reason_of(before, CONDITION_READY) not in _ENDS:
        return Urgency.NOW
    if _obstacle(reason_of(before, CONDITION_READY)) != _obstacle(reason_of(after, CONDITION_READY)):
        return Urgency.NEWS
    return Urgency.PROGRESS


def readiness_changes(old: Status, new: Status) -> bool:
    """Whether Ready turns True, or stops being so."""
    before, after = (status_of(each.get("conditions", []), CONDITION_READY) for each in (old, new))
    return (before == "True") != (after == "True")


def _obstacle(reason: str) -> str:
    if reason in _PROGRESS:
        return ""
    return reason if reason in _OBSTACLES else "container"


def new_obstacle(old: Status, new: Status) -> tuple[str, str] | None:
    """Reason and message of an obstacle that the new status names and the old one did not; None if there is none."""
    for condition in new.get("conditions", []):
        reason = str(condition["reason"])
        if condition["type"] == CONDITION_READY and condition["status"] == "False" and reason not in _WISHES:
            before = _obstacle(reason_of(old.get("conditions", []), CONDITION_READY))
            return (reason, str(condition["message"])) if _obstacle(reason) not in ("", before) else None
    return None
