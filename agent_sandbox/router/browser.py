"""How a browser carries a credential: a link brings it once, a cookie from then on.

``?agent-sandbox-token=TOKEN`` in a link to a sandbox is answered with the same address without it and with a cookie, so
that the token stays neither in the address bar nor in a Referer. The cookie never reaches the sandbox, and counts only
in requests that the sandbox's own pages make: the pages of another one, which the browser holds to be of the same site
where both stand below one domain, cannot use it.
"""

from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from agent_sandbox.router.http1 import RequestHead
from agent_sandbox.router.routing import Route
from agent_sandbox_api.names import QUERY_SANDBOX_TOKEN

COOKIE: Final = QUERY_SANDBOX_TOKEN.encode()
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


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


def is_foreign(head: RequestHead) -> bool:
    """Whether a page of another origin made this request, other than by a link that somebody followed."""
    site = b"".join(head.all(b"sec-fetch-site"))
    if site:
        followed = (
            head.method == b"GET"
            and list(head.all(b"sec-fetch-mode")) == [b"navigate"]
            and list(head.all(b"sec-fetch-dest")) == [b"document"]
        )
        if site not in (b"same-origin", b"none") and not followed:
            return True
    # Older browsers, and all of them where the page is not of a secure context, tell the origin only.
    return any(_host_of(origin) != _host_in(head, origin) for origin in head.all(b"origin"))


def _host_of(origin: bytes) -> bytes:
    scheme, _, host = origin.lower().partition(b"://")
    return host.removesuffix(_DEFAULT_PORTS.get(scheme, b"")) or b"(none)"


def _host_in(head: RequestHead, origin: bytes) -> bytes:
    scheme = origin.lower().partition(b"://")[0]
    return b"".join(head.all(b"host")).lower().removesuffix(_DEFAULT_PORTS.get(scheme, b""))


def without_token(cookies: bytes) -> bytes:
    """A Cookie header's value without our cookie; empty if nothing else is in it."""
    kept = [pair for pair in cookies.split(b";") if pair.strip().partition(b"=")[0] != COOKIE]
    return b";".join(kept).strip()


def set_cookie(token: str, expires: int, route: Route, *, secure: bool) -> bytes:
    """The Set-Cookie that takes the place of the link."""
    parts = [
        COOKIE + b"=" + token.encode("latin-1"),
        b"Path=" + route.base + b"/",
        b"Expires=" + formatdate(expires, usegmt=True).encode(),
        b"HttpOnly",
        b"SameSite=Lax",
    ]
    return b"; ".join(parts + ([b"Secure"] if secure else []))
