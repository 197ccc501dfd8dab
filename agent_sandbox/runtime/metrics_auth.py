"""Lets only those scrape metrics whom Kubernetes' RBAC lets: TokenReview says who, SubjectAccessReview says whether.

As controller-runtime's ``WithAuthenticationAndAuthorization``: the caller sends a bearer token, and needs the verb
``get`` on the non-resource URL, for example by a ClusterRole with ``nonResourceURLs: ["/metrics"]``.
"""

import hashlib
from collections import OrderedDict
from typing import Any, Final

import msgspec
import structlog
from aiohttp import web

from agent_sandbox.clock import Clock
from agent_sandbox.kube import KubeClient, KubeError
from agent_sandbox.runtime.token_bucket import TokenBucket

log = structlog.get_logger(__name__)

REMEMBER: Final = 60.0
"""Seconds for which an answer counts. A scrape each 15 s then costs the API server one question a minute."""
REMEMBERED_CALLERS: Final = 256
"""Of those who were let in, and again of those who were not: strangers with ever new tokens push out no scraper."""

QUESTIONS_AT_ONCE: Final = 20
QUESTION_REFILL: Final = 0.2
"""Callers about whom the API server is asked: so many at once, then one each so many seconds. Whoever reaches the port
can send tokens that nobody knows.
"""


class KubernetesAuthorizer:
    """Asks the API server about each caller.

    Guarantees:
        Without a clear yes the answer is no; an API server that cannot be reached is a no, with status 503. Tokens
        are kept as hashes only. Strangers cost the API server a bounded number of questions; what is beyond gets 429.
    """

    def __init__(self, client: KubeClient, *, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        # By hash of token and path: until when, and the status of the refusal (200: none).
        self._admitted: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[float, int]] = OrderedDict()
        self._questions = TokenBucket(burst=QUESTIONS_AT_ONCE, refill=QUESTION_REFILL, now=clock.monotonic())

    async def __call__(self, request: web.Request) -> web.Response | None:
        """None lets the request pass."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return web.Response(status=401, text="send a bearer token\n", headers={"WWW-Authenticate": "Bearer"})
        key = hashlib.sha256(f"{request.path}\0{token}".encode()).digest()
        known = self._admitted.get(key) or self._refused.get(key)
        now = self._clock.monotonic()
        if known is not None and now < known[0]:
            return _refusal(known[1])
        if not self._questions.take(now):
            return web.Response(status=429, text="too many unknown callers\n", headers={"Retry-After": "1"})
        try:
            status = await self._ask(token, request.path)
        except KubeError as error:
            log.warning("nobody can say who may scrape", error=str(error))
            return web.Response(status=503, text="the API server cannot be asked\n")
        self._remember(key, status)
        return _refusal(status)

    def _remember(self, key: bytes, status: int) -> None:
        for answers in (self._admitted, self._refused):
            answers.pop(key, None)
        answers = self._admitted if status == 200 else self._refused
        answers[key] = (self._clock.monotonic() + REMEMBER, status)
        while len(answers) > REMEMBERED_CALLERS:
            answers.popitem(last=False)

    async def _ask(self, token: str, path: str) -> int:
        review = await self._review("authentication.k8s.io", "TokenReview", {"token": token})
        if not review.get("authenticated"):
            return 401
        user = review.get("user") or {}
        spec = {
            "user": user.get("username", ""),
            "uid": user.get("uid", ""),
            "groups": user.get("groups") or [],
            "extra": user.get("extra") or {},
            "nonResourceAttributes": {"path": path, "verb": "get"},
        }
        access = await self._review("authorization.k8s.io", "SubjectAccessReview", spec)
        return 200 if access.get("allowed") else 403

    async def _review(self, group: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
        body = msgspec.json.encode({"apiVersion": f"{group}/v1", "kind": kind, "spec": spec})
        answer = await self._client.request("POST", f"/apis/{group}/v1/{kind.lower()}s", body=body)
        status: dict[str, Any] = msgspec.json.decode(answer.body).get("status") or {}
        return status


def _refusal(status: int) -> web.Response | None:
    if status == 200:
        return None
    return web.Response(status=status, text="this token may not read metrics\n")
