"""Label and field selectors as the server reads them from a query.

A selector is compiled once per request into a predicate over objects.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from agent_sandbox.local.apiserver.errors import BadRequestError
from agent_sandbox.local.apiserver.metadata import label_value_errors, qualified_name_errors
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType

Predicate = Callable[[JsonObject], bool]
_LabelTest = Callable[[Mapping[str, str]], bool]

_SET_BASED = re.compile(r"^(?P<key>[^\s,=!()]+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^\s,=!<>]+)\s*(?P<operator>==|=|!=|<|>)\s*(?P<value>[^\s,=!<>()]*)$")


def label_predicate(text: str) -> Predicate | None:
    """Compile a label selector; None selects everything.

    Raises:
        BadRequestError: the selector cannot be parsed.
    """
    tests = [_label_test(part, text) for part in _split(text) if part]
    if not tests:
        return None

    def matches(value: JsonObject) -> bool:
        labels = value["metadata"].get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text)]


def _label_test(part: str, whole: str) -> _LabelTest:
    if match := _SET_BASED.match(part):
        key = _checked_key(match["key"], whole)
        values = frozenset(_checked_value(value.strip(), whole) for value in match["values"].split(","))
        if match["operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUALITY.match(part):
        return _equality_test(match, whole)
    if part.startswith("!"):
        key = _checked_key(part[1:].strip(), whole)
        return lambda labels: key not in labels
    key = _checked_key(part, whole)
    return lambda labels: key in labels


def _equality_test(match: re.Match[str], whole: str) -> _LabelTest:
    key = _checked_key(match["key"], whole)
    value = _checked_value(match["value"], whole)
    match match["operator"]:
        case "!=":
            return lambda labels: labels.get(key) != value
        case ">" | "<" as operator:
            return _number_test(key, value, operator)
        case _:
            return lambda labels: labels.get(key) == value


def _number_test(key: str, value: str, operator: str) -> _LabelTest:
    try:
        bound = int(value)
    except ValueError:
        raise BadRequestError(f"for 'Gt', 'Lt' operators, the value must be an integer, found {value!r}") from None

    def test(labels: Mapping[str, str]) -> bool:
        try:
            number = int(labels[key])
        except (KeyError, ValueError):
            return False
        return number > bound if operator == ">" else number < bound

    return test


def _checked_key(key: str, whole: str) -> str:
    errors = qualified_name_errors(key)
    if errors:
        raise BadRequestError(f'unable to parse requirement: <nil>: Invalid value: "{key}": {"; ".join(errors)}')
    return key


def _checked_value(value: str, whole: str) -> str:
    errors = label_value_errors(value)
    if errors:
        raise BadRequestError(f'unable to parse requirement: values[0]: Invalid value: "{value}": {"; ".join(errors)}')
    return value


def field_predicate(text: str, resource: ResourceType) -> Predicate | None:
    """Compile a field selector; None selects everything.

    Raises:
        BadRequestError: it cannot be parsed, or the kind does not offer that field.
    """
    tests = [_field_test(part, resource) for part in _split(text) if part]
    if not tests:
        return None
    return lambda value: all(test(value) for test in tests)


def _field_test(part: str, resource: ResourceType) -> Predicate:
    match = re.match(r"^([^=!]+?)\s*(==|=|!=)\s*(.*)$", part)
    if match is None:
        raise BadRequestError(f"invalid selector: '{part}'; can't understand '{part}'")
    path, operator, wanted = match.groups()
    read = _field_reader(path, resource)
    if operator == "!=":
        return lambda value: read(value) != wanted
    return lambda value: read(value) == wanted


def _field_reader(path: str, resource: ResourceType) -> Callable[[JsonObject], str]:
    if path == "metadata.name":
        return lambda value: _text(value["metadata"].get("name"))
    if path == "metadata.namespace" and resource.namespaced:
        return lambda value: _text(value["metadata"].get("namespace"))
    reader = resource.field_selectors.get(path)
    if reader is None:
        raise BadRequestError(f"field label not supported: {path}")
    return reader


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def both(first: Predicate | None, second: Predicate | None) -> Predicate | None:
    """Both predicates together; None selects everything."""
    if first is None or second is None:
        return first or second
    return lambda value: first(value) and second(value)
