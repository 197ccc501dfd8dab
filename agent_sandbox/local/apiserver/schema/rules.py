"""Checks ``x-kubernetes-validations``: rules in CEL, also about how an object may change.

A rule that uses ``oldSelf`` is asked only when there is an old value at the same place; in lists that means items with
the same keys. A rule is not asked again of a part that did not change, so that a new rule does not lock old objects.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from cel import OptionalValue

from agent_sandbox.local.apiserver.errors import Cause
from agent_sandbox.local.apiserver.schema.expressions import ExpressionError, compile_expression
from agent_sandbox.local.apiserver.schema.node import Rule, Schema
from agent_sandbox.local.apiserver.schema.validation import ABSENT, correlated, type_name

_RESERVED: Final = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return", "var", "void", "while"}
)
_REASONS: Final = frozenset({"FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid", "FieldValueDuplicate"})


def rule_causes(value: dict[str, Any], old: dict[str, Any] | None, schema: Schema) -> list[Cause]:
    """Every rule that an object breaks."""
    return list(_walk(value, ABSENT if old is None else old, schema, ""))


def rule_definition_causes(source: Any, path: str) -> list[Cause]:
    """Rules of a schema that do not compile, and parts that are no schema at all, for whoever defines it."""
    if not isinstance(source, dict):
        return [Cause.invalid(path, source, "must be a schema")]
    properties, rules = source.get("properties") or {}, source.get("x-kubernetes-validations") or ()
    if not isinstance(properties, dict):
        return [Cause.invalid(f"{path}.properties", properties, "must be schemas by name")]
    if not isinstance(rules, list | tuple) or not all(isinstance(rule, dict) for rule in rules):
        return [Cause.invalid(f"{path}.x-kubernetes-validations", rules, "must be a list of rules")]
    causes = []
    for index, rule in enumerate(rules):
        try:
            compile_expression(rule.get("rule", ""))
        except ExpressionError as error:
            field = f"{path}.x-kubernetes-validations[{index}].rule"
            causes.append(Cause.invalid(field, rule.get("rule", ""), f"compilation failed: {error}"))
    for name, child in properties.items():
        causes += rule_definition_causes(child, f"{path}.properties[{name}]")
    for part in ("items", "additionalProperties"):
        if isinstance(source.get(part), dict):
            causes += rule_definition_causes(source[part], f"{path}.{part}")
    return causes


def _walk(value: Any, old: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if value is None or not (schema.rules or schema.has_nested_rules):
        return
    if schema.rules:
        changed = old is ABSENT or value != old
        rules = [rule for rule in schema.rules if changed or compile_expression(rule.rule).uses_old]
        if rules:
            is_root = not path
            new_view = _view(value, schema, is_root=is_root)
            old_view = ABSENT if old is ABSENT else _view(old, schema, is_root=is_root)
            for rule in rules:
                yield from _broken(rule, value, new_view, old_view, path)
    if not schema.has_nested_rules:
        return
    if isinstance(value, dict):
        for name, entry in value.items():
            child = schema.child(name)
            if child is not None:
                before = old.get(name, ABSENT) if isinstance(old, dict) else ABSENT
                key = f".{name}" if name in schema.properties else f"[{name}]"
                yield from _walk(entry, before, child, f"{path}{key}" if path else name)
    elif isinstance(value, list) and schema.items is not None:
        befores = correlated(value, old, schema)
        for index, (item, before) in enumerate(zip(value, befores, strict=True)):
            yield from _walk(item, before, schema.items, f"{path}[{index}]")


def _broken(rule: Rule, value: Any, new_view: Any, old_view: Any, path: str) -> Iterator[Cause]:
    expression = compile_expression(rule.rule)
    variables: dict[str, Any] = {"self": new_view}
    if expression.uses_old:
        if rule.optional_old_self:
            variables["oldSelf"] = OptionalValue.none() if old_view is ABSENT else OptionalValue.of(old_view)
        elif old_view is ABSENT:
            return
        else:
            variables["oldSelf"] = old_view
    try:
        holds = expression.run(variables)
    except ExpressionError as error:
        yield _cause(rule, value, path, f"rule evaluation error: {error}: {rule.rule}")
        return
    if holds is not True:
        yield _cause(rule, value, path, _message(rule, variables))


def _message(rule: Rule, variables: dict[str, Any]) -> str:
    if rule.message_expression:
        try:
            found = compile_expression(rule.message_expression).run(variables)
        except ExpressionError:
            # As Kubernetes does: a broken message must not hide that the rule is broken.
            found = None
        if isinstance(found, str) and found.strip():
            return found
    return rule.message or f"failed rule: {rule.rule}"


def _cause(rule: Rule, value: Any, path: str, message: str) -> Cause:
    field = (path + rule.field_path if path else rule.field_path.removeprefix(".")) or "<nil>"
    reason = rule.reason if rule.reason in _REASONS else "FieldValueInvalid"
    if reason == "FieldValueRequired":
        return Cause.required(field, message)
    if reason == "FieldValueForbidden":
        return Cause.forbidden(field, message)
    if reason == "FieldValueDuplicate":
        return Cause(reason, field, f'Duplicate value: "{type_name(value)}"')
    return Cause(reason, field, f"Invalid value: {message}")


def _view(value: Any, schema: Schema | None, *, is_root: bool = False) -> Any:
    """A value as a rule sees it: times are times, and names that CEL cannot say are escaped."""
    if isinstance(value, dict):
        view = {
            escape_name(name) if schema is not None and name in schema.properties else name: _view(
                entry, schema.child(name) if schema is not None else None
            )
            for name, entry in value.items()
        }
        if is_root or (schema is not None and schema.embedded):
            metadata = value.get("metadata") or {}
            view["metadata"] = {name: metadata[name] for name in ("name", "generateName") if name in metadata}
        return view
    if isinstance(value, list):
        return [_view(item, schema.items if schema is not None else None) for item in value]
    if schema is not None and schema.format == "date-time" and isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            return value
    return value


def escape_name(name: str) -> str:
    """A field's name as rules write it.

    >>> escape_name("x-prop"), escape_name("namespace")
    ('x__dash__prop', '__namespace__')
    """
    if name in _RESERVED:
        return f"__{name}__"
    escaped = name.replace("__", "__underscores__")
    for character, word in ((".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")):
        escaped = escaped.replace(character, word)
    return re.sub(r"\s", "_", escaped)
