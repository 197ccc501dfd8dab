"""The request and the answer as values, free of sockets.

A front (aiohttp, or the in-memory transport) makes an ``ApiRequest`` from what it read and writes the ``ApiResponse``.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import msgspec

JSON = "application/json"


@dataclass(frozen=True)
class UserInfo:
    """Who asks."""

    name: str = "admin"
    groups: tuple[str, ...] = ("system:masters", "system:authenticated")
    uid: str = ""


@dataclass(frozen=True)
class ApiRequest:
    """One HTTP request.

    Attributes:
        method: upper-case HTTP method.
        path: the path, percent-decoded.
        query: the query's pairs in order; a name may occur more than once.
        headers: header names in lower case.
        body: the whole body.
        user: who asks; None if nobody has authenticated the request yet.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: UserInfo | None = None

    def parameter(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        for key, value in self.query:
            if key == name:
                return value
        return default

    def parameters(self, name: str) -> list[str]:
        """All values of a query parameter, in order."""
        return [value for key, value in self.query if key == name]

    def flag(self, name: str) -> bool:
        """True if the parameter is there and not ``false`` or ``0``, as Kubernetes reads booleans."""
        values = self.parameters(name)
        return bool(values) and values[0] not in {"false", "0"}

    @property
    def content_type(self) -> str:
        """The body's media type without parameters; empty if not given."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def split_query(text: str) -> tuple[tuple[str, str], ...]:
    """Parse a URL's query; blank values are kept."""
    return tuple(parse_qsl(text, keep_blank_values=True))


@dataclass
class ApiResponse:
    """One HTTP answer: a whole body, or a stream of chunks that the front writes as they come."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    warnings: list[str] = field(default_factory=list)
    """What the client is told in ``Warning`` headers."""

    @classmethod
    def json(cls, value: Any, status: int = 200, content_type: str = JSON) -> "ApiResponse":
        """An answer of one JSON value."""
        return cls(status, {"Content-Type": content_type}, msgspec.json.encode(value))

    @classmethod
    def raw(cls, body: bytes, status: int = 200) -> "ApiResponse":
        """An answer that is JSON already."""
        return cls(status, {"Content-Type": JSON}, body)

    @classmethod
    def text(cls, text: str, status: int = 200) -> "ApiResponse":
        """A plain text answer."""
        return cls(status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())


def parse_accept(header: str) -> Sequence[tuple[str, Mapping[str, str]]]:
    """The media types of an ``Accept`` header in the client's order, with their parameters."""
    entries = []
    for part in header.split(","):
        media, *parameters = [piece.strip() for piece in part.split(";")]
        if media:
            pairs = (parameter.partition("=") for parameter in parameters)
            entries.append((media.lower(), {key: value for key, _, value in pairs}))
    return entries
