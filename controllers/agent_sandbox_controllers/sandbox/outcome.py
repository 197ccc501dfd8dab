"""What planning returns: actions to carry out, troubles to tell, notices to send."""

from dataclasses import dataclass
from typing import Literal

from agent_sandbox_controllers.actions import Action
from agent_sandbox_controllers.troubles import Trouble


@dataclass(frozen=True)
class Notice:
    """An event for people.

    Attributes:
        type: Normal or Warning.
        reason: for programs.
        action: what the controller was doing.
        note: the sentence.
        about: UID of the object concerned; the same notice about the same object is sent once.
        lost_pod: whether it reports a Pod lost to eviction or to its node, which a metric counts.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    action: str
    note: str
    about: str = ""
    lost_pod: bool = False


@dataclass(frozen=True)
class Plan:
    """The result of looking at one aspect, or of all; two add up in order."""

    actions: tuple[Action, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    notices: tuple[Notice, ...] = ()

    def __add__(self, other: "Plan") -> "Plan":
        return Plan(self.actions + other.actions, self.troubles + other.troubles, self.notices + other.notices)


def stopped(reason: str, message: str, retry_after: float | None = None) -> Plan:
    """A plan that does nothing and says why."""
    return Plan(troubles=(Trouble(reason, message, retry_after),))
