"""When an object is looked at again without anything having changed, and the result of a pass that says so."""

from typing import Final

from agent_sandbox.runtime import Result

SOON: Final = 0.001
"""Seconds until the next pass where nothing is waited for, but this pass's write must stand before the next."""


def soonest(*delays: float | None) -> float | None:
    """The shortest of some delays, leaving out those that are None."""
    known = [delay for delay in delays if delay is not None]
    return min(known) if known else None


def look_again(after: float | None) -> Result:
    """The result of a pass after which the object is looked at again in so many seconds; None: when it changes."""
    return Result.done() if after is None else Result.requeue_after(max(after, SOON))
