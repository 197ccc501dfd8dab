"""Who may reach a sandbox: the claim names public keys, and whoever has a private one signs tokens for that claim.

Nothing has to be issued and nothing secret is stored: the key's public half is an annotation of the claim (of the
Sandbox, where no claim holds it)::

    access.agents.x-k8s.io/KEYID: PUBLIC KEY      32 bytes as base64url; KEYID is the start of its SHA-256

so the right to create or patch a claim, which Kubernetes' RBAC gives, is the right to reach what it holds. It costs no
API write, since the annotation comes with the claim's creation. A token is signed by its bearer::

    v2.PAYLOAD.SIGNATURE
    PAYLOAD    base64url of {"ns": namespace, "name": name, "uid": UID, "key": KEYID, "exp": seconds since 1970,
               "ports": [..]}
    SIGNATURE  base64url of Ed25519(private key, "agent-sandbox/access-token/v2." + PAYLOAD)

It opens one life of one claim until a time, and some ports of it or (without ``ports``) all. Removing the annotation
ends all tokens of its key at once.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent_sandbox_api.names import ANNOTATION_ACCESS_KEY

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ACCESS_TOKEN_PREFIX: Final = "v2."  # noqa: S105 - a version
MAX_TOKEN: Final = 4096
_DOMAIN: Final = b"agent-sandbox/access-token/v2."
_TOKEN: Final = re.compile(r"v2\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")


class AccessTokenError(ValueError):
    """Not an access token."""


class AccessKey:
    """A private key: signs tokens for the claims that name its public half."""

    def __init__(self, private: "Ed25519PrivateKey") -> None:
        self._private = private
        public = private.public_key().public_bytes_raw()
        self._id = hashlib.sha256(public).hexdigest()[:16]
        self._public = _encode(public)

    @classmethod
    def generate(cls) -> "AccessKey":
        """A new key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_text(cls, text: str) -> "AccessKey":
        """A key that was kept as its `text`.

        Raises:
            ValueError: it is none.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.from_private_bytes(_decode(text.strip())))

    @property
    def text(self) -> str:
        """The private key as text: secret."""
        return _encode(self._private.private_bytes_raw())

    @property
    def annotations(self) -> dict[str, str]:
        """What a claim says to let this key in."""
        return {ANNOTATION_ACCESS_KEY + self._id: self._public}

    def sign(self, *, namespace: str, name: str, uid: str, expires: int, ports: Collection[int] = ()) -> str:
        """A token for one claim, or one bare Sandbox.

        Args:
            uid: of that object: the token is for this life of the name only.
            expires: seconds since 1970; from then on it is void.
            ports: the ports that it opens; none means all.
        """
        body: dict[str, Any] = {"ns": namespace, "name": name, "uid": uid, "key": self._id, "exp": expires}
        if ports:
            body["ports"] = sorted(ports)
        payload = _encode(json.dumps(body, separators=(",", ":")).encode())
        return f"{ACCESS_TOKEN_PREFIX}{payload}.{_encode(self._private.sign(_DOMAIN + payload.encode()))}"

    def __repr__(self) -> str:
        return f"AccessKey({self._id})"


@dataclass(frozen=True)
class AccessToken:
    """What a token says of itself. Nothing of it is true before `is_signed_by` says so.

    Attributes:
        key_id: which of the claim's keys signed it.
        expires: seconds since 1970; from then on it is void.
        ports: the ports that it opens; none means all.
    """

    namespace: str
    name: str
    uid: str
    key_id: str
    expires: int
    ports: frozenset[int]
    _signed: bytes
    _signature: bytes

    @classmethod
    def parse(cls, token: str) -> "AccessToken":
        """Read a token.

        Raises:
            AccessTokenError: it is none.
        """
        match = _TOKEN.fullmatch(token) if len(token) <= MAX_TOKEN else None
        if match is None:
            raise AccessTokenError("not an access token")
        try:
            body = json.loads(_decode(match[1]))
            return cls(
                namespace=_text(body["ns"]),
                name=_text(body["name"]),
                uid=_text(body["uid"]),
                key_id=_text(body["key"]),
                expires=_number(body["exp"]),
                ports=frozenset(_number(port) for port in body.get("ports", ())),
                _signed=_DOMAIN + match[1].encode(),
                _signature=_decode(match[2]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise AccessTokenError("not an access token") from error

    def key_in(self, annotations: Mapping[str, str]) -> str | None:
        """The public key that these annotations name under the token's key id, as it stands there."""
        return annotations.get(ANNOTATION_ACCESS_KEY + self.key_id)

    def is_signed_by(self, public_key: str) -> bool:
        """Whether the owner of that key signed it. A malformed key signed nothing."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(_decode(public_key)).verify(self._signature, self._signed)
        except (InvalidSignature, ValueError):
            return False
        return True


def access_keys_of(annotations: Mapping[str, str]) -> dict[str, str]:
    """The part of an object's annotations that names access keys."""
    return {key: value for key, value in annotations.items() if key.startswith(ANNOTATION_ACCESS_KEY)}


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("not a text")
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("not a number")
    return value


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not base64url") from error
