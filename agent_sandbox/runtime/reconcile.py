"""The contract between the runtime and those who use it: a key goes in, a result comes out."""

from dataclasses import dataclass
from typing import Protocol, Self


@dataclass(frozen=True, slots=True, order=True)
class Request:
    """Names one object to reconcile. It carries no event: what happened does not matter, only what is.

    ``namespace`` is empty for cluster-wide kinds.
    """

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile that did not fail wants next; made by its named constructors.

    ``after`` is None, or seconds (more than zero) to the next reconcile of the same key.
    """

    after: float | None = None

    @classmethod
    def done(cls) -> Self:
        """Nothing until something changes."""
        return cls()

    @classmethod
    def requeue_after(cls, seconds: float) -> Self:
        """Once more after that many seconds, or earlier if something changes.

        Raises:
            ValueError: seconds is not positive; for "again at once" raise an error, which backs off.
        """
        if seconds <= 0:
            raise ValueError(f"requeue_after needs a positive number of seconds, not {seconds}")
        return cls(seconds)


class Reconciler(Protocol):
    """Brings the world one step nearer to what one object wants."""

    async def reconcile(self, request: Request) -> Result:
        """Look at the object as it is now, compare with the world, write what is missing.

        Flow:
            1. Read the object from a store; if it is gone, clean up what is not owned and be done.
            2. Observe what belongs to it; plan; write.
            3. Say when to look again, if time alone can change the plan.
        Guarantees:
            One key is never in two workers at once. What happens while it is reconciled makes it run once more. Your
            own writes through the manager's client are in the stores when the next reconcile of any key reads them.
        Assumptions:
            Calling it twice does no harm: after a crash, a relist or a resync it is called without any change.
        Caveats:
            Stores lag behind the server by other people's writes, so make writes conditional where a race would hurt.
            Every ``await`` may be the last one: the process may be killed, or the deadline may cancel it.
        Errors:
            Any exception is counted, logged and retried with exponential backoff, 5 ms to 1000 s. ``TerminalError``
            is not retried. A ``Result`` forgets earlier failures.
        """
        ...
