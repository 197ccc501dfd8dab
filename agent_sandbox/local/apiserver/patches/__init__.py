"""The ways to change a part of an object."""

from agent_sandbox.local.apiserver.patches.json_patch import apply_json_patch
from agent_sandbox.local.apiserver.patches.merge import apply_merge_patch
from agent_sandbox.local.apiserver.patches.strategic import apply_strategic_patch

__all__ = ["apply_json_patch", "apply_merge_patch", "apply_strategic_patch"]
