"""Asks Kubernetes about a caller: TokenReview says who it is, SubjectAccessReview whether it may reach this sandbox.

In: a Kubernetes token made for the router's audience, and the holder of a sandbox. Out: nothing, or a refusal. The
right is the verb ``create`` on ``sandboxclaims/connect`` (``sandboxes/connect`` where no claim holds the Sandbox), as
``pods/exec`` is for commands: a name that exists for RBAC only, so that it can be granted by itself and by claim.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar, cast

import anyio
import msgspec

from agent_sandbox.kube import KubeClient, KubeError
from agent_sandbox.router.errors import ForbiddenError, NotReadyError, UnauthenticatedError
from agent_sandbox_api.names import AGENTS_GROUP, EXTENSIONS_GROUP

REMEMBER: Final = 30.0
"""Seconds for which an answer counts: so long a right that was taken away may still be used."""
REMEMBERED: Final = 2048
AT_ONCE: Final = 8
"""Questions to the API server at one time: strangers with invented tokens cannot flood it through us."""

User = dict[str, Any]
T = TypeVar("T")


class Reviewer:
    """Remembers answers for a moment; tokens are kept as hashes only.

    Guarantees:
        Without a clear yes the answer is no. An API server that cannot be asked is a refusal which may be repeated.

    Args:
        audiences: a token must be for one of them, so that a program's token for the API server, which it should show
            to nobody else, opens nothing here.
    """

    def __init__(self, kube: KubeClient, *, audiences: Sequence[str]) -> None:
        self._kube = kube
        self._audiences = list(audiences)
        self._users: _Remembered[User | None] = _Remembered()
        self._rights: _Remembered[bool] = _Remembered()
        self._slots = anyio.CapacityLimiter(AT_ONCE)

    async def authenticate(self, token: str) -> User:
        """Who the token belongs to.

        Raises:
            UnauthenticatedError: to nobody, or it is for another audience.
            NotReadyError: the API server cannot be asked.
        """
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._users.get(key)
        if known is None:
            async with self._slots:
                known = self._users.get(key)  # another request may have asked while we waited
                if known is None:
                    known = (await self._who(token),)
                    self._users.put(key, known[0])
        if known[0] is None:
            raise UnauthenticatedError(f"Invalid token: it must be one for the audience {self._audiences[0]}.")
        return known[0]

    async def authorise(self, user: User, *, namespace: str, name: str, claimed: bool) -> None:
        """Let the user reach that claim, or that bare Sandbox.

        Raises:
            ForbiddenError: it may not.
            NotReadyError: the API server cannot be asked.
        """
        group, resource = (EXTENSIONS_GROUP, "sandboxclaims") if claimed else (AGENTS_GROUP, "sandboxes")
        key = hashlib.sha256(msgspec.json.encode([user, namespace, name, claimed])).digest()
        known = self._rights.get(key)
        if known is None:
            attributes = {
                "group": group,
                "resource": resource,
                "subresource": "connect",
                "verb": "create",
                "namespace": namespace,
                "name": name,
            }
            async with self._slots:
                known = self._rights.get(key)
                if known is None:
                    known = (await self._may(user, attributes),)
                    self._rights.put(key, known[0])
        if not known[0]:
            raise ForbiddenError(
                f"{user.get('username', '')} may not reach {resource} {namespace}/{name}: "
                f"it needs the verb create on {resource}/connect in {group}."
            )

    async def _who(self, token: str) -> User | None:
        spec = {"token": token, "audiences": self._audiences}
        status = await self._ask("authentication.k8s.io", "TokenReview", spec)
        # An API server that does not know of audiences would say yes to any token.
        meant = set(status.get("audiences") or ()) & set(self._audiences)
        user: User = status.get("user") or {}
        return user if status.get("authenticated") is True and meant and user.get("username") else None

    async def _may(self, user: User, attributes: dict[str, str]) -> bool:
        spec = {
            "user": user["username"],
            "uid": user.get("uid", ""),
            "groups": user.get("groups") or [],
            "extra": user.get("extra") or {},
            "resourceAttributes": attributes,
        }
        status = await self._ask("authorization.k8s.io", "SubjectAccessReview", spec)
        return status.get("allowed") is True and status.get("denied") is not True

    async def _ask(self, group: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        body = msgspec.json.encode({"apiVersion": f"{group}/v1", "kind": kind, "spec": spec})
        try:
            answer = await self._kube.request("POST", f"/apis/{group}/v1/{kind.lower()}s", body=body)
            status: dict[str, Any] = msgspec.json.decode(answer.body).get("status") or {}
        except (KubeError, msgspec.DecodeError) as error:
            raise NotReadyError("The API server cannot be asked about this credential.", retry_after=1) from error
        return status


class _Remembered(Generic[T]):
    """The newest answers, each for `REMEMBER` seconds."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def get(self, key: bytes) -> tuple[T] | None:
        """The answer in a tuple of its own, since it may be None itself; None if there is none."""
        until, answer = self._answers.get(key, (0.0, None))
        return (cast("T", answer),) if anyio.current_time() < until else None

    def put(self, key: bytes, answer: T) -> None:
        self._answers[key] = (anyio.current_time() + REMEMBER, answer)
        self._answers.move_to_end(key)
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
