"""Whatever the CRD's schema accepts, the model reads, and gives back with every field, known or not.

Objects are drawn from the schema itself: all required fields, some optional ones, and now and then a field that a
newer server might send.
"""

from datetime import UTC
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_sandbox_api.agents.v1alpha1 import Sandbox
from agent_sandbox_api.crds import load_crds
from agent_sandbox_api.extensions.v1alpha1 import SandboxClaim, SandboxTemplate, SandboxWarmPool
from agent_sandbox_api.meta import KubeModel, format_time

MODELS: list[type[KubeModel]] = [Sandbox, SandboxTemplate, SandboxClaim, SandboxWarmPool]
SCHEMAS = {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in load_crds()}
FUTURE_FIELD = "fieldOfANewerServer"
INT32, INT64 = 2**31 - 1, 2**63 - 1

Schema = dict[str, Any]


_STRATEGIES: dict[int, st.SearchStrategy[Any]] = {}


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that the schema accepts; made once per schema, because patterns are slow to prepare."""
    if id(schema) not in _STRATEGIES:
        _STRATEGIES[id(schema)] = _values(schema)
    return _STRATEGIES[id(schema)]


def _values(schema: Schema) -> st.SearchStrategy[Any]:
    if schema.get("x-kubernetes-int-or-string"):
        text = st.from_regex(schema["pattern"], fullmatch=True) if "pattern" in schema else st.text(max_size=5)
        return st.integers(schema.get("minimum", -INT32), INT32) | text
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "string":
            return strings(schema)
        case "integer":
            limit = INT64 if schema["format"] == "int64" else INT32
            return st.integers(schema.get("minimum", -limit), schema.get("maximum", limit))
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=2)
        case other:
            assert other == "object"
            return objects(schema)


def strings(schema: Schema) -> st.SearchStrategy[str]:
    """Strings of the schema's format, pattern or length."""
    if schema.get("format") == "date-time":
        return st.datetimes(timezones=st.just(UTC)).map(format_time)
    if "pattern" in schema:
        limit = schema.get("maxLength", 63)
        return st.from_regex(schema["pattern"].replace("$", r"\Z"), fullmatch=True).filter(lambda s: len(s) <= limit)
    return st.text(min_size=schema.get("minLength", 0), max_size=8)


@st.composite
def objects(draw: st.DrawFn, schema: Schema) -> dict[str, Any]:
    """Objects with all required and at most three optional fields, and perhaps one that the schema does not know."""
    if "additionalProperties" in schema:
        return draw(st.dictionaries(st.text(max_size=4), values(schema["additionalProperties"]), max_size=2))
    properties: Schema = schema.get("properties", {})
    required = schema.get("required", [])
    optional = sorted(properties.keys() - set(required))
    chosen = draw(st.lists(st.sampled_from(optional), max_size=3, unique=True)) if optional else []
    found = {name: draw(values(properties[name])) for name in [*required, *chosen]}
    if draw(st.integers(0, 4)) == 0:
        found[FUTURE_FIELD] = draw(st.sampled_from([True, 1, "text", [], {"a": {"b": 1}}]))
    return found


def with_defaults(value: Any, schema: Schema) -> Any:
    """What an API server's defaulting makes of a value."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        filled = {name: child["default"] for name, child in properties.items() if "default" in child} | value
        return {name: with_defaults(child, properties.get(name, {})) for name, child in filled.items()}
    if isinstance(value, list):
        return [with_defaults(child, schema.get("items", {})) for child in value]
    return value


@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_model_reads_what_the_schema_accepts_and_loses_nothing(model: type[KubeModel], data: st.DataObject) -> None:
    schema = SCHEMAS[model.__name__]
    defaults: Schema = {name: field.default for name, field in model.model_fields.items() if field.default}
    wire = {
        "apiVersion": defaults["api_version"],
        "kind": defaults["kind"],
        "metadata": {"name": "x"},
        "spec": data.draw(values(schema["properties"]["spec"]), label="spec"),
        "status": data.draw(values(schema["properties"]["status"]), label="status"),
    }
    assert with_defaults(model.model_validate(wire).to_json(), schema) == with_defaults(wire, schema)
