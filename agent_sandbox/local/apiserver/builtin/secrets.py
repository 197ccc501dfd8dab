"""Secrets: plain text is taken in and kept as base64, the type defaults to Opaque."""

import base64
import binascii

from agent_sandbox.local.apiserver.errors import BadRequestError, Cause
from agent_sandbox.local.apiserver.resource_type import JsonObject, Strategy


def _default(value: JsonObject) -> None:
    value.setdefault("type", "Opaque")
    for name, text in (value.pop("stringData", None) or {}).items():
        value.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()
    for encoded in (value.get("data") or {}).values():
        try:
            base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise BadRequestError(
                f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data: {error}'
            ) from error


def _causes(value: JsonObject, old: JsonObject | None) -> list[Cause]:
    if old is not None and old.get("type") != value.get("type"):
        return [Cause.invalid("type", value.get("type"), "field is immutable")]
    return []


SECRET_STRATEGY = Strategy(default=_default, validate=_causes)
