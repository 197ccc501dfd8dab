"""Read, change, write, and again if somebody was faster: for changes that depend on the whole object."""

from collections.abc import Callable
from typing import Any, Final

from agent_sandbox.kube.client import KubeClient
from agent_sandbox.kube.errors import ConflictError
from agent_sandbox_api.resource import Resource, V

ATTEMPTS: Final = 5
"""As client-go's DefaultRetry. More would hide two writers who fight for one object."""


async def modify(
    client: KubeClient,
    resource: Resource[V],
    name: str,
    namespace: str | None,
    change: Callable[[dict[str, Any]], None],
    *,
    subresource: str | None = None,
    attempts: int = ATTEMPTS,
) -> V:
    """Apply ``change`` to the object's whole JSON and write it back; fields that nobody here knows survive.

    Args:
        client: reads and writes.
        resource: the kind.
        name: of the object.
        namespace: of the object.
        change: edits the JSON in place; called once per attempt, each time with a fresh object.
        subresource: for example ``status``.
        attempts: how often a lost race is tried again, five in all.

    Raises:
        ConflictError: the last attempt lost its race, too.
    """
    while True:
        attempts -= 1
        whole = await client.get_object(resource, name, namespace)
        change(whole)
        try:
            return await client.update(resource, whole, namespace, subresource=subresource)
        except ConflictError:
            if attempts <= 0:
                raise
