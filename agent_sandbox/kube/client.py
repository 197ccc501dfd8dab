"""A typed client: a ``Resource`` and names go in, views come out.

Every request has a deadline; a 429 is waited out as the server asks; there is no rate limit of our own, because API
Priority and Fairness does that better. Errors are those of ``errors.py`` and nothing else. The next step is
``agent_sandbox.runtime``: caches and controllers on top of this client.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, Self

import msgspec

from agent_sandbox.clock import Clock, SystemClock
from agent_sandbox.kube.errors import (
    DecodeError,
    GoneError,
    InvalidNameError,
    decode_reason,
    error_for,
    parse_retry_after,
)
from agent_sandbox.kube.patches import ApplyPatch, Body, Patch, wire
from agent_sandbox.kube.scale import Scale, decode_scale
from agent_sandbox.kube.transport import NO_QUERY, RawResponse, Transport
from agent_sandbox.kube.watch import WatchEvent, read_events, undecodable
from agent_sandbox_api.resource import Resource, V

PAGE_SIZE: Final = 500
"""Objects per page of a list, as client-go's pager: bounds what the server must hold in memory at once."""

MAX_THROTTLED_RETRIES: Final = 10
"""How often one request is repeated after 429 with Retry-After, as client-go."""

_PATH_SEGMENT: Final = re.compile(r"(?!\.{1,2}$)[^/%?#\x00-\x20\x7f-\U0010ffff]+")


class Propagation(StrEnum):
    """What a delete does to dependants."""

    BACKGROUND = "Background"
    FOREGROUND = "Foreground"
    ORPHAN = "Orphan"


@dataclass(frozen=True)
class ObjectList(Generic[V]):
    """A list of one moment.

    Attributes:
        items: the objects.
        resource_version: a watch from here misses nothing.
        continue_token: names the next page; empty on the last.
    """

    items: list[V]
    resource_version: str
    continue_token: str = ""


class KubeClient:
    """Reads and writes objects of one API server, uncached.

    Flow: body or names → one HTTP request → view of the answer.
    Guarantees: one call makes one effect at most; a request is repeated only where the server said that it was not
        done (429) or that the credentials were old (401).
    Assumptions: the transport keeps its promises about what was sent.
    Caveats: views drop what they do not name; to change a whole object read it with ``get_object``.
    Errors: ``KubeError`` and its children.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        field_manager: str = "agent-sandbox",
        request_timeout: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            transport: carries the requests; decorate it to observe or restrict them.
            field_manager: the name under which server-side apply and managedFields know us.
            request_timeout: seconds for one request and its answer, default 30 as kubectl's informal norm; too short
                doubles work on a slow server, too long holds a worker.
            clock: waits after a 429; the machine's by default.
        """
        self.transport = transport
        self.field_manager = field_manager
        self.request_timeout = request_timeout
        self.clock = clock or SystemClock()

    def with_transport(self, transport: Transport, *, request_timeout: float | None = None) -> "KubeClient":
        """The same client over another transport, usually a decorator of this one's."""
        return KubeClient(
            transport,
            field_manager=self.field_manager,
            request_timeout=self.request_timeout if request_timeout is None else request_timeout,
            clock=self.clock,
        )

    async def aclose(self) -> None:
        """Close the transport."""
        await self.transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # Reading

    async def get(self, resource: Resource[V], name: str, namespace: str | None = None) -> V:
        """Read one object."""
        answer = await self.request("GET", _path(resource, namespace, name))
        return decode_object(resource, answer.body, f"GET {resource} {name}")

    async def get_object(self, resource: Resource[Any], name: str, namespace: str | None = None) -> dict[str, Any]:
        """Read one object as its whole JSON, for a read-modify-write that must keep unknown fields."""
        answer = await self.request("GET", _path(resource, namespace, name))
        whole: dict[str, Any] = msgspec.json.decode(answer.body)
        return whole

    async def list(
        self,
        resource: Resource[V],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE_SIZE,
    ) -> ObjectList[V]:
        """List all objects, in all namespaces if none is given, page by page to the end.

        If a page's continuation has expired the list starts again in one piece.
        """
        items: list[V] = []
        token = ""
        while True:
            try:
                page = await self.list_page(
                    resource,
                    namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    limit=limit,
                    continue_token=token,
                )
            except GoneError:
                if not token:
                    raise
                items, token, limit = [], "", 0
                continue
            items += page.items
            token = page.continue_token
            if not token:
                return ObjectList(items, page.resource_version)

    async def list_page(
        self,
        resource: Resource[V],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE_SIZE,
        continue_token: str = "",
        on_undecodable: Callable[[DecodeError], None] | None = None,
    ) -> ObjectList[V]:
        """One page of a list; a limit of 0 asks for everything at once.

        Objects that are not of the kind's shape go to ``on_undecodable`` and are left out, or fail the page without it.

        Raises:
            GoneError: the continuation has expired; start again.
        """
        query = _selection(label_selector, field_selector)
        if limit:
            query["limit"] = str(limit)
        if continue_token:
            query["continue"] = continue_token
        path = _path(resource, namespace)
        answer = await self.request("GET", path, query=query)

        def report(error: msgspec.ValidationError, raw: msgspec.Raw) -> None:
            failure = undecodable(resource, raw, error)
            if on_undecodable is None:
                raise failure from error
            on_undecodable(failure)

        try:
            items, metadata = resource.decode_list(answer.body, report)
        except msgspec.MsgspecError as error:
            raise DecodeError(f"GET {path}: the list does not decode as {resource}: {decode_reason(error)}") from error
        return ObjectList(items, metadata.resource_version, metadata.continue_)

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource[V],
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int,
        read_timeout: float | None = None,
        send_initial_events: bool = False,
        on_undecodable: Callable[[DecodeError], None] | None = None,
    ) -> AsyncIterator[AsyncIterator[WatchEvent[V]]]:
        """Open a watch and iterate over its events, bookmarks included, until the server ends it.

        Args:
            resource: the kind.
            namespace: one namespace, or None for all.
            resource_version: changes after this version are sent.
            label_selector: only matching objects.
            field_selector: only matching objects.
            timeout_seconds: after this the server ends the watch: it cannot go stale for ever.
            read_timeout: longest silence in seconds before ``OutcomeUnknownError``; None trusts the connection.
            send_initial_events: a streamed list: first every object as ADDED, then a bookmark whose
                ``initial_events_end`` is set.
            on_undecodable: told of events whose object is not of the kind's shape, which are then left out; without it
                they end the watch with a ``DecodeError``.

        Raises:
            GoneError: the version is too old (at once, or while iterating).
            ApiError: the server refuses, or reports an error in the stream.
            TransportError: the connection failed or fell silent.
        """
        query = _selection(label_selector, field_selector)
        query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(timeout_seconds)}
        if resource_version:
            query["resourceVersion"] = resource_version
        if send_initial_events:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        path = _path(resource, namespace)
        name = f"WATCH {path}"
        async with self.transport.stream("GET", path, query=query, read_timeout=read_timeout) as stream:
            if stream.status != 200:
                body = b"".join([chunk async for chunk in stream])
                raise error_for(stream.status, body, stream.headers, name)
            yield read_events(resource, stream, name, read_timeout, on_undecodable)

    # Writing

    async def create(self, resource: Resource[V], body: Body, namespace: str | None = None) -> V:
        """Create an object; ``apiVersion``, ``kind`` and an absent namespace are filled in."""
        content = complete(resource, wire(body))
        path = _path(resource, namespace or _metadata(content).get("namespace"))
        answer = await self.request("POST", path, query=self._manager_query(), body=msgspec.json.encode(content))
        return decode_object(resource, answer.body, f"POST {path}")

    async def update(
        self, resource: Resource[V], body: Body, namespace: str | None = None, *, subresource: str | None = None
    ) -> V:
        """Replace an object.

        Raises:
            ValueError: the body carries no ``metadata.resourceVersion``: it would overwrite what it has not seen.
            ConflictError: the object changed since.
        """
        content = complete(resource, wire(body))
        metadata = _metadata(content)
        if not metadata.get("resourceVersion"):
            raise ValueError(f"update of {resource} {metadata.get('name')}: metadata.resourceVersion is required")
        path = _path(resource, namespace or metadata.get("namespace"), metadata["name"], subresource)
        answer = await self.request("PUT", path, query=self._manager_query(), body=msgspec.json.encode(content))
        return decode_object(resource, answer.body, f"PUT {path}")

    async def patch(
        self,
        resource: Resource[V],
        name: str,
        patch: Patch,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> V:
        """Change part of an object, or apply it."""
        query = self._manager_query()
        if isinstance(patch, ApplyPatch):
            patch = ApplyPatch(complete(resource, wire(patch.body)), force=patch.force)
            if patch.force:
                query["force"] = "true"
        path = _path(resource, namespace, name, subresource)
        answer = await self.request("PATCH", path, query=query, body=patch.encode(), content_type=patch.content_type)
        return decode_object(resource, answer.body, f"PATCH {path}")

    async def delete(
        self,
        resource: Resource[V],
        name: str,
        namespace: str | None = None,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
        grace_period_seconds: int | None = None,
    ) -> None:
        """Delete exactly the object with this UID.

        Raises:
            NotFoundError: no object of that name exists.
            ConflictError: the name belongs to another object, or the resourceVersion has moved on.
        """
        await self.delete_and_read(
            resource,
            name,
            namespace,
            uid=uid,
            resource_version=resource_version,
            propagation=propagation,
            grace_period_seconds=grace_period_seconds,
        )

    async def delete_and_read(
        self,
        resource: Resource[V],
        name: str,
        namespace: str | None = None,
        *,
        uid: str,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
        grace_period_seconds: int | None = None,
    ) -> V | None:
        """As ``delete``; returns the object while finalizers or a grace period keep it, None once it is gone."""
        preconditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions}
        if propagation is not None:
            options["propagationPolicy"] = propagation.value
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        path = _path(resource, namespace, name)
        answer = await self.request("DELETE", path, body=msgspec.json.encode(options))
        if msgspec.json.decode(answer.body, type=_Kind).kind == "Status":
            return None
        view = decode_object(resource, answer.body, f"DELETE {path}")
        kept = view.metadata.finalizers or view.metadata.deletion_grace_period_seconds
        return view if kept else None

    # Scale

    async def get_scale(self, resource: Resource[Any], name: str, namespace: str | None = None) -> Scale:
        """Read the ``scale`` subresource."""
        answer = await self.request("GET", _path(resource, namespace, name, "scale"))
        return decode_scale(answer.body)

    async def set_scale(
        self,
        resource: Resource[Any],
        name: str,
        replicas: int,
        namespace: str | None = None,
        *,
        resource_version: str = "",
    ) -> Scale:
        """Write the wanted number of replicas through the ``scale`` subresource.

        Args:
            resource_version: write only if the object still is of this version; unset writes in any case.

        Raises:
            ConflictError: it is of another version.
        """
        body: dict[str, Any] = {"spec": {"replicas": replicas}}
        if resource_version:
            body["metadata"] = {"resourceVersion": resource_version}
        answer = await self.request(
            "PATCH",
            _path(resource, namespace, name, "scale"),
            query=self._manager_query(),
            body=msgspec.json.encode(body),
            content_type="application/merge-patch+json",
        )
        return decode_scale(answer.body)

    # The wire

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] = NO_QUERY,
        body: bytes | None = None,
        content_type: str | None = None,
    ) -> RawResponse:
        """Send any request; waits out 429 answers that name a time.

        Raises:
            ApiError: the answer's status is 400 or above.
            TransportError: there was no answer.
        """
        if body is not None and content_type is None:
            content_type = "application/json"
        attempts_left = MAX_THROTTLED_RETRIES
        while True:
            answer = await self.transport.request(
                method, path, query=query, body=body, content_type=content_type, timeout=self.request_timeout
            )
            if answer.status < 400:
                return answer
            pause = parse_retry_after(answer.headers)
            if answer.status != 429 or pause is None or not attempts_left:
                raise error_for(answer.status, answer.body, answer.headers, f"{method} {path}")
            attempts_left -= 1
            await self.clock.sleep(pause)

    def _manager_query(self) -> dict[str, str]:
        return {"fieldManager": self.field_manager}


class _Kind(msgspec.Struct):
    kind: str = ""


def decode_object(resource: Resource[V], body: bytes, request: str) -> V:
    """Decode the answer to a request.

    Raises:
        DecodeError: it is not an object of this kind.
    """
    try:
        return resource.decode(body)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"{request}: the answer does not decode as {resource}: {decode_reason(error)}") from error


def complete(resource: Resource[Any], content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body with ``apiVersion`` and ``kind``."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **content}


def _metadata(content: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata: Mapping[str, Any] = content.get("metadata") or {}
    return metadata


def _selection(label_selector: str, field_selector: str) -> dict[str, str]:
    query: dict[str, str] = {}
    if label_selector:
        query["labelSelector"] = label_selector
    if field_selector:
        query["fieldSelector"] = field_selector
    return query


def _path(
    resource: Resource[Any], namespace: str | None = None, name: str | None = None, subresource: str | None = None
) -> str:
    """The path of a request, in which each name is one segment, as client-go sees to it.

    Raises:
        InvalidNameError: a name that somebody typed would be more: another object, a subresource, a query.
    """
    for part, what in ((namespace or None, "namespace"), (name, "name")):
        if part is not None and _PATH_SEGMENT.fullmatch(part) is None:
            raise InvalidNameError(f"{part!r} is no {what} that an object of {resource} can have")
    return resource.path(namespace, name, subresource)
