"""Watches: a stream of what happens to the objects that a selector chooses.

A watcher reads the bucket's history by cursor; it holds no queue. An object that starts to match is ADDED, one that
stops to match is DELETED, whatever happened to it.
"""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

import anyio
import msgspec

from agent_sandbox.clock import Clock
from agent_sandbox.local.apiserver.endpoints.lists import parse_revision, selector_of
from agent_sandbox.local.apiserver.endpoints.representation import Representation, served_raw, served_value
from agent_sandbox.local.apiserver.errors import BadRequestError, Cause, ExpiredError, OptionError
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.selectors import Predicate
from agent_sandbox.local.apiserver.storage import Change, Key, ObjectStore, Stored

_BOOKMARK_SECONDS = 60.0
_MIN_TIMEOUT_SECONDS = 1800.0
"""Kubernetes ends a watch without a stated timeout between this and twice this (--min-request-timeout)."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass
class _Watch:
    resource: ResourceType
    namespace: str
    selects: Predicate | None
    representation: Representation
    bookmarks: bool
    deadline: float
    first: bool = True

    def concerns(self, key: Key) -> bool:
        return not self.namespace or key.namespace == self.namespace

    def selected(self, stored: Stored | None) -> bool:
        return stored is not None and (self.selects is None or self.selects(stored.value))


class Watches:
    """Answers watch requests; ``close`` ends all of them."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._closed = False

    def close(self) -> None:
        """End every running watch."""
        self._closed = True
        self._store.wake_watchers()

    def answer(self, resource: ResourceType, namespace: str, request: ApiRequest) -> ApiResponse:
        """Start a watch.

        Raises:
            StatusError: a parameter is wrong. A forgotten revision is an ERROR event instead, as in Kubernetes.
        """
        watch = _Watch(
            resource,
            namespace,
            selector_of(request, resource),
            Representation.of(request),
            request.flag("allowWatchBookmarks"),
            self._clock.monotonic() + _timeout(request),
        )
        revision = parse_revision(request.parameter("resourceVersion")) or 0
        initial = _wants_initial(request, revision)
        response = ApiResponse()
        response.stream = self._events(watch, revision, initial)
        return response

    async def _events(self, watch: _Watch, revision: int, initial: "_Initial") -> AsyncIterator[bytes]:
        history = self._store.history(watch.resource.bucket)
        if initial.send:
            # No await between the snapshot and the cursor, so that nothing is lost or doubled.
            cursor, revision = history.end, self._store.revision
            rows = self._store.objects(watch.resource.bucket, watch.namespace or None)
            for stored in rows:
                if watch.concerns(stored.key) and watch.selected(stored):
                    yield self._event(watch, "ADDED", stored)
            if initial.announce:
                yield self._bookmark(watch, revision, {INITIAL_EVENTS_END: "true"})
        else:
            start = history.cursor_after(revision)
            if start is None:
                yield _error(f"too old resource version: {revision} ({history.floor})")
                return
            cursor = start
        async for chunk in self._follow(watch, cursor, revision):
            yield chunk

    async def _follow(self, watch: _Watch, cursor: int, revision: int) -> AsyncIterator[bytes]:
        history = self._store.history(watch.resource.bucket)
        next_bookmark = self._clock.monotonic() + _BOOKMARK_SECONDS
        while not self._closed:
            changes = history.since(cursor)
            if changes is None:
                yield _error(f"too old resource version: {revision} ({history.floor})")
                return
            cursor += len(changes)
            events = [event for change in changes if change.revision > revision for event in self._of(watch, change)]
            if events:
                yield b"".join(events)
                continue
            now = self._clock.monotonic()
            if now >= watch.deadline:
                if watch.bookmarks:
                    yield self._bookmark(watch, self._store.revision, {})
                return
            if now >= next_bookmark:
                next_bookmark = now + _BOOKMARK_SECONDS
                if watch.bookmarks:
                    yield self._bookmark(watch, self._store.revision, {})
                continue
            with anyio.move_on_after(min(next_bookmark, watch.deadline) - now):
                await history.wait(cursor)

    def _of(self, watch: _Watch, change: Change) -> list[bytes]:
        """What a change means to this watcher: one event or none."""
        if not watch.concerns(change.key):
            return []
        before = watch.selected(change.previous)
        after = not change.deleted and watch.selected(change.current)
        if after:
            return [self._event(watch, "MODIFIED" if before else "ADDED", change.current)]
        if not before:
            return []
        if change.deleted:
            return [self._event(watch, "DELETED", change.current)]
        # It moved out of the selector: the watcher sees the old object under the new revision.
        assert change.previous is not None
        last = Stored.encode(change.key, change.revision, change.previous.copy())
        return [self._event(watch, "DELETED", last)]

    def _event(self, watch: _Watch, kind: str, stored: Stored) -> bytes:
        if watch.representation.shape == "Object":
            return b'{"type":"' + kind.encode() + b'","object":' + served_raw(watch.resource, stored) + b"}\n"
        value = self._shaped(watch, served_value(watch.resource, stored), self._clock.now())
        return msgspec.json.encode({"type": kind, "object": value}) + b"\n"

    def _shaped(self, watch: _Watch, value: JsonObject, now: datetime) -> JsonObject:
        shaped = watch.representation.one(watch.resource, value, now)
        if watch.representation.shape == "Table" and not watch.first:
            shaped["columnDefinitions"] = None
        watch.first = False
        return shaped

    def _bookmark(self, watch: _Watch, revision: int, annotations: dict[str, str]) -> bytes:
        metadata: JsonObject = {"resourceVersion": str(revision), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        head: JsonObject = {"kind": watch.resource.kind, "apiVersion": watch.resource.api_version}
        value = {**head, "metadata": metadata}
        if watch.representation.shape == "Table":
            empty: JsonObject = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
            value = {**empty, "columnDefinitions": [], "rows": []}
        elif watch.representation.shape == "PartialObjectMetadata":
            value = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return msgspec.json.encode({"type": "BOOKMARK", "object": value}) + b"\n"


@dataclass(frozen=True)
class _Initial:
    send: bool
    announce: bool = False


def _wants_initial(request: ApiRequest, revision: int) -> _Initial:
    text = request.parameter("sendInitialEvents")
    match = request.parameter("resourceVersionMatch")
    if not text:
        if match:
            raise _forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
        return _Initial(send=revision == 0)
    if match != "NotOlderThan":
        raise _forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    send = text not in {"false", "0"}
    return _Initial(send, announce=send and request.flag("allowWatchBookmarks"))


def _forbidden(detail: str) -> OptionError:
    return OptionError("ListOptions", Cause.forbidden("resourceVersionMatch", detail))


def _timeout(request: ApiRequest) -> float:
    text = request.parameter("timeoutSeconds")
    if text:
        try:
            return float(int(text))
        except ValueError:
            raise BadRequestError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    # Spread the ends, so that all watchers do not come back together.
    return _MIN_TIMEOUT_SECONDS * (1 + random.random())  # noqa: S311


def _error(message: str) -> bytes:
    return msgspec.json.encode({"type": "ERROR", "object": ExpiredError(message).status()}) + b"\n"
