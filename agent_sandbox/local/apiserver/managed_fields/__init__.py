"""Who owns which field: managedFields, and server-side apply on top of them."""

from agent_sandbox.local.apiserver.managed_fields.apply import apply_configuration
from agent_sandbox.local.apiserver.managed_fields.managers import Writer, record_change

__all__ = ["Writer", "apply_configuration", "record_change"]
