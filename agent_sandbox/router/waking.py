"""Wakes a suspended sandbox for a request, where its template says so.

In: a sleeper that an authorised request wants. Out: one conditional write to its ``scale``, which is all that the
router may write; the controllers do the rest, and the request waits for the Pod like for any other that starts.
"""

import anyio
import structlog

from agent_sandbox.kube import ConflictError, ForbiddenError, KubeClient, KubeError, NotFoundError
from agent_sandbox.router.directory import Sleeper
from agent_sandbox.router.errors import NotReadyError, SuspendedError
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES

log = structlog.get_logger(__name__)


class Waker:
    """Writes once for any number of requests that want the same sandbox."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._under_way: dict[Sleeper, anyio.Event] = {}

    async def wake(self, sleeper: Sleeper) -> None:
        """Have it run again; returns when that is written, or when somebody else changed the Sandbox first.

        Raises:
            SuspendedError: the router may not.
            NotReadyError: the API server cannot be reached.
        """
        if (other := self._under_way.get(sleeper)) is not None:
            await other.wait()
            return
        done = self._under_way[sleeper] = anyio.Event()
        try:
            await self._write(sleeper)
        finally:
            del self._under_way[sleeper]
            done.set()

    async def _write(self, sleeper: Sleeper) -> None:
        name, namespace = sleeper.name, sleeper.namespace
        try:
            # If it was suspended again, or deleted, since we looked, this must change nothing.
            await self._kube.set_scale(SANDBOXES, name, 1, namespace, resource_version=sleeper.resource_version)
        except (ConflictError, NotFoundError):
            return
        except ForbiddenError as error:
            log.warning("the router lacks the right to wake", sandbox=name, namespace=namespace, error=str(error))
            raise SuspendedError(
                f"Sandbox {name} in namespace {namespace} is suspended, and the router lacks the right to wake it "
                "(patch sandboxes/scale)."
            ) from error
        except KubeError as error:
            detail = f"Sandbox {name} in namespace {namespace} is suspended and could not be woken."
            raise NotReadyError(detail, retry_after=1) from error
        log.info("woke for a request", sandbox=name, namespace=namespace)
