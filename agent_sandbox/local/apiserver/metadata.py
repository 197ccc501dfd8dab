"""Checks and fills ``metadata``: names, labels, owners, finalizers, and what only the server may set."""

import ipaddress
import re
import secrets
from collections.abc import Sequence
from typing import Any

from agent_sandbox.local.apiserver.errors import Cause

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
# Letters that cannot spell a word and are not mistaken for each other, as in Kubernetes' generated names.
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_MAX_GENERATED_BASE = 63 - 5
_TOTAL_ANNOTATION_LIMIT = 256 * 1024


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def subdomain_errors(name: str) -> list[str]:
    """What is wrong with a DNS-1123 subdomain, the default rule for names."""
    errors = [_too_long(253)] if len(name) > 253 else []
    if not re.fullmatch(_SUBDOMAIN, name):
        errors.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            f"'{_LABEL}(\\.{_LABEL})*')"
        )
    return errors


def label_errors(name: str) -> list[str]:
    """What is wrong with a DNS-1123 label, the rule for namespaces, services and containers."""
    errors = [_too_long(63)] if len(name) > 63 else []
    if not re.fullmatch(_LABEL, name):
        errors.append(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
            "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
            f"'{_LABEL}')"
        )
    return errors


def port_name_errors(name: str) -> list[str]:
    """What is wrong with the name of a port."""
    errors = [_too_long(15)] if len(name) > 15 else []
    if not re.fullmatch("[-a-z0-9]+", name):
        errors.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", name):
        errors.append("must contain at least one letter (a-z)")
    if "--" in name:
        errors.append("must not contain consecutive hyphens")
    if name.startswith("-") or name.endswith("-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def is_address(text: str) -> bool:
    """True for an address of IPv4 or IPv6."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def config_key_errors(key: str) -> list[str]:
    """What is wrong with a key of a ConfigMap or a Secret."""
    errors = [_too_long(253)] if len(key) > 253 else []
    if not re.fullmatch("[-._a-zA-Z0-9]+", key):
        errors.append(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )
    elif key in {".", ".."}:
        errors.append(f"must not be '{key}'")
    return errors


def path_segment_errors(name: str) -> list[str]:
    """What is wrong with a name that only has to fit into a path, the rule for RBAC."""
    if name in {".", ".."}:
        return [f"may not be '{name}'"]
    return [f"may not contain '{character}'" for character in "/%" if character in name]


def label_value_errors(value: str) -> list[str]:
    """What is wrong with a label's value."""
    errors = [_too_long(63)] if len(value) > 63 else []
    if not re.fullmatch(_LABEL_VALUE, value):
        errors.append(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            f"for validation is '{_LABEL_VALUE}')"
        )
    return errors


def qualified_name_errors(key: str) -> list[str]:
    """What is wrong with the key of a label, an annotation or a finalizer."""
    prefix, slash, name = key.rpartition("/")
    errors = []
    if slash and not prefix:
        errors.append("prefix part must be non-empty")
    elif slash:
        errors += [f"prefix part {error}" for error in subdomain_errors(prefix)]
    if not name:
        errors.append("name part must be non-empty")
    elif len(name) > 63:
        errors.append(f"name part {_too_long(63)}")
    if not re.fullmatch(_QUALIFIED, name):
        errors.append(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            f"'{_QUALIFIED}')"
        )
    return errors


def generate_name(prefix: str) -> str:
    """A name from ``generateName``: the prefix, cut to fit, and five random letters."""
    return prefix[:_MAX_GENERATED_BASE] + "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))


def metadata_causes(metadata: dict[str, Any], name_errors: Sequence[str], *, namespaced: bool) -> list[Cause]:
    """Everything wrong with an object's metadata."""
    causes = []
    name = metadata.get("name", "")
    if not name:
        causes.append(Cause.required("metadata.name", "name or generateName is required"))
    else:
        causes += [Cause.invalid("metadata.name", name, error) for error in name_errors]
    if namespaced and not metadata.get("namespace"):
        causes.append(Cause.required("metadata.namespace"))
    causes += _label_causes(metadata.get("labels") or {})
    causes += _annotation_causes(metadata.get("annotations") or {})
    causes += _owner_causes(metadata.get("ownerReferences") or [])
    for index, finalizer in enumerate(metadata.get("finalizers") or []):
        field = f"metadata.finalizers[{index}]"
        causes += [Cause.invalid(field, finalizer, error) for error in qualified_name_errors(finalizer)]
    return causes


def _label_causes(labels: dict[str, str], field: str = "metadata.labels") -> list[Cause]:
    causes = []
    for key, value in labels.items():
        causes += [Cause.invalid(field, key, error) for error in qualified_name_errors(key)]
        causes += [Cause.invalid(field, value, error) for error in label_value_errors(value)]
    return causes


def _annotation_causes(annotations: dict[str, str]) -> list[Cause]:
    field = "metadata.annotations"
    causes = [Cause.invalid(field, key, error) for key in annotations for error in qualified_name_errors(key.lower())]
    if sum(len(key) + len(value) for key, value in annotations.items()) > _TOTAL_ANNOTATION_LIMIT:
        message = f"Too long: may not be more than {_TOTAL_ANNOTATION_LIMIT} bytes"
        causes.append(Cause("FieldValueTooLong", field, message))
    return causes


def _owner_causes(owners: list[dict[str, Any]]) -> list[Cause]:
    causes = []
    controllers = []
    for owner in owners:
        field = "metadata.ownerReferences"
        causes += [
            Cause.invalid(f"{field}.{key}", "", "must not be empty")
            for key in ("apiVersion", "kind", "name", "uid")
            if not owner.get(key)
        ]
        if owner.get("controller"):
            controllers.append(owner)
    if len(controllers) > 1:
        message = 'Only one reference can have Controller set to true. Found "true" in references for ' + " and ".join(
            f"{owner.get('kind')}/{owner.get('name')}" for owner in controllers[:2]
        )
        causes.append(Cause("FieldValueInvalid", "metadata.ownerReferences", f"Invalid value: {message}"))
    return causes


_SERVER_OWNED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")


def keep_server_metadata(new: dict[str, Any], old: dict[str, Any]) -> None:
    """Put back what only the server may set, in place."""
    for field in (*_SERVER_OWNED, "generation", "generateName"):
        if field in old:
            new[field] = old[field]
        else:
            new.pop(field, None)


def finalizer_update_causes(new: dict[str, Any], old: dict[str, Any]) -> list[Cause]:
    """A deleting object may lose finalizers, never gain any."""
    if not old.get("deletionTimestamp"):
        return []
    added = [entry for entry in new.get("finalizers") or [] if entry not in (old.get("finalizers") or [])]
    if not added:
        return []
    listed = "[]string{" + ", ".join(f'"{entry}"' for entry in added) + "}"
    detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {listed}"
    return [Cause.forbidden("metadata.finalizers", detail)]
