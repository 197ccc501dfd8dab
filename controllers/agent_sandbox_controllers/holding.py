"""Holds back status writes that only report progress, so that a start costs one write and not one per step.

Flow: a pass that wants to write asks ``wait_for``; zero means write now, otherwise come back after so many seconds: by
then either something worth saying has happened, and one write says it all, or the held state is written as it is.
Guarantees:
    What everybody acts on is never held. A difference that goes away while held costs nothing. An object that never
    becomes Ready is written ever more rarely, whatever its Pod does.
Assumptions: memory only. A restart begins anew, which costs at most one early write.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent_sandbox_controllers.urgency import Urgency

SANDBOX_DELAYS: Final = (4.0, 15.0, 60.0, 300.0)
"""Seconds until the first, second, ... report of a Sandbox's progress. The first is longer than a node that has the
image takes to start a Pod."""

MEMBER_DELAYS: Final = (20.0, 60.0, 300.0)
"""The same for a member of a pool, of which nobody waits to hear: the pool reports sooner, and obstacles are told at
once."""

CLAIM_DELAYS: Final = (5.0, 15.0, 60.0, 300.0)
"""The same for a claim: a little more, so that its first report repeats its Sandbox's first report."""


@dataclass
class _Held:
    level: int = 0
    since: float | None = None


class WriteHold:
    """When a status that differs may be written, per object."""

    def __init__(self, delays: Sequence[float]) -> None:
        """
        Args:
            delays: seconds until the first, second, ... write of mere progress; the last repeats.
        """
        self._delays = tuple(delays)
        self._held: dict[str, _Held] = {}

    def wait_for(self, uid: str, urgency: Urgency, now: float, delays: Sequence[float] = ()) -> float:
        """Seconds to wait before this object's status may be written; 0 if it may be now.

        Args:
            uid: the object.
            urgency: of the difference.
            now: the monotonic clock.
            delays: other delays for this object; those of the kind if empty.
        """
        held = self._held.setdefault(uid, _Held())
        steps = delays or self._delays
        if urgency is Urgency.NOW or (urgency is Urgency.NEWS and held.level < len(steps)):
            return 0.0
        if held.since is None:
            held.since = now
        return max(0.0, held.since + steps[min(held.level, len(steps) - 1)] - now)

    def written(self, uid: str) -> None:
        """A status was written that does not change readiness: the next one waits longer."""
        held = self._held.setdefault(uid, _Held())
        held.level += 1
        held.since = None

    def settled(self, uid: str) -> None:
        """Nothing differs any more; the pace stays."""
        held = self._held.get(uid)
        if held is not None:
            held.since = None

    def forget(self, uid: str) -> None:
        """The object is gone, or its readiness changed and all is news again."""
        self._held.pop(uid, None)

    def __len__(self) -> int:
        return len(self._held)
