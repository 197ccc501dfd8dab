"""What a client shows to the router, obtained by the client itself.

In: a claim. Out: the value of ``X-Sandbox-Authorization`` for it. As a rule this is a token that the client signs with
a key of its own, which the claim names because the client made the claim so (``agent_sandbox_api.access``). Where a
router takes Kubernetes tokens only, one is asked for from the API server. A token that was given to the client, or the
local stack's own, comes first.
"""

import logging
import math
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread
import msgspec

from agent_sandbox.kube import ForbiddenError, KubeClient, KubeError, MergePatch, NotFoundError
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.errors import SandboxConfigError
from agent_sandbox.sdk.lifetime import ServerClock
from agent_sandbox.sdk.options import ACCESS_KEY_FILE_VARIABLE, ConnectionOptions
from agent_sandbox.sdk.wire import Target
from agent_sandbox_api.access import AccessKey
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SandboxClaimView
from agent_sandbox_api.names import ROUTER_AUDIENCE

_log = logging.getLogger(__name__)

TOKEN_SECONDS: Final = 3600
"""How long a token is good; a new one is signed when half of it has passed."""
_KUBERNETES_TOKEN_SECONDS: Final = 3600
_KEPT: Final = 10_000


@dataclass(frozen=True)
class _Token:
    text: str
    renew_at: float


class Credentials:
    """The credentials of one client.

    Args:
        given: a token that the router knows; None makes the client sign its own.
        clock: the API server's time, by which tokens end.
    """

    def __init__(
        self, kube: KubeClient, options: ConnectionOptions, clock: ServerClock, *, given: str | None = None
    ) -> None:
        self._kube = kube
        self._options = options
        self._clock = clock
        self._given = given
        self._key: AccessKey | None = None
        self._signed: dict[str, _Token] = {}  # by the claim's UID
        self._kubernetes: str | None = None
        self._entered: set[str] = set()  # UIDs of claims that name the key

    async def for_new_claim(self) -> Mapping[str, str]:
        """Annotations for a claim that this client is about to make."""
        return {} if self._given is not None else (await self._own_key()).annotations

    async def enter(self, claim: SandboxClaimView) -> None:
        """Have an existing claim name this client's key, if it does not yet and the client needs one.

        A client that may not change the claim goes on without: a router may take its Kubernetes token.

        Raises:
            SandboxError: the API server refuses, or the claim is gone.
        """
        if self._given is None:
            await self._enter(claim)

    def authorization(self, target: Target) -> str | None:
        """The header's value for a request to that sandbox."""
        token = self._given or self._kubernetes or self._token_for(target)
        return f"Bearer {token}" if token else None

    async def sign(self, claim: SandboxClaimView, *, port: int, seconds: float) -> str:
        """A token that opens one port of the claim's sandbox for so long; the claim learns this client's key if needed.

        Raises:
            ValueError: ``seconds`` is no positive number.
            SandboxError: the claim is gone, or the client may not change it.
        """
        if not 0 < seconds < math.inf:
            raise ValueError(f"a credential is good for a positive number of seconds, not {seconds!r}")
        if not await self._enter(claim):
            name = f"{claim.metadata.namespace}/{claim.metadata.name}"
            raise SandboxConfigError(
                f"SandboxClaim {name} does not name this client's key, and the client may not add it: "
                "it needs the verb patch on sandboxclaims"
            )
        meta, now = claim.metadata, await self._clock.now()
        expires = int(now.timestamp() + seconds)
        key = await self._own_key()
        return key.sign(namespace=meta.namespace, name=meta.name, uid=meta.uid, expires=expires, ports=(port,))

    async def renew(self) -> bool:
        """A router refused what `authorization` gave: find something else. False if there is nothing else."""
        if self._given is not None:
            return False
        before = self._clock.estimate().timestamp()
        moved = abs((await self._clock.now()).timestamp() - before) > TOKEN_SECONDS / 2
        self._signed.clear()
        if moved and self._kubernetes is None:
            return True  # this machine's clock is wrong; now that this is known, tokens are good
        try:
            self._kubernetes = await self._ask_for_kubernetes_token()
        except KubeError as error:
            _log.warning("no Kubernetes token for the router could be had: %s", error)
            return False
        return self._kubernetes is not None

    def _token_for(self, target: Target) -> str | None:
        if self._key is None or not target.claim_uid:
            return None
        now = self._clock.estimate().timestamp()
        known = self._signed.get(target.claim_uid)
        if known is None or now >= known.renew_at:
            if len(self._signed) >= _KEPT:
                self._signed.clear()
            text = self._key.sign(
                namespace=target.namespace,
                name=target.claim_name,
                uid=target.claim_uid,
                expires=int(now + TOKEN_SECONDS),
            )
            known = self._signed[target.claim_uid] = _Token(text, now + TOKEN_SECONDS / 2)
        return known.text

    async def _enter(self, claim: SandboxClaimView) -> bool:
        annotations = (await self._own_key()).annotations
        meta = claim.metadata
        if meta.uid in self._entered or annotations.items() <= meta.annotations.items():
            return True
        patch = MergePatch({"metadata": {"uid": meta.uid, "annotations": annotations}})
        try:
            await self._kube.patch(SANDBOX_CLAIMS, meta.name, patch, meta.namespace)
        except ForbiddenError as error:
            _log.info("SandboxClaim %s/%s cannot be told of this client's key: %s", meta.namespace, meta.name, error)
            return False
        except KubeError as error:
            raise explain(error, f"adding a key to SandboxClaim {meta.namespace}/{meta.name}") from error
        if len(self._entered) >= _KEPT:
            self._entered.clear()
        self._entered.add(meta.uid)
        return True

    async def _own_key(self) -> AccessKey:
        if self._key is None:
            self._key = await anyio.to_thread.run_sync(load_key_blocking, self._options.access_key_file)
        return self._key

    async def _ask_for_kubernetes_token(self) -> str | None:
        account = self._options.router_service_account or await self._own_account()
        if account is None:
            return None
        namespace, _, name = account.rpartition("/")
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": [ROUTER_AUDIENCE], "expirationSeconds": _KUBERNETES_TOKEN_SECONDS},
        }
        path = f"/api/v1/namespaces/{namespace or self._options.namespace}/serviceaccounts/{name}/token"
        answer = await self._kube.request("POST", path, body=msgspec.json.encode(body))
        token: str | None = (msgspec.json.decode(answer.body).get("status") or {}).get("token")
        return token

    async def _own_account(self) -> str | None:
        """Namespace and name of the service account that this client is; None if it is a person."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        try:
            answer = await self._kube.request(
                "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=msgspec.json.encode(body)
            )
        except NotFoundError:
            return None  # Kubernetes before 1.28
        user = (msgspec.json.decode(answer.body).get("status") or {}).get("userInfo") or {}
        prefix, _, account = str(user.get("username", "")).partition("system:serviceaccount:")
        return account.replace(":", "/") if account and not prefix else None


def load_key_blocking(file: Path | str | None) -> AccessKey:
    """The client's key from its file, which is made if it is missing. Blocks.

    Args:
        file: None takes the usual file; where none can be kept (a read-only file system), the key lives in memory.

    Raises:
        SandboxConfigError: the file that was named cannot be used.
    """
    named = file or os.environ.get(ACCESS_KEY_FILE_VARIABLE)
    try:
        path = Path(named).expanduser() if named else _usual_file()
        with suppress(FileNotFoundError):
            return AccessKey.from_text(path.read_text(encoding="ascii"))
        return _make_key_file(path)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: an account without a home
        if named:
            raise SandboxConfigError(f"the access key {named} cannot be used: {error}") from error
        _log.info("this client's key is kept in memory only: %s", error)
        return AccessKey.generate()


def _usual_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if base.startswith("/") else Path("~/.config").expanduser()) / "agent-sandbox" / "access.key"


def _make_key_file(path: Path) -> AccessKey:
    key = AccessKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as writer:
            writer.write(key.text + "\n")
        os.link(draft, path)  # unlike a rename, this lets another program of the same user win
    except FileExistsError:
        return AccessKey.from_text(path.read_text(encoding="ascii"))
    finally:
        draft.unlink(missing_ok=True)
    return key
