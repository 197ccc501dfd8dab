"""What stands in the way of an object, in the words of a condition; and which API errors are such a thing.

A trouble is not an exception: it becomes a condition that says what to change, and it heals when its cause goes, which
a watch reports, or a slow look after ``retry_after`` where no watch can. What is no trouble (conflicts, a failing
server, a lost answer) stays an exception and is retried with backoff.
"""

from dataclasses import dataclass
from typing import Final

from agent_sandbox.kube import AlreadyExistsError, ApiError, BadRequestError, ForbiddenError, InvalidError
from agent_sandbox_controllers.vocabulary import Reason

SLOW_LOOK: Final = 30.0
"""Seconds until something is tried again whose cause (a quota, an admission rule) no watch of ours reports."""


@dataclass(frozen=True)
class Trouble:
    """One obstacle.

    Attributes:
        reason: for programs.
        message: what is wrong, with which object, and what to do.
        retry_after: seconds until a new look; None if a watch reports the cause's end.
    """

    reason: str
    message: str
    retry_after: float | None = None


def trouble_of(error: ApiError, doing: str) -> Trouble | None:
    """The trouble that a refused write means; None if the error says nothing about what the user wants.

    Args:
        error: the server's answer.
        doing: what was tried, for the message, for example ``create Pod "alice"``.
    """
    if isinstance(error, AlreadyExistsError):
        return None
    if isinstance(error, ForbiddenError):
        if "exceeded quota" in error.message or "limited: " in error.message:
            return Trouble(
                Reason.QUOTA_EXCEEDED,
                f"cannot {doing}: {error.message}; raise the quota or free some of it",
                SLOW_LOOK,
            )
        return Trouble(Reason.REJECTED, f"cannot {doing}: {error.message}", SLOW_LOOK)
    if isinstance(error, InvalidError | BadRequestError):
        return Trouble(Reason.REJECTED, f"cannot {doing}: {error.message}", SLOW_LOOK)
    return None
