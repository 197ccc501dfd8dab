"""How fast a pool is refilled: a delay after members were taken, and a rate.

Flow: each pass tells how many members there are and how many are missing; back comes how many it may create now, and
when to ask again for the rest. Memory only: after a restart a pool refills at once, which is what one wants then.
"""

from dataclasses import dataclass


@dataclass
class _Pool:
    members: int | None = None
    hold_until: float | None = None
    tokens: float = 0.0
    filled_at: float = 0.0


@dataclass(frozen=True)
class Grant:
    """How many members may be created now, and seconds until more may be (None: no more are held back)."""

    count: int
    wait: float | None = None


class Pacing:
    """The refill of all pools."""

    def __init__(self, delay: float, rate: float) -> None:
        """
        Args:
            delay: seconds between members being taken and their replacement; 0 for none.
            rate: members per second and pool; 0 for no limit.
        """
        self._delay = delay
        self._rate = rate
        self._pools: dict[str, _Pool] = {}

    def grant(self, pool: str, *, members: int, desired: int, missing: int, now: float) -> Grant:
        """How many of the missing members a pool may create now.

        Args:
            pool: its UID.
            members: how many it has.
            desired: how many it should have.
            missing: how many it wants to create.
            now: the monotonic clock.
        """
        state = self._pools.get(pool)
        if state is None:
            state = self._pools[pool] = _Pool(tokens=max(1.0, self._rate), filled_at=now)
        held = self._hold(state, members=members, desired=desired, now=now)
        if missing <= 0 or held > 0:
            return Grant(0, held or None)
        count, wait = self._take(state, missing, now)
        state.members = members + count
        return Grant(count, wait)

    def give_back(self, pool: str, count: int) -> None:
        """So many granted members were not created."""
        state = self._pools.get(pool)
        if state is not None and count > 0:
            state.tokens = min(max(1.0, self._rate), state.tokens + count)
            state.members = max(0, (state.members or 0) - count)

    def forget(self, pool: str) -> None:
        """The pool is gone."""
        self._pools.pop(pool, None)

    def _hold(self, state: _Pool, *, members: int, desired: int, now: float) -> float:
        """Seconds for which nothing is created; a drop in members starts the delay anew, a full pool ends it."""
        if self._delay <= 0:
            return 0.0
        if members >= desired:
            state.hold_until = None
        elif state.members is not None and members < state.members:
            state.hold_until = now + self._delay
        state.members = members
        return max(0.0, state.hold_until - now) if state.hold_until is not None else 0.0

    def _take(self, state: _Pool, wanted: int, now: float) -> tuple[int, float | None]:
        if self._rate <= 0:
            return wanted, None
        capacity = max(1.0, self._rate)
        state.tokens = min(capacity, state.tokens + (now - state.filled_at) * self._rate)
        state.filled_at = now
        granted = min(wanted, int(state.tokens))
        state.tokens -= granted
        if granted == wanted:
            return granted, None
        return granted, (1.0 - (state.tokens - int(state.tokens))) / self._rate
