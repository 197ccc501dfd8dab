"""What the router can be told: one frozen set of options, each with its unit, its default and the reason for it."""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Final

from agent_sandbox.router.errors import RouterConfigError
from agent_sandbox_api.names import ROUTER_AUDIENCE, ROUTER_PORT

_DOMAIN: Final = re.compile(r"\.?[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*\.?")


class AuthzMode(StrEnum):
    """Which credentials the router takes; see `agent_sandbox.router.authorising`."""

    CLAIM_KEY = "claim-key"
    TOKENREVIEW = "tokenreview"
    SCOPED_TOKEN = "scoped-token"  # noqa: S105 - the name of a mode
    STATIC_TOKEN = "static-token"  # noqa: S105 - the name of a mode
    ALLOW_ALL = "allow-all"


@dataclass(frozen=True, kw_only=True)
class RouterOptions:
    """Options of the router.

    Attributes:
        host: address to listen on; loopback unless told otherwise.
        port: TCP port; 0 takes a free one.
        reuse_port: let several router processes share the port (SO_REUSEPORT); the kernel spreads connections.
        authz: which credentials are taken. None means ``claim-key``, and what the files below are for; with
            `unsafe_allow_all` it means ``allow-all``.
        token_audiences: a Kubernetes token must be for one of these audiences (``tokenreview``).
        token_file: file with bearer tokens of the router's own, one per line, each of which opens every sandbox
            (``static-token``). Two lines allow a rotation; the file is read again when it changes.
        key_file: file with the keys of signed tokens (`agent_sandbox.router.TokenKeys`), one per line, the first one
            being the newest. A signed token opens one sandbox (``scoped-token``).
        unsafe_allow_all: allow the mode ``allow-all``: serve without any credential, on loopback only. Whoever reaches
            the port then reaches every sandbox.
        connect_timeout: seconds to reach the Pod, all attempts together.
        response_timeout: seconds from the end of the request until the sandbox begins to answer. A legacy
            ``/execute`` answers only when its command has ended, so it must outlast commands whose request does not
            say ``X-Sandbox-Timeout``; 180 is the original's value.
        idle_timeout: seconds without a byte in a body, either way.
        upgraded_idle_timeout: the same for upgraded connections (WebSocket), which may rest for long.
        total_timeout: seconds for a whole exchange that names no ``X-Sandbox-Timeout``; None means no bound.
        max_timeout: upper bound of ``X-Sandbox-Timeout``, in seconds.
        head_timeout: seconds that a client may take to send a request's head once it has begun (slow loris).
        keepalive_timeout: seconds that a client's connection may rest between requests; longer than that of the usual
            load balancers (60), so that they and not we close first.
        wait_unknown: seconds to wait for a name that the router does not know: its watch may lag behind the creator.
        wait_ready: seconds to wait for a sandbox that is known and not Ready.
        wait_awake: seconds to wait for a suspended sandbox that the request wakes, where its template allows that.
        max_body_bytes: largest request body; None leaves it to the sandbox.
        max_concurrent: requests of one sandbox on their way at once, WebSockets included; None means no limit. 256 is
            far above what an agent needs and far below what one process can hold.
        max_rate: requests per second of one sandbox in the long run; None means no limit.
        burst: requests that may come at once after a rest, where `max_rate` is set.
        control_host: address of the control endpoints (/healthz, /readyz, /metrics).
        control_port: their port; 0 takes a free one, None leaves them out.
        tls_certificate: PEM file with the router's certificate chain; with `tls_key` it speaks TLS. Both are loaded
            again when they change.
        tls_key: PEM file with its private key.
        tls_client_ca: PEM file with authorities; then clients must show a certificate of theirs (mTLS).
        access_log: whether every request gets a log line.
        drain_delay: seconds for which the router still accepts connections and requests after it was told to stop,
            while /readyz says no and every answer closes its connection: callers and load balancers learn of it before
            anything is refused. 0 stops accepting at once.
        drain_timeout: seconds that begun exchanges get after that.
        domain: ``<port>-<sandbox>-<namespace>.<domain>`` as host names a sandbox, for browsers; None turns it off.
        proto: what ``X-Forwarded-Proto`` says: ``https`` when a load balancer ends TLS before us. Where the router
            speaks TLS itself it says so in any case.
    """

    host: str = "127.0.0.1"
    port: int = ROUTER_PORT
    reuse_port: bool = False
    authz: tuple[AuthzMode, ...] | None = None
    token_audiences: tuple[str, ...] = (ROUTER_AUDIENCE,)
    token_file: Path | None = None
    key_file: Path | None = None
    unsafe_allow_all: bool = False
    connect_timeout: float = 5.0
    response_timeout: float = 180.0
    idle_timeout: float = 300.0
    upgraded_idle_timeout: float = 3600.0
    total_timeout: float | None = None
    max_timeout: float = 86400.0
    head_timeout: float = 10.0
    keepalive_timeout: float = 75.0
    wait_unknown: float = 2.0
    wait_ready: float = 10.0
    wait_awake: float = 60.0
    max_body_bytes: int | None = None
    max_concurrent: int | None = 256
    max_rate: float | None = None
    burst: int = 50
    control_host: str = "127.0.0.1"
    control_port: int | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    access_log: bool = False
    drain_delay: float = 0.0
    drain_timeout: float = 30.0
    domain: str | None = None
    proto: str = "http"

    def __post_init__(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise RouterConfigError("a TLS certificate needs its key, and a key its certificate: give both or none")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise RouterConfigError("authorities for clients' certificates need a certificate of the router's own")
        for name in (
            "connect_timeout",
            "response_timeout",
            "idle_timeout",
            "upgraded_idle_timeout",
            "max_timeout",
            "head_timeout",
            "keepalive_timeout",
            "burst",
        ):
            if not 0 < getattr(self, name) < inf:
                raise RouterConfigError(f"{name} must be more than 0, and finite, not {getattr(self, name)}")
        for name in ("total_timeout", "max_body_bytes", "max_concurrent", "max_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise RouterConfigError(f"{name} must be more than 0, not {value}; leave it out for no bound")
        for name in ("wait_unknown", "wait_ready", "wait_awake", "drain_delay", "drain_timeout"):
            if not 0 <= getattr(self, name) < inf:
                raise RouterConfigError(f"{name} must be 0 or more, and finite, not {getattr(self, name)}")
        for name in ("port", "control_port"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 65536:
                raise RouterConfigError(f"{name} must be from 0 to 65535, not {value}")
        if self.domain is not None and _DOMAIN.fullmatch(self.domain) is None:
            raise RouterConfigError(
                f"domain must be a DNS name, for example sandboxes.example.com, not {self.domain!r}"
            )
        self._check_authz()

    def _check_authz(self) -> None:
        modes = self.authz_modes
        if not modes:
            raise RouterConfigError("no mode of authorisation is left: name one, for example claim-key")
        for mode, file, flag in (
            (AuthzMode.STATIC_TOKEN, self.token_file, "token file"),
            (AuthzMode.SCOPED_TOKEN, self.key_file, "key file"),
        ):
            if (mode in modes) != (file is not None):
                raise RouterConfigError(f"the mode {mode} and a {flag} go together: give both or none")
        if AuthzMode.TOKENREVIEW in modes and not self.token_audiences:
            raise RouterConfigError("the mode tokenreview needs an audience that tokens are for")
        if AuthzMode.ALLOW_ALL not in modes:
            if self.unsafe_allow_all:
                raise RouterConfigError("unsafe_allow_all contradicts the other modes: leave it out")
            return
        if len(modes) > 1:
            raise RouterConfigError("allow-all makes every other mode meaningless: give it alone or not at all")
        if not self.unsafe_allow_all:
            raise RouterConfigError(
                "the mode allow-all lets everybody who reaches the port into every sandbox: say --unsafe-allow-all"
            )
        if not _is_loopback(self.host):
            raise RouterConfigError(
                f"without a credential the router listens on loopback only, not on {self.host}: everybody in the "
                "network would reach every sandbox"
            )

    @property
    def authz_modes(self) -> frozenset[AuthzMode]:
        """The modes in force."""
        if self.authz is not None:
            return frozenset(self.authz)
        if self.unsafe_allow_all:
            return frozenset({AuthzMode.ALLOW_ALL})
        files = {AuthzMode.STATIC_TOKEN: self.token_file, AuthzMode.SCOPED_TOKEN: self.key_file}
        return frozenset({AuthzMode.CLAIM_KEY, *(mode for mode, file in files.items() if file is not None)})

    @property
    def client_proto(self) -> str:
        """How clients reach us: http or https."""
        return "https" if self.tls_certificate is not None else self.proto


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
