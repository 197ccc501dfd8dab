"""The wire format of protocol buffers: bytes in, numbered fields out.

Groups (wire types 3 and 4) do not occur in Kubernetes' messages and are refused.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5
_FIXED_SIZES: Final = {FIXED64: 8, FIXED32: 4}
_VARINT_BYTES: Final = 10
_UINT64: Final = (1 << 64) - 1
_SIGN: Final = 1 << 63
_MAX_NUMBER: Final = (1 << 29) - 1


class WireError(ValueError):
    """The bytes are no protocol buffer, or a field has another type than its message says."""


class Field(NamedTuple):
    """One field as it stands on the wire.

    Attributes:
        number: its number in the message.
        wire_type: ``VARINT``, ``LENGTH``, ``FIXED32`` or ``FIXED64``.
        varint: the value of a varint, unsigned; 0 otherwise.
        content: the bytes of everything else; empty for a varint.
    """

    number: int
    wire_type: int
    varint: int
    content: bytes


def read_fields(message: bytes) -> Iterator[Field]:
    """The fields of one message in their order.

    Raises:
        WireError: the message ends within a field, or is not one at all.
    """
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_NUMBER:
            raise WireError(f"proto: illegal tag {number} (wire type {wire_type})")
        if wire_type == VARINT:
            value, position = _read_varint(message, position)
            yield Field(number, wire_type, value, b"")
            continue
        if wire_type == LENGTH:
            size, position = _read_varint(message, position)
        elif wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        else:
            raise WireError(f"proto: illegal wireType {wire_type}")
        if size > len(message) - position:
            raise WireError("unexpected EOF")
        yield Field(number, wire_type, 0, message[position : position + size])
        position += size


def signed(varint: int) -> int:
    """The int64 (or int32) that a varint stands for."""
    return varint - (1 << 64) if varint & _SIGN else varint


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[position : position + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            if value > _UINT64:
                break
            return value, position + index + 1
    else:
        if len(message) - position < _VARINT_BYTES:
            raise WireError("unexpected EOF")
    raise WireError("proto: integer overflow")
