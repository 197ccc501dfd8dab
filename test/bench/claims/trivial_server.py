# ruff: noqa: T201 - a program that prints
"""An API server that costs next to nothing, so that controllers and not the server are the limit.

It keeps objects in memory and does what controllers rely on: names made from generateName, UIDs, resourceVersions and
their conflicts, generation, merge patches of objects and status, watches from any version of the last million changes,
UID preconditions, and the removal of what a deleted object owned. It validates nothing and defaults nothing; every
answer is encoded once. Run by claims.py; prints its port. Never a server for anything but this benchmark.
"""

import asyncio
import itertools
import secrets
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import msgspec
import uvloop

Json = dict[str, Any]

GROUPS = {
    "agents.x-k8s.io": ["v1alpha1"],
    "extensions.agents.x-k8s.io": ["v1alpha1"],
}
COUNTED = {"POST": "POST", "PATCH": "PATCH", "PUT": "PUT", "DELETE": "DELETE"}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class RefusalError(Exception):
    """An answer that is no success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.body = _encode(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "code": code,
                "reason": reason,
                "message": message,
            }
        )
        self.code = code


@dataclass
class Stored:
    """An object and its bytes."""

    value: Json
    data: bytes


@dataclass
class Kind:
    """All objects of one resource, and its past."""

    objects: dict[tuple[str, str], Stored] = field(default_factory=dict)
    past: deque[tuple[int, str, bytes]] = field(default_factory=lambda: deque(maxlen=1_000_000))  # version, ns, event
    watchers: list[tuple[str, Callable[[bytes], None]]] = field(default_factory=list)


@dataclass
class Target:
    """What a request is about."""

    api_version: str
    resource: str
    namespace: str
    name: str
    subresource: str
    query: dict[str, str]


def parse(url: str) -> Target:
    """Read a request target."""
    split = urlsplit(url)
    parts = split.path.strip("/").split("/")
    api_version, rest = ("/".join(parts[1:3]), parts[3:]) if parts[0] == "apis" else (parts[1], parts[2:])
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    rest += ["", ""]
    return Target(
        api_version,
        rest[0],
        namespace,
        rest[1],
        rest[2],
        {key: values[0] for key, values in parse_qs(split.query).items()},
    )


def merge(into: Json, patch: Json) -> Json:
    """RFC 7396."""
    merged = dict(into)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            known = merged.get(key)
            merged[key] = merge(known if isinstance(known, dict) else {}, value)
        else:
            merged[key] = value
    return merged


class Server:
    """The objects."""

    def __init__(self) -> None:
        self._versions = itertools.count(2)
        self.version = 1
        self.kinds: dict[str, Kind] = {}
        self.owned: dict[str, set[tuple[str, tuple[str, str]]]] = {}  # by the UID of the controller
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def kind(self, resource: str) -> Kind:
        """The objects of a resource."""
        return self.kinds.setdefault(resource, Kind())

    def answer(self, method: str, url: str, body: bytes) -> bytes:
        """Everything but watches and discovery."""
        target = parse(url)
        if method == "GET":
            return self._read(target)
        answer = getattr(self, f"_{method.lower()}")(target, _decode(body) if body else {})
        self.counts[method, target.resource, target.subresource] += 1
        assert isinstance(answer, bytes)
        return answer

    def _read(self, target: Target) -> bytes:
        if target.name:
            return self._find(target).data
        kind = self.kind(target.resource)
        items = [
            stored.data for key, stored in kind.objects.items() if not target.namespace or key[0] == target.namespace
        ]
        items = items[: int(target.query["limit"])] if target.query.get("limit") == "1" else items
        head = b'{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":[' % self.version
        return head + b",".join(items) + b"]}"

    def _find(self, target: Target) -> Stored:
        stored = self.kind(target.resource).objects.get((target.namespace, target.name))
        if stored is None:
            raise RefusalError(404, "NotFound", f'{target.resource} "{target.name}" not found')
        return stored

    def _post(self, target: Target, value: Json) -> bytes:
        if target.subresource or target.resource.endswith("reviews"):
            return _encode(value)
        metadata = value.setdefault("metadata", {})
        if not metadata.get("name"):
            metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
        key = (target.namespace, metadata["name"])
        if key in self.kind(target.resource).objects:
            raise RefusalError(409, "AlreadyExists", f'{target.resource} "{key[1]}" already exists')
        value.setdefault("apiVersion", target.api_version)
        metadata |= {
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if target.namespace:
            metadata["namespace"] = target.namespace
        return self._store(target.resource, key, value, "ADDED")

    def _patch(self, target: Target, patch: Json) -> bytes:
        stored = self._find(target)
        return self._change(target, stored, merge(stored.value, patch), patch.get("metadata", {}))

    def _put(self, target: Target, value: Json) -> bytes:
        return self._change(target, self._find(target), value, value.get("metadata", {}))

    def _change(self, target: Target, stored: Stored, value: Json, preconditions: Json) -> bytes:
        old = stored.value["metadata"]
        for name in ("uid", "resourceVersion"):
            if preconditions.get(name, old[name]) != old[name]:
                raise RefusalError(409, "Conflict", f"the object has been modified; {name} is {old[name]}")
        if target.subresource == "status":
            value = {**stored.value, "status": value.get("status", {}), "metadata": dict(old)}
        else:
            value = {**value, "metadata": dict(value["metadata"])}
            if "status" in stored.value:
                value["status"] = stored.value["status"]
            if value.get("spec") != stored.value.get("spec"):
                value["metadata"]["generation"] = old["generation"] + 1
        return self._store(target.resource, (target.namespace, target.name), value, "MODIFIED")

    def _delete(self, target: Target, options: Json) -> bytes:
        if not target.name:
            return self._delete_collection(target)
        stored = self._find(target)
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != stored.value["metadata"]["uid"]:
            raise RefusalError(409, "Conflict", "the UID is another")
        self._remove(target.resource, (target.namespace, target.name))
        return stored.data

    def _delete_collection(self, target: Target) -> bytes:
        all_keys = [key for key in self.kind(target.resource).objects if key[0] == target.namespace]
        keys = all_keys[: int(target.query.get("limit", len(all_keys)))]
        for key in keys:
            if key in self.kind(target.resource).objects:  # it may have gone with its owner
                self._remove(target.resource, key)
        left = len(all_keys) - len(keys)
        metadata = {"continue": "more" if left else "", "remainingItemCount": left}
        return _encode({"kind": "List", "metadata": metadata, "items": [{}] * len(keys)})

    def _remove(self, resource: str, key: tuple[str, str]) -> None:
        value = self.kind(resource).objects[key].value
        value = {**value, "metadata": dict(value["metadata"])}
        self._store(resource, key, value, "DELETED")
        for child in self.owned.pop(value["metadata"]["uid"], ()):
            if child[1] in self.kind(child[0]).objects:
                self._remove(*child)

    def _store(self, resource: str, key: tuple[str, str], value: Json, event: str) -> bytes:
        kind = self.kind(resource)
        self.version = next(self._versions)
        value["metadata"]["resourceVersion"] = str(self.version)
        self._note_owner(resource, key, kind.objects.get(key), value)
        data = _encode(value)
        if event == "DELETED":
            del kind.objects[key]
        else:
            kind.objects[key] = Stored(value, data)
        line = b'{"type":"%s","object":%s}\n' % (event.encode(), data)
        kind.past.append((self.version, key[0], line))
        for namespace, send in kind.watchers:
            if not namespace or namespace == key[0]:
                send(line)
        return data

    def _note_owner(self, resource: str, key: tuple[str, str], old: Stored | None, value: Json) -> None:
        for reference in old.value["metadata"].get("ownerReferences", ()) if old else ():
            self.owned.get(reference["uid"], set()).discard((resource, key))
        for reference in value["metadata"].get("ownerReferences") or ():
            self.owned.setdefault(reference["uid"], set()).add((resource, key))

    def metrics(self) -> bytes:
        """What kube-apiserver says of its writes."""
        return b"".join(
            f'apiserver_request_total{{code="200",dry_run="",resource="{resource}",subresource="{subresource}",'
            f'verb="{COUNTED[method]}"}} {count}\n'.encode()
            for (method, resource, subresource), count in self.counts.items()
        )


class Connection(asyncio.Protocol):
    """One connection: requests in, answers out, no framework."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.Transport
        self._leave: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type

    def connection_lost(self, _: Exception | None) -> None:
        if self._leave is not None:
            self._leave()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode()
            length = 0
            for line in head.split("\r\n")[1:]:
                if line[:15].lower() == "content-length:":
                    length = int(line[15:])
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            method, url, _ = head.split("\r\n", 1)[0].split(" ")
            self._answer(method, url, body)

    def _answer(self, method: str, url: str, body: bytes) -> None:
        try:
            if url == "/metrics":
                self._send(200, self._server.metrics())
            elif url.startswith("/version"):
                self._send(200, b'{"gitVersion":"trivial"}')
            elif url.startswith("/apis/") and url.strip("/").count("/") == 1:
                versions = [{"version": each} for each in GROUPS[url.strip("/").split("/")[1]]]
                self._send(200, _encode({"versions": versions}))
            elif "watch=true" in url:
                self._watch(url)
            else:
                answer = self._server.answer(method, url, body)
                self._send(201 if method == "POST" else 200, answer)
        except RefusalError as refusal:
            self._send(refusal.code, refusal.body)

    def _watch(self, url: str) -> None:
        target = parse(url)
        if "sendInitialEvents" in target.query:
            raise RefusalError(400, "BadRequest", "streamed lists are not served")
        kind = self._server.kind(target.resource)
        since = int(target.query.get("resourceVersion") or self._server.version)
        self._transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for version, namespace, line in kind.past:
            if version > since and target.namespace in ("", namespace):
                self._chunk(line)
        entry = (target.namespace, self._chunk)
        kind.watchers.append(entry)
        self._leave = lambda: kind.watchers.remove(entry)

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _send(self, code: int, body: bytes) -> None:
        self._transport.write(
            b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (code, len(body), body)
        )


async def main() -> None:
    """Serve until killed."""
    state = Server()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(state), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
