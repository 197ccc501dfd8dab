"""How a browser carries a credential: a link brings it once, a cookie from then on.

``?agent-sandbox-token=TOKEN`` in a link to a sandbox is answered with the same address without it and with a cookie, so
that the token stays neither in the address bar nor in a Referer. The cookie never reaches the sandbox.
"""

from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from agent_sandbox.router.http1 import RequestHead
from agent_sandbox.router.routing import Route
from agent_sandbox.router.tokens import Scope

COOKIE: Final = b"agent-sandbox-token"


@dataclass(frozen=True)
class Invitation:
    """A link with a credential.

    Attributes:
        target: the same address without it.
    """

    token: str
    target: bytes


def invitation(head: RequestHead) -> Invitation | None:
    """The credential in the query of a GET, if there is one."""
    path, question, query = head.target.partition(b"?")
    if not question or head.method != b"GET":
        return None
    kept, token = [], None
    for field in query.split(b"&"):
        name, _, value = field.partition(b"=")
        if name == COOKIE:
            token = value
        else:
            kept.append(field)
    if token is None:
        return None
    # Two slashes at the front would name another host in a Location.
    path = b"/" + path.lstrip(b"/")
    return Invitation(token.decode("latin-1"), path + (b"?" + b"&".join(kept) if kept else b""))


def cookie_token(head: RequestHead) -> str | None:
    """The credential in the cookies, if there is one."""
    for value in head.all(b"cookie"):
        for pair in value.split(b";"):
            name, _, token = pair.strip().partition(b"=")
            if name == COOKIE:
                return token.decode("latin-1")
    return None


def without_token(cookies: bytes) -> bytes:
    """A Cookie header's value without our cookie; empty if nothing else is in it."""
    kept = [pair for pair in cookies.split(b";") if pair.strip().partition(b"=")[0] != COOKIE]
    return b";".join(kept).strip()


def set_cookie(token: str, scope: Scope, route: Route, *, secure: bool) -> bytes:
    """The Set-Cookie that takes the place of the link."""
    parts = [
        COOKIE + b"=" + token.encode("latin-1"),
        b"Path=" + route.prefix + b"/",
        b"Expires=" + formatdate(scope.expires, usegmt=True).encode(),
        b"HttpOnly",
        b"SameSite=Lax",
    ]
    return b"; ".join(parts + ([b"Secure"] if secure else []))
