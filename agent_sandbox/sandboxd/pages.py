"""Web pages that call a daemon without a token: a browser reaches what its user reaches, also for pages of strangers.

In: a request. Out: nothing, or a refusal. Programs are not concerned. Two ways lead from a stranger's page to a daemon
on the user's machine:

    another origin     the page sends a form or opens a WebSocket; the browser tells the page's origin
    a rebound name     the page's own name is made to point at this machine; the Host still tells that name
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from agent_sandbox.sandboxd.errors import ForeignPageError

_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def refuse_foreign_page(headers: Mapping[str, str], *, on_loopback: bool) -> None:
    """Let a request pass unless a page of another origin made it.

    What comes through a proxy was judged there: it says so by a header that a browser adds for no foreign page without
    asking first, which the daemon never grants.

    Args:
        on_loopback: whether only this machine reaches the daemon; then only this machine's names are meant for it.

    Raises:
        ForeignPageError: the page of a stranger made it.
    """
    host = headers.get("Host", "")
    if on_loopback and not _is_loopback(host):
        raise ForeignPageError(f"the host {host!r} is no name of this machine, and this daemon listens on nothing else")
    if "X-Forwarded-For" in headers:
        return
    origin = headers.get("Origin")
    other_site = headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")
    if other_site or (origin is not None and not _is_of(origin.lower(), host.lower())):
        raise ForeignPageError("a page of another origin made this request")


def is_loopback_address(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_loopback(host: str) -> bool:
    name, _, port = host.lower().rpartition(":")
    if not name or not port.isdecimal():
        name = host.lower()
    name = name.strip("[]")
    return name.endswith(".localhost") or is_loopback_address(name)


def _is_of(origin: str, host: str) -> bool:
    scheme, _, place = origin.partition("://")
    default = _DEFAULT_PORTS.get(scheme, "")
    return bool(place) and place.removesuffix(default) == host.removesuffix(default)
