"""The steps that every write goes through: coherence, pruning, defaults, the server's own fields, checks.

All functions are plain: they change the object that they are given, or raise. ``Objects`` puts them in order.
"""

import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from agent_sandbox.local.apiserver.errors import BadRequestError, Cause, ConflictError, InvalidError
from agent_sandbox.local.apiserver.http import UserInfo
from agent_sandbox.local.apiserver.metadata import (
    finalizer_update_causes,
    generate_name,
    keep_server_metadata,
    metadata_causes,
    subdomain_errors,
)
from agent_sandbox.local.apiserver.objects.decoding import cannot_be_handled
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType, WriteContext
from agent_sandbox.local.apiserver.schema import Schema, apply_defaults, rule_causes, schema_causes
from agent_sandbox.local.apiserver.schema.validation import ABSENT


@dataclass(frozen=True)
class WriteOptions:
    """How a write was asked for.

    Attributes:
        dry_run: do everything but keep nothing.
        field_manager: who is recorded as the owner of the written fields.
        subresource: ``status``, ``scale`` or empty.
        user: who writes.
        field_validation: what happens to unknown fields: ``Ignore``, ``Warn`` or ``Strict``.
        applied: the value carries its managedFields already, as server-side apply computed them.
        warnings: collects what the client is to be told although the write succeeds.
    """

    dry_run: bool = False
    field_manager: str = "unknown"
    subresource: str = ""
    user: UserInfo = field(default_factory=UserInfo)
    field_validation: str = "Ignore"
    applied: bool = False
    warnings: list[str] = field(default_factory=list)


def check_identity(resource: ResourceType, value: JsonObject, namespace: str, name: str) -> None:
    """The body must mean the kind, namespace and name of the URL; absent parts are filled in.

    Raises:
        BadRequestError: it means something else.
    """
    if resource.custom:
        _check_type_meta(resource, value)
    if value.get("kind", resource.kind) != resource.kind or not isinstance(value.get("kind", ""), str):
        raise BadRequestError(
            f"{value.get('kind')} in version {_quoted(str(value.get('apiVersion', '')))} cannot be handled as a "
            f"{resource.kind}: converting ({value.get('apiVersion')}.{value.get('kind')}) to "
            f"({resource.api_version}.{resource.kind}): unknown conversion"
        )
    if value.get("apiVersion", resource.api_version) != resource.api_version:
        raise BadRequestError(
            f"the API version in the data ({value['apiVersion']}) does not match the expected API version "
            f"({resource.api_version})"
        )
    value["apiVersion"], value["kind"] = resource.api_version, resource.kind
    metadata = value.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise BadRequestError("metadata must be an object")
    if resource.namespaced:
        if metadata.get("namespace", namespace) not in (namespace, "", None):
            raise BadRequestError(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    if name and metadata.get("name") not in (name, "", None):
        raise BadRequestError(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        )
    if name:
        metadata["name"] = name


_SHOWN_BODY = 30


def _check_type_meta(resource: ResourceType, value: JsonObject) -> None:
    """A custom object must say what it is, as nothing else does."""
    if not value.get("kind"):
        text = msgspec.json.encode(value).decode()
        shown = text if len(text) <= _SHOWN_BODY else f"{text[:_SHOWN_BODY]} ..."
        raise BadRequestError(
            f"the object provided is unrecognized (must be of type {resource.kind}): Object 'Kind' is missing in "
            f"'{text}' ({shown})"
        )
    value.setdefault("apiVersion", "")
    if value["kind"] != resource.kind and value["apiVersion"] == resource.api_version:
        cause = Cause.invalid("kind", value["kind"], f"must be {resource.kind}")
        found = replace(resource, kind=str(value["kind"]))
        raise InvalidError(found, (value.get("metadata") or {}).get("name", ""), [cause])


def _quoted(text: str) -> str:
    return f'"{text}"'


def report_unknown(resource: ResourceType, unknown: list[str], options: WriteOptions) -> None:
    """Say what was dropped, in the way the client asked for.

    Raises:
        BadRequestError: the client wants unknown fields refused.
    """
    texts = [f'unknown field "{path}"' for path in unknown]
    if not texts or options.field_validation == "Ignore":
        return
    if options.field_validation == "Strict":
        raise BadRequestError(f"{cannot_be_handled(resource)}: strict decoding error: {', '.join(texts)}")
    options.warnings.extend(texts)


def fill_defaults(resource: ResourceType, value: JsonObject) -> None:
    """Defaults of the schema, then those of the kind."""
    if resource.schema is not None and resource.custom:
        apply_defaults(value, resource.schema)
    resource.strategy.default(value)


def prepare_create(resource: ResourceType, value: JsonObject, context: WriteContext) -> None:
    """Set what the server owns in a new object."""
    metadata = value["metadata"]
    for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        metadata.pop(name, None)
    if metadata.get("generateName") and not metadata.get("name"):
        metadata["name"] = generate_name(metadata["generateName"])
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = context.now
    metadata.pop("generation", None)
    if resource.strategy.generation:
        metadata["generation"] = 1
    if resource.custom and resource.has_status:
        value.pop("status", None)
    drop_empty_metadata(metadata)


def drop_empty_metadata(metadata: dict[str, Any]) -> None:
    """Empty maps and lists in metadata are not written, as Go's omitempty does."""
    for name in ("labels", "annotations", "ownerReferences", "finalizers", "generateName"):
        if name in metadata and not metadata[name]:
            del metadata[name]


# Subresources that write what an ordinary update must keep.
_UNRESTRICTED = frozenset({"binding", "finalize"})


def prepare_update(
    resource: ResourceType, value: JsonObject, old: JsonObject, options: WriteOptions, context: WriteContext
) -> None:
    """Keep what this write may not change, in place."""
    check_resource_version(resource, value, old)
    old_metadata = old["metadata"]
    wanted_uid = value["metadata"].get("uid")
    if wanted_uid and wanted_uid != old_metadata.get("uid"):
        cause = Cause.invalid("metadata.uid", wanted_uid, "field is immutable")
        raise InvalidError(resource, old_metadata["name"], [cause])
    keep_server_metadata(value["metadata"], old_metadata)
    if options.subresource == "status":
        _keep_all_but_status(resource, value, old)
    elif options.subresource not in _UNRESTRICTED:
        resource.strategy.prepare_update(value, old, context)
        if resource.custom and resource.has_status:
            _copy_field("status", value, old)
    drop_empty_metadata(value["metadata"])
    if resource.strategy.generation and _spec_part(resource, value) != _spec_part(resource, old):
        value["metadata"]["generation"] = old_metadata.get("generation", 0) + 1


def check_resource_version(resource: ResourceType, value: JsonObject, old: JsonObject) -> None:
    """Optimistic locking: a stated resourceVersion must be the present one.

    Raises:
        ConflictError: the object was changed meanwhile.
        InvalidError: the kind requires one and none was given.
    """
    wanted = value["metadata"].get("resourceVersion")
    if not wanted or wanted == "0":
        if not resource.strategy.unconditional_update:
            cause = Cause(
                "FieldValueInvalid", "metadata.resourceVersion", "Invalid value: 0: must be specified for an update"
            )
            raise InvalidError(resource, old["metadata"]["name"], [cause])
        return
    if wanted != old["metadata"]["resourceVersion"]:
        raise ConflictError(resource, old["metadata"]["name"])


def _keep_all_but_status(resource: ResourceType, value: JsonObject, old: JsonObject) -> None:
    for name in {*value, *old} - {"status", "metadata"}:
        _copy_field(name, value, old)
    kept = old["metadata"] if resource.custom else {"ownerReferences": old["metadata"].get("ownerReferences")}
    managed = value["metadata"].get("managedFields")
    if resource.custom:
        value["metadata"] = dict(kept)
        if managed is not None:
            value["metadata"]["managedFields"] = managed
    else:
        _copy_field("ownerReferences", value["metadata"], old["metadata"])


def _copy_field(field: str, value: JsonObject, old: JsonObject) -> None:
    if field in old:
        value[field] = old[field]
    else:
        value.pop(field, None)


def _spec_part(resource: ResourceType, value: JsonObject) -> JsonObject:
    hidden = {"metadata", "apiVersion", "kind"} | ({"status"} if resource.has_status or not resource.custom else set())
    return {name: entry for name, entry in value.items() if name not in hidden}


_SHAPELESS = Cause(
    "FieldValueInvalid",
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing "
    "errors to complete validation",
)
_BLOCKING = frozenset(
    {"FieldValueRequired", "FieldValueTypeInvalid", "FieldValueTooLong", "FieldValueTooMany", "FieldValueNotSupported"}
)


def _rule_causes(schema: Schema, value: JsonObject, old: JsonObject | None, causes: list[Cause]) -> list[Cause]:
    """Rules are asked only of what has the right shape; otherwise the answer says that they were not."""
    if not (schema.rules or schema.has_nested_rules):
        return []
    if any(cause.reason in _BLOCKING for cause in causes):
        return [_SHAPELESS]
    return rule_causes(value, old, schema)


def check_valid(resource: ResourceType, value: JsonObject, old: JsonObject | None, subresource: str = "") -> None:
    """Raise what is wrong with an object, all of it at once.

    Raises:
        InvalidError: with one cause per field.
    """
    metadata = value["metadata"]
    name = metadata.get("name") or ""
    name_errors = (resource.strategy.name_causes or subdomain_errors)(name) if name else []
    causes = metadata_causes(metadata, name_errors, namespaced=resource.namespaced)
    if old is not None:
        causes += finalizer_update_causes(metadata, old["metadata"])
    if resource.schema is not None and resource.custom:
        causes += schema_causes(value, resource.schema, "", ABSENT if old is None else old)
    if subresource not in _UNRESTRICTED:
        causes += resource.strategy.validate(value, old)
    if resource.schema is not None and resource.custom:
        causes += _rule_causes(resource.schema, value, old, causes)
    if causes:
        raise InvalidError(resource, name, causes)
