"""What can be done with objects, free of HTTP: create, update, delete, each as Kubernetes does it."""

from agent_sandbox.local.apiserver.objects.deletes import DeleteOptions, Preconditions
from agent_sandbox.local.apiserver.objects.objects import Objects
from agent_sandbox.local.apiserver.objects.writes import WriteOptions

__all__ = ["DeleteOptions", "Objects", "Preconditions", "WriteOptions"]
