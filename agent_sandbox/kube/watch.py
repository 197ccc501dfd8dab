"""Decodes watch streams: chunks of bytes in, events with lean views out.

An event is decoded once, straight into its view; what the view does not name is skipped by the parser. The seam is
``decode_event``, which the benchmark measures.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic

import anyio
import msgspec

from agent_sandbox.kube.errors import DecodeError, OutcomeUnknownError, Status, decode_reason, error_for_status
from agent_sandbox.kube.transport import RawStream
from agent_sandbox_api.resource import Resource, V


class EventType(StrEnum):
    """What happened to the object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[V]):
    """One event of a watch.

    Attributes:
        type: ADDED also means "entered the selector", DELETED "left it".
        resource_version: the watch may be resumed after this version.
        initial_events_end: True on the bookmark that ends a streamed list.
    """

    type: EventType
    resource_version: str
    view: V | None = None
    initial_events_end: bool = False

    @property
    def object(self) -> V:
        """The object after the change, or its last state if it was deleted. Bookmarks have none: a ValueError."""
        if self.view is None:
            raise ValueError("a bookmark carries no object: look at the event's type first")
        return self.view


class _Envelope(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _BookmarkMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class _Bookmark(msgspec.Struct):
    metadata: _BookmarkMeta


INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"

_envelope_decoder = msgspec.json.Decoder(_Envelope)
_bookmark_decoder = msgspec.json.Decoder(_Bookmark)
_status_decoder = msgspec.json.Decoder(Status)
_TYPES: Final = {"ADDED": EventType.ADDED, "MODIFIED": EventType.MODIFIED, "DELETED": EventType.DELETED}


class _Named(msgspec.Struct):
    name: str = ""
    namespace: str = ""


class _Nameable(msgspec.Struct):
    metadata: _Named = msgspec.field(default_factory=_Named)


_name_decoder = msgspec.json.Decoder(_Nameable)


def undecodable(resource: Resource[Any], raw: msgspec.Raw, error: msgspec.ValidationError) -> DecodeError:
    """The error that says which object is not of its kind's shape, and where; its content stays out of the message."""
    try:
        named = _name_decoder.decode(raw).metadata
        name = f"{named.namespace}/{named.name}" if named.namespace else named.name
    except msgspec.MsgspecError:
        name = "without a name"
    return DecodeError(f"{resource} {name} is not of the expected shape: {decode_reason(error)}")


def decode_event(resource: Resource[V], line: bytes, request: str) -> WatchEvent[V]:
    """Decode one line of a watch stream.

    Raises:
        ApiError: the server reports an error inside the stream; ``GoneError`` means: list again.
        DecodeError: the line is not a watch event.
    """
    try:
        envelope = _envelope_decoder.decode(line)
        known = _TYPES.get(envelope.type)
        if known is not None:
            try:
                view = resource.decode(envelope.object)
            except msgspec.ValidationError as error:
                raise undecodable(resource, envelope.object, error) from error
            return WatchEvent(known, view.metadata.resource_version, view)
        if envelope.type == "BOOKMARK":
            metadata = _bookmark_decoder.decode(envelope.object).metadata
            ended = (metadata.annotations or {}).get(INITIAL_EVENTS_END) == "true"
            return WatchEvent(EventType.BOOKMARK, metadata.resource_version, initial_events_end=ended)
        status = _status_decoder.decode(envelope.object)
    except msgspec.MsgspecError as error:
        raise DecodeError(
            f"{request}: the server sent an event that does not decode as {resource}: {decode_reason(error)}"
        ) from error
    raise error_for_status(status, http_status=status.code or 500, retry_after=None, request=request)


async def split_lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Turn chunks cut anywhere into the complete lines that each completes.

    Lines come as one list per chunk, so that a reader pays for one wake-up however many events arrived together. A
    rest without a line end is an event cut short by a dying connection: dropped, the next watch sends it again.
    """
    rest: list[bytes] = []
    async for chunk in chunks:
        head, newline, tail = chunk.rpartition(b"\n")
        if not newline:
            rest.append(chunk)
            continue
        lines = (b"".join([*rest, head])).split(b"\n")
        rest = [tail] if tail else []
        yield [line for line in lines if line]


async def read_events(
    resource: Resource[V],
    stream: RawStream,
    request: str,
    read_timeout: float | None,
    on_undecodable: Callable[[DecodeError], None] | None = None,
) -> AsyncIterator[WatchEvent[V]]:
    """The events of a stream, as they arrive; those that do not decode go to ``on_undecodable`` if it is given.

    Raises:
        OutcomeUnknownError: nothing arrived for ``read_timeout`` seconds.
        ApiError, DecodeError: as ``decode_event``.
    """
    batches = aiter(split_lines(aiter(stream)))
    while True:
        try:
            with anyio.fail_after(read_timeout):
                lines = await anext(batches, None)
        except TimeoutError as error:
            raise OutcomeUnknownError(f"{request}: nothing arrived for {read_timeout} s; open a new watch") from error
        if lines is None:
            return
        for line in lines:
            try:
                event = decode_event(resource, line, request)
            except DecodeError as error:
                if on_undecodable is None:
                    raise
                on_undecodable(error)
            else:
                yield event
