"""Namespaces: Active until deleted, then Terminating until they are empty."""

from agent_sandbox.local.apiserver.metadata import label_errors
from agent_sandbox.local.apiserver.resource_type import JsonObject, Strategy, WriteContext

FINALIZER = "kubernetes"
NAME_LABEL = "kubernetes.io/metadata.name"


def _name_errors(name: str) -> list[str]:
    return ["must not contain dots"] if "." in name else label_errors(name)


def _default(value: JsonObject) -> None:
    name = value["metadata"].get("name")
    if name:
        value["metadata"].setdefault("labels", {})[NAME_LABEL] = name


def _prepare_create(value: JsonObject, _context: WriteContext) -> None:
    value["status"] = {"phase": "Active"}
    finalizers = value.setdefault("spec", {}).setdefault("finalizers", [])
    if FINALIZER not in finalizers:
        finalizers.append(FINALIZER)


def _prepare_update(value: JsonObject, old: JsonObject, _context: WriteContext) -> None:
    value["status"] = old.get("status", {})
    value["spec"] = old.get("spec", {})


NAMESPACE_STRATEGY = Strategy(
    name_causes=_name_errors,
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    returns_deleted=True,
)
