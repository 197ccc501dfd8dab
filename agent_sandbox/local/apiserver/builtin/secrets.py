"""Secrets and ConfigMaps: what is kept as base64, which keys there may be, and which some types must have."""

import base64
import binascii
from collections.abc import Iterator
from typing import Final

from agent_sandbox.local.apiserver.errors import BadRequestError, Cause
from agent_sandbox.local.apiserver.metadata import config_key_errors
from agent_sandbox.local.apiserver.resource_type import JsonObject, Strategy

_NEEDED: Final = {
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _default(value: JsonObject) -> None:
    value.setdefault("type", "Opaque")
    for name, text in (value.pop("stringData", None) or {}).items():
        value.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()
    _check_base64(value, "data", "Secret")


def _check_base64(value: JsonObject, field: str, kind: str) -> None:
    for encoded in (value.get(field) or {}).values():
        try:
            base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise BadRequestError(
                f'{kind} in version "v1" cannot be handled as a {kind}: illegal base64 data: {error}'
            ) from error


def _key_causes(value: JsonObject, field: str) -> Iterator[Cause]:
    for key in value.get(field) or {}:
        for error in config_key_errors(key):
            yield Cause.invalid(f"{field}[{key}]", key, error)


def _causes(value: JsonObject, old: JsonObject | None) -> list[Cause]:
    causes = [*_key_causes(value, "data")]
    if old is not None and old.get("type") != value.get("type"):
        return [*causes, Cause.invalid("type", value.get("type"), "field is immutable")]
    data = value.get("data") or {}
    return causes + [
        Cause.required(f"data[{key}]") for key in _NEEDED.get(value.get("type", ""), ()) if key not in data
    ]


def _default_map(value: JsonObject) -> None:
    _check_base64(value, "binaryData", "ConfigMap")


def _map_causes(value: JsonObject, _old: JsonObject | None) -> list[Cause]:
    data, binary = value.get("data") or {}, value.get("binaryData") or {}
    return [
        *_key_causes(value, "data"),
        *_key_causes(value, "binaryData"),
        *(
            Cause.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
            for key in data
            if key in binary
        ),
    ]


SECRET_STRATEGY = Strategy(default=_default, validate=_causes)
CONFIG_MAP_STRATEGY = Strategy(default=_default_map, validate=_map_causes)
