"""Kubernetes tokens: TokenReview says who, SubjectAccessReview whether that one may reach this very claim."""

from typing import Any

import msgspec
import pytest

from agent_sandbox.kube import KubeClient, RawResponse
from agent_sandbox.router import AuthzMode, Directory, Router, RouterConfigError, RouterOptions
from agent_sandbox.testing.apiserver import InMemoryApiServer
from agent_sandbox.testing.faults import FaultyTransport

AUDIENCE = "agent-sandbox-router"


class Reviews(FaultyTransport):
    """Answers reviews as an API server would whose RBAC lets Ann create sandboxclaims/connect for the claim ``a``."""

    broken = False

    async def request(self, method: str, path: str, **rest: Any) -> Any:
        self._note(method, path, None, watch=False)
        if self.broken:
            return RawResponse(500, {}, b"{}")
        spec = msgspec.json.decode(rest["body"])["spec"]
        status: dict[str, Any] = {}
        if path.endswith("tokenreviews"):
            # An audience that the token is not for is no error but another set of audiences.
            meant = [AUDIENCE] if spec["token"] in ("ann", "bob") else ["https://kubernetes.default.svc"]
            known = spec["token"] in ("ann", "bob", "ann-for-the-api-server")
            status = {"authenticated": known, "audiences": meant, "user": {"username": spec["token"], "groups": ["g"]}}
        else:
            wanted = {
                "group": "extensions.agents.x-k8s.io",
                "resource": "sandboxclaims",
                "subresource": "connect",
                "verb": "create",
                "namespace": "default",
                "name": "a",
            }
            allowed = spec["user"] == "ann" and spec["groups"] == ["g"] and spec["resourceAttributes"] == wanted
            status = {"allowed": allowed}
        return RawResponse(201, {}, msgspec.json.encode({"status": status}))


def request(name: str, port: int, token: str) -> bytes:
    return (
        f"GET / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: {name}\r\nX-Sandbox-Port: {port}\r\n"
        f"X-Sandbox-Authorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    ).encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


async def greet(visit: Any) -> None:
    await visit.head()
    await visit.answer()


async def test_only_whom_rbac_lets_reach_this_claim_gets_there(run_router: Any) -> None:
    async with InMemoryApiServer() as server:
        wire = Reviews(server.transport())
        async with run_router(authz=(AuthzMode.TOKENREVIEW,), kube=KubeClient(wire)) as place:
            a = await place.claimed(greet, "a")
            b = await place.claimed(greet, "b")
            for name in ("a", "a-uid", "a-box", "a-box-uid"):
                assert status_of(await place.ask(request(name, a.port, "ann"))) == 200
            asked = len(wire.seen)
            refused = {
                (name, token): status_of(await place.ask(request(name, b.port, token)))
                for name, token in (
                    ("b", "ann"),
                    ("b-box", "ann"),
                    ("a", "bob"),
                    ("a", "stranger"),
                    ("a", "ann-for-the-api-server"),
                    ("nobody", "ann"),
                )
            }

    assert asked == 2, "one token, one claim: one question each"
    assert list(refused.values()) == [403, 403, 403, 401, 401, 403]
    assert b.visits == 0


async def test_without_an_answer_nobody_passes(run_router: Any) -> None:
    async with InMemoryApiServer() as server:
        wire = Reviews(server.transport())
        wire.broken = True
        async with run_router(authz=(AuthzMode.TOKENREVIEW,), kube=KubeClient(wire)) as place:
            a = await place.claimed(greet, "a")
            answer = await place.ask(request("a", a.port, "ann"))
            wire.broken = False
            later = await place.ask(request("a", a.port, "ann"))

    assert status_of(answer) == 503
    assert b"X-Sandbox-Error: not-ready" in answer
    assert status_of(later) == 200
    assert a.visits == 1


async def test_modes_stand_beside_each_other(run_router: Any) -> None:
    async with InMemoryApiServer() as server:
        modes = (AuthzMode.CLAIM_KEY, AuthzMode.TOKENREVIEW)
        async with run_router(authz=modes, kube=KubeClient(Reviews(server.transport()))) as place:
            a = await place.claimed(greet, "a")

            assert status_of(await place.ask(request("a", a.port, "ann"))) == 200
            assert status_of(await place.ask(request("a", a.port, "v2.x.y"))) == 401


async def test_router_with_nobody_to_ask_does_not_start() -> None:
    with pytest.raises(RouterConfigError, match="API server"):
        Router(Directory(), options=RouterOptions(authz=(AuthzMode.TOKENREVIEW,)))
