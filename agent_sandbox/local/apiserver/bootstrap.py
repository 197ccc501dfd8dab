"""What exists in every cluster from the start: the default namespaces."""

from agent_sandbox.local.apiserver.builtin import NAMESPACES
from agent_sandbox.local.apiserver.errors import AlreadyExistsError
from agent_sandbox.local.apiserver.objects import Objects, WriteOptions

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


async def ensure_defaults(objects: Objects) -> None:
    """Create what is missing."""
    options = WriteOptions(field_manager="kube-apiserver")
    for name in _NAMESPACES:
        try:
            await objects.create(NAMESPACES, "", {"metadata": {"name": name}}, options)
        except AlreadyExistsError:
            continue
