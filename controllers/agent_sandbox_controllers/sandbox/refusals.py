"""Remembers what the server refused, so that the same is not asked at every event and the condition does not
flicker.
"""

from dataclasses import dataclass

from agent_sandbox_controllers.actions import Action
from agent_sandbox_controllers.sandbox.observed import Observed
from agent_sandbox_controllers.troubles import SLOW_LOOK, Trouble


@dataclass(frozen=True)
class Refusal:
    """One refused write.

    Attributes:
        key: which write.
        generation: the Sandbox's generation then; a newer spec is worth another try at once.
        until: monotonic time of the next try.
        trouble: what the server said.
    """

    key: tuple[str, str, str]
    generation: int
    until: float
    trouble: Trouble


def key_of(action: Action) -> tuple[str, str, str]:
    """What tells one write of a Sandbox from another."""
    return type(action).__name__, action.resource.kind, action.name


class Refusals:
    """The last refusal of each Sandbox, in memory."""

    def __init__(self) -> None:
        self._last: dict[str, Refusal] = {}

    def current(self, observed: Observed, actions: tuple[Action, ...], now: float) -> Refusal | None:
        """The refusal that still holds for what is planned now."""
        last = self._last.get(observed.uid)
        if last is None:
            return None
        holds = last.generation == observed.view.metadata.generation and now < last.until
        if not holds or all(key_of(action) != last.key for action in actions):
            del self._last[observed.uid]
            return None
        return last

    def note(self, observed: Observed, action: Action, trouble: Trouble, now: float) -> None:
        """The server refused this write."""
        until = now + (trouble.retry_after or SLOW_LOOK)
        self._last[observed.uid] = Refusal(key_of(action), observed.view.metadata.generation, until, trouble)

    def forget(self, uid: str) -> None:
        """The Sandbox is gone."""
        self._last.pop(uid, None)


def before(actions: tuple[Action, ...], refusal: Refusal) -> tuple[Action, ...]:
    """The actions that come before the refused one; the others wait for it."""
    position = next(index for index, action in enumerate(actions) if key_of(action) == refusal.key)
    return actions[:position]
