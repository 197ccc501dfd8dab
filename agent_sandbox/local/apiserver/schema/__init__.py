"""Structural schemas: prune, default and validate objects as a CustomResourceDefinition says."""

from agent_sandbox.local.apiserver.schema.defaulting import apply_defaults
from agent_sandbox.local.apiserver.schema.node import Rule, Schema, compile_schema
from agent_sandbox.local.apiserver.schema.pruning import prune
from agent_sandbox.local.apiserver.schema.rules import rule_causes, rule_definition_causes
from agent_sandbox.local.apiserver.schema.validation import schema_causes

__all__ = [
    "Rule",
    "Schema",
    "apply_defaults",
    "compile_schema",
    "prune",
    "rule_causes",
    "rule_definition_causes",
    "schema_causes",
]
