"""What a controller runtime can say has gone wrong, as one tree.

::

    Exception
    ├── TerminalError           raised by a reconciler: trying again is useless until the object changes
    └── RuntimeFault            raised by this room; the process should end, a restart starts clean
        ├── CacheSyncError      a cache did not fill in time: RBAC, a missing CRD or the network
        ├── InformerStoppedError    somebody waits for an informer that has ended
        ├── LeadershipLostError the Lease could not be renewed in time: no write may leave any more
        │   └── WriteCutError   ... while a write was under way; also a ``kube.OutcomeUnknownError``
        └── ShutdownTimeoutError    something did not end within the grace period

``QueueClosed`` is not an error but the end of a queue.
"""

from agent_sandbox.kube import OutcomeUnknownError


class TerminalError(Exception):
    """A reconciler's way to say that only a change of the object can help: counted, logged, not retried."""


class RuntimeFault(Exception):  # noqa: N818 - a fault of the machinery, its children carry the suffix
    """Base of the runtime's own failures."""


class CacheSyncError(RuntimeFault):
    """A cache was not filled within its timeout."""


class InformerStoppedError(RuntimeFault):
    """The informer ended before it was synced."""


class LeadershipLostError(RuntimeFault):
    """This process may not lead any longer; writes are refused from now on."""


class WriteCutError(LeadershipLostError, OutcomeUnknownError):
    """The leadership ended while a write was under way: it was cut, and may have taken effect."""


class ShutdownTimeoutError(RuntimeFault):
    """A part of the process did not stop in time and was cancelled."""


class QueueClosed(Exception):  # noqa: N818 - an end, not an error
    """The queue was shut down; a worker that sees it ends."""
