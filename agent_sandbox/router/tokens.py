"""Credentials for one sandbox: signed by whoever has the key, checked by the router without asking anybody.

A token says which claim (or bare Sandbox) it opens and until when::

    v1.PAYLOAD.SIGNATURE
    PAYLOAD    base64url of {"ns": namespace, "name": name, "exp": seconds since 1970, "uid": UID, "ports": [..]}
    SIGNATURE  base64url of HMAC-SHA256(key, "agent-sandbox/scoped-token/v1." + PAYLOAD)

``uid`` ties it to one life of that name, ``ports`` to some ports; both may be absent. This is the Go router's format
with two additions. Keys rotate: a file holds several, the first one signs, all of them check.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from agent_sandbox.clock import Clock
from agent_sandbox.router.errors import ForbiddenError, RouterConfigError, UnauthenticatedError

SCOPED_TOKEN_PREFIX: Final = "v1."  # noqa: S105 - a version
MIN_KEY_BYTES: Final = 32
MAX_TOKEN: Final = 4096
_DOMAIN: Final = b"agent-sandbox/scoped-token/v1."
_TOKEN: Final = re.compile(r"v1\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})\Z")


@dataclass(frozen=True)
class Scope:
    """What a token opens.

    Attributes:
        name: of the claim; of the Sandbox where no claim holds it.
        uid: UID of that object, or None for whatever has the name.
        ports: allowed ports; empty means all.
        expires: seconds since 1970; from then on it is void.
    """

    namespace: str
    name: str
    expires: int
    uid: str | None = None
    ports: frozenset[int] = frozenset()

    def check_name(self, *, namespace: str, name: str, port: int) -> None:
        """Let a request to that name and port pass, before it is known which object has the name.

        Raises:
            ForbiddenError: the token is for something else.
        """
        if (self.namespace, self.name) != (namespace, name):
            raise ForbiddenError("This credential is for another sandbox.")
        if self.ports and port not in self.ports:
            raise ForbiddenError(f"This credential is not for port {port} of the sandbox.")

    def check(self, *, namespace: str, name: str, uid: str, port: int) -> None:
        """Let a request to that sandbox and port pass.

        Raises:
            ForbiddenError: the token is for something else.
        """
        self.check_name(namespace=namespace, name=name, port=port)
        if self.uid is not None and self.uid != uid:
            raise ForbiddenError("This credential is for another sandbox.")


class TokenKeys:
    """The keys that sign and check tokens.

    Args:
        keys: the first one signs.

    Raises:
        RouterConfigError: no key, or one that is too short.
    """

    def __init__(self, keys: Collection[bytes], *, clock: Clock) -> None:
        if not keys or min(map(len, keys)) < MIN_KEY_BYTES:
            raise RouterConfigError(f"a signing key has at least {MIN_KEY_BYTES} bytes: openssl rand -base64 48")
        self._keys = tuple(keys)
        self._clock = clock

    @classmethod
    def from_file(cls, path: Path, *, clock: Clock) -> "TokenKeys":
        """Read keys, one per line; white space around them and lines that start with # do not count. Blocks.

        Raises:
            RouterConfigError: the file cannot be read, or has no good key.
        """
        try:
            lines = path.read_bytes().splitlines()
        except OSError as error:
            raise RouterConfigError(f"cannot read the signing keys {path}: {error.strerror}") from error
        return cls([line.strip() for line in lines if line.strip() and not line.startswith(b"#")], clock=clock)

    def mint(
        self,
        *,
        namespace: str,
        name: str,
        lifetime: timedelta,
        uid: str | None = None,
        ports: Collection[int] = (),
    ) -> str:
        """A token for one claim, or one bare Sandbox."""
        body: dict[str, Any] = {"ns": namespace, "name": name}
        body["exp"] = int((self._clock.now() + lifetime).timestamp())
        if uid is not None:
            body["uid"] = uid
        if ports:
            body["ports"] = sorted(ports)
        payload = _encode(json.dumps(body, separators=(",", ":")).encode())
        return f"v1.{payload}.{_encode(_sign(self._keys[0], payload))}"

    def read(self, token: str) -> Scope:
        """What a token opens.

        Raises:
            UnauthenticatedError: it is malformed, not signed by one of our keys, or expired.
        """
        match = _TOKEN.match(token) if len(token) <= MAX_TOKEN else None
        if match is None:
            raise UnauthenticatedError("Invalid token.")
        try:
            signature = base64.urlsafe_b64decode(match[2] + "=")
        except binascii.Error:
            raise UnauthenticatedError("Invalid token.") from None
        if not any(hmac.compare_digest(signature, _sign(key, match[1])) for key in self._keys):
            raise UnauthenticatedError("Invalid token.")
        scope = _scope(match[1])
        if self._clock.now().timestamp() >= scope.expires:
            raise UnauthenticatedError("The token has expired; get a new one.")
        return scope


def glance(token: str) -> Scope | None:
    """What a token says of itself, whoever wrote it; None if it is none of ours. It opens nothing."""
    match = _TOKEN.match(token) if len(token) <= MAX_TOKEN else None
    try:
        return None if match is None else _scope(match[1])
    except UnauthenticatedError:
        return None


def _scope(payload: str) -> Scope:
    """Read a payload."""
    try:
        body = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        uid, ports = body.get("uid"), body.get("ports", [])
        return Scope(
            namespace=_text(body["ns"]),
            name=_text(body["name"]),
            expires=int(body["exp"]),
            uid=None if uid is None else _text(uid),
            ports=frozenset(int(port) for port in ports),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UnauthenticatedError("Invalid token.") from error


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("not a text")
    return value


def _sign(key: bytes, payload: str) -> bytes:
    return hmac.new(key, _DOMAIN + payload.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
