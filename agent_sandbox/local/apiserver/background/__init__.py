"""What the server does without being asked: collects garbage, ends namespaces and definitions, forgets old Events."""

from agent_sandbox.local.apiserver.background.background import Background

__all__ = ["Background"]
