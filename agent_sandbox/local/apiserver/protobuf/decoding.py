"""Turns the fields of a message into the JSON value that Kubernetes' JSON encoding has for them.

Go writes its empty strings and zero times to the wire and leaves them out of JSON; so does this.
"""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from agent_sandbox.local.apiserver.protobuf.messages import FIELDS_V1, TIME, TIME_PARTS, Entry, Message, Scalar, Shape
from agent_sandbox.local.apiserver.protobuf.wire import LENGTH, VARINT, Field, WireError, read_fields, signed
from agent_sandbox_api.meta import format_time

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def decode_message(content: bytes, message: Message, into: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON value of a message; unknown fields are skipped, as newer clients may send more.

    Args:
        content: the message's bytes.
        message: its fields.
        into: what earlier parts of the same message have given: a singular message may come in pieces.

    Raises:
        WireError: the bytes do not fit the message.
    """
    value: dict[str, Any] = {} if into is None else into
    for field in read_fields(content):
        entry = message.get(field.number)
        if entry is not None:
            _take(value, entry, field)
    return value


def _take(value: dict[str, Any], entry: Entry, field: Field) -> None:
    wanted = VARINT if entry.type is Scalar.INT or entry.type is Scalar.BOOL else LENGTH
    if field.wire_type != wanted:
        raise WireError(f"proto: wrong wireType = {field.wire_type} for field {entry.name}")
    match entry.shape:
        case Shape.MAP:
            key, item = _decode_pair(entry, field.content)
            value.setdefault(entry.name, {})[key] = item
        case Shape.LIST:
            value.setdefault(entry.name, []).append(_decode_one(entry, field, None))
        case Shape.ONE:
            found = _decode_one(entry, field, value.get(entry.name))
            if found in ("", None):
                value.pop(entry.name, None)
            else:
                value[entry.name] = found


def _decode_one(entry: Entry, field: Field, earlier: Any) -> Any:
    if entry.type is TIME:
        return _decode_time(field.content)
    if entry.type is FIELDS_V1:
        return _decode_fields(field.content)
    match entry.type:
        case Scalar.INT:
            return signed(field.varint)
        case Scalar.BOOL:
            return field.varint != 0
        case Scalar.STRING:
            return _decode_text(entry, field.content)
        case Scalar.BYTES:
            return b64encode(field.content).decode()
        case Scalar.RAW:
            return field.content
        case message:
            return decode_message(field.content, message, earlier)


def _decode_pair(entry: Entry, content: bytes) -> tuple[str, Any]:
    """A map is a list of messages with the key in field 1 and the value in field 2; both have a default."""
    pair = {"key": "", "value": ""}
    pair |= decode_message(content, {1: Entry("key"), 2: Entry("value", entry.type)})
    return pair["key"], pair["value"]


def _decode_text(entry: Entry, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise WireError(f"proto: field {entry.name} contains invalid UTF-8") from error


def _decode_time(content: bytes) -> str | None:
    """RFC 3339 in whole seconds; None for Go's zero time."""
    parts = decode_message(content, TIME_PARTS)
    if not parts.get("seconds") and not parts.get("nanos"):
        return None
    try:
        return format_time(_EPOCH + timedelta(seconds=parts.get("seconds", 0)))
    except OverflowError as error:
        raise WireError("proto: a time is outside of the years 1 to 9999") from error


def _decode_fields(content: bytes) -> Any:
    """``FieldsV1`` carries JSON in its only field."""
    raw = decode_message(content, {1: Entry("raw", Scalar.RAW)}).get("raw", b"")
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"fieldsV1 holds no JSON: {error}") from error
