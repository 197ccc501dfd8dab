"""The envelope around every object in Kubernetes' protobuf encoding: ``k8s\\0``, then a ``runtime.Unknown``."""

from typing import Any, Final

from agent_sandbox.local.apiserver.protobuf.decoding import decode_message
from agent_sandbox.local.apiserver.protobuf.messages import ANY_VERSION, MESSAGES, UNKNOWN, Message
from agent_sandbox.local.apiserver.protobuf.wire import WireError

PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
"""The media type."""
_MAGIC: Final = b"k8s\x00"


class UnknownMessageError(Exception):
    """The envelope is sound, and holds a kind whose fields are not known here."""


def decode_body(body: bytes) -> dict[str, Any]:
    """The object in a body, with apiVersion and kind, as its JSON would be.

    Raises:
        WireError: the bytes are no such object.
        UnknownMessageError: the kind is none that is read here; JSON is.
    """
    if not body.startswith(_MAGIC):
        raise WireError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    envelope = decode_message(body.removeprefix(_MAGIC), UNKNOWN)
    about = envelope.get("typeMeta", {})
    kind, version = about.get("kind", ""), about.get("apiVersion", "")
    if not kind:
        raise WireError("Object 'Kind' is missing")
    if not version:
        raise WireError("Object 'apiVersion' is missing")
    message = _message_of(version, kind)
    if message is None or envelope.get("contentEncoding"):
        raise UnknownMessageError
    return {"apiVersion": version, "kind": kind, **decode_message(envelope.get("raw", b""), message)}


def _message_of(version: str, kind: str) -> Message | None:
    return MESSAGES.get((version, kind)) or MESSAGES.get((ANY_VERSION, kind))
