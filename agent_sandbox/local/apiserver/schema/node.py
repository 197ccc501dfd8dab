"""A structural schema compiled from its OpenAPI JSON into a tree that is fast to walk."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of ``x-kubernetes-validations``."""

    rule: str
    message: str = ""
    message_expression: str = ""
    reason: str = ""
    field_path: str = ""
    optional_old_self: bool = False


@dataclass(slots=True)
class Schema:
    """One node of a structural schema.

    Attributes:
        additional: schema of further properties; True allows any, None forbids.
        has_default: whether ``default`` means anything, as null may be a default.
        list_type: ``atomic``, ``set`` or ``map``.
        map_type: ``granular`` or ``atomic``.
        bounds: the plain value checks (minimum, pattern...) that are set, by keyword.
        source: the JSON that this node was compiled from.
    """

    type: str = ""
    properties: dict[str, "Schema"] = field(default_factory=dict)
    additional: "Schema | bool | None" = None
    items: "Schema | None" = None
    required: tuple[str, ...] = ()
    enum: tuple[Any, ...] | None = None
    nullable: bool = False
    default: Any = None
    has_default: bool = False
    has_nested_default: bool = False
    preserve_unknown: bool = False
    int_or_string: bool = False
    embedded: bool = False
    list_type: str = "atomic"
    map_keys: tuple[str, ...] = ()
    map_type: str = "granular"
    bounds: Mapping[str, Any] = field(default_factory=dict)
    pattern: re.Pattern[str] | None = None
    format: str = ""
    all_of: tuple["Schema", ...] = ()
    any_of: tuple["Schema", ...] = ()
    one_of: tuple["Schema", ...] = ()
    not_: "Schema | None" = None
    rules: tuple[Rule, ...] = ()
    has_nested_rules: bool = False
    source: JsonObject = field(default_factory=dict)

    def child(self, name: str) -> "Schema | None":
        """The schema of a property, if the schema knows it."""
        known = self.properties.get(name)
        if known is not None:
            return known
        return self.additional if isinstance(self.additional, Schema) else None


QUANTITY: Final = "x-kubernetes-quantity"
"""The format of amounts in built-in kinds. No definition of a user's can say it."""

_BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
    "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip


def compile_schema(source: JsonObject) -> Schema:
    """Compile an ``openAPIV3Schema``."""
    items = source.get("items")
    node = Schema(
        type=source.get("type", ""),
        properties={name: compile_schema(child) for name, child in (source.get("properties") or {}).items()},
        additional=_additional(source.get("additionalProperties")),
        items=compile_schema(items) if isinstance(items, dict) else None,
        required=tuple(source.get("required") or ()),
        enum=tuple(source["enum"]) if source.get("enum") else None,
        nullable=bool(source.get("nullable")),
        default=source.get("default"),
        has_default="default" in source,
        preserve_unknown=bool(source.get("x-kubernetes-preserve-unknown-fields")),
        int_or_string=bool(source.get("x-kubernetes-int-or-string")),
        embedded=bool(source.get("x-kubernetes-embedded-resource")),
        list_type=source.get("x-kubernetes-list-type", "atomic"),
        map_keys=tuple(source.get("x-kubernetes-list-map-keys") or ()),
        map_type=source.get("x-kubernetes-map-type", "granular"),
        bounds={name: source[name] for name in _BOUNDS if source.get(name) is not None},
        pattern=_pattern(source.get("pattern")),
        format=source.get("format", ""),
        all_of=tuple(compile_schema(part) for part in source.get("allOf") or ()),
        any_of=tuple(compile_schema(part) for part in source.get("anyOf") or ()),
        one_of=tuple(compile_schema(part) for part in source.get("oneOf") or ()),
        not_=compile_schema(source["not"]) if source.get("not") else None,
        rules=tuple(_rule(rule) for rule in source.get("x-kubernetes-validations") or ()),
        source=source,
    )
    children = list(node.properties.values())
    if isinstance(node.additional, Schema):
        children.append(node.additional)
    if node.items is not None:
        children.append(node.items)
    node.has_nested_default = any(child.has_default or child.has_nested_default for child in children)
    node.has_nested_rules = any(child.rules or child.has_nested_rules for child in children)
    return node


def _additional(source: Any) -> "Schema | bool | None":
    if isinstance(source, dict):
        return compile_schema(source)
    return True if source is True else None


def _pattern(source: str | None) -> re.Pattern[str] | None:
    return re.compile(_python_regex(source)) if source else None


def _python_regex(source: str) -> str:
    """Go's RE2 text in Python's dialect: ``\\z`` is spelled differently and ``$`` means the very end."""
    return re.sub(r"(?<!\\)\$(?=$|\||\))", r"\\Z", source.replace(r"\z", r"\Z"))


def _rule(source: JsonObject) -> Rule:
    return Rule(
        rule=source.get("rule", ""),
        message=source.get("message", ""),
        message_expression=source.get("messageExpression", ""),
        reason=source.get("reason", ""),
        field_path=source.get("fieldPath", ""),
        optional_old_self=bool(source.get("optionalOldSelf")),
    )
