"""Events are one kind in two groups: stored as core/v1, served as events.k8s.io/v1 as well."""

from agent_sandbox.local.apiserver.resource_type import Conversion, JsonObject

_TO_CORE = {
    "regarding": "involvedObject",
    "note": "message",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
    "reportingController": "reportingComponent",
}
_TO_EVENTS = {core: events for events, core in _TO_CORE.items()}


def _renamed(value: JsonObject, names: dict[str, str], api_version: str) -> JsonObject:
    return {names.get(name, name): entry for name, entry in value.items()} | {"apiVersion": api_version}


def _to_core(value: JsonObject) -> JsonObject:
    return _renamed(value, _TO_CORE, "v1")


def _to_events(value: JsonObject) -> JsonObject:
    return _renamed(value, _TO_EVENTS, "events.k8s.io/v1")


EVENT_CONVERSION = Conversion(_to_core, _to_events)
