"""Keeps an object that vanishes again and again from being created at full speed.

A Pod or a pool's member that goes right after it was made has a reason: somebody deletes it, or its owner is gone and
this process has not heard of it yet. What is made for the first time is never delayed.
"""

from dataclasses import dataclass
from typing import Final

FIRST_DELAY: Final = 0.5
"""Seconds before a second one; doubled for each further one."""
LONGEST_DELAY: Final = 60.0
"""Seconds at most."""
FORGIVEN_AFTER: Final = 600.0
"""Seconds for which it must have lived for its end to be an ordinary one."""


@dataclass
class _Made:
    count: int
    last: float


class Recreation:
    """When the next object may be made for an owner, in memory: per owner, and per child where it has several."""

    def __init__(self) -> None:
        self._made: dict[str, dict[str, _Made]] = {}

    def is_first(self, owner: str, child: str = "") -> bool:
        """Whether this was not made for this owner yet."""
        return child not in self._made.get(owner, {})

    def wait_for(self, owner: str, now: float, child: str = "") -> float:
        """Seconds until the next one may be made; 0 if it may be now."""
        made = self._made.get(owner, {}).get(child)
        if made is None:
            return 0.0
        delay = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(made.count - 1, 10))
        return max(0.0, made.last + delay - now)

    def made(self, owner: str, now: float, child: str = "") -> None:
        """One is being made."""
        made = self._made.setdefault(owner, {}).setdefault(child, _Made(0, now))
        made.count = 1 if now - made.last >= FORGIVEN_AFTER else made.count + 1
        made.last = now

    def forget(self, owner: str) -> None:
        """The owner is gone."""
        self._made.pop(owner, None)

    def excuse(self, owner: str, child: str) -> None:
        """What went had a good reason."""
        self._made.get(owner, {}).pop(child, None)
