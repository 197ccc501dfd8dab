"""The client obtains its credential by itself, from the first request on, and shows it to the router only."""

import base64
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import msgspec
import pytest

from agent_sandbox.clock import SystemClock
from agent_sandbox.kube import KubeClient, RawResponse
from agent_sandbox.router import AuthzMode, Directory, Router, RouterOptions
from agent_sandbox.runtime import Cache
from agent_sandbox.sdk import AsyncSandboxes, ConnectionOptions, SandboxConfigError, SandboxError, SandboxGoneError
from agent_sandbox.sdk.credentials import TOKEN_SECONDS, Credentials, load_key_blocking
from agent_sandbox.sdk.lifetime import ServerClock
from agent_sandbox.sdk.wire import Target
from agent_sandbox.testing.faults import FaultyTransport
from agent_sandbox.testing.pretend_cluster import PretendCluster
from agent_sandbox_api.access import AccessKey, access_keys_of
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS

CLAIM_KEY = (AuthzMode.CLAIM_KEY,)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@asynccontextmanager
async def router_of(
    cluster: PretendCluster, authz: tuple[AuthzMode, ...] = CLAIM_KEY, kube: KubeClient | None = None
) -> AsyncIterator[str]:
    """A real router in front of the cluster's Pods; gives its URL."""
    cluster.with_pods, cluster.pod_ip = True, "127.0.0.1"
    directory = Directory()
    cache = Cache(KubeClient(cluster.api.transport()), clock=SystemClock())
    directory.follow(cache)
    options = RouterOptions(port=0, authz=authz, drain_timeout=0.2, wait_unknown=1)
    async with anyio.create_task_group() as tasks:
        await tasks.start(cache.run)
        await cache.wait_until_synced(10)
        yield await tasks.start(Router(directory, options=options, kube=kube).serve)
        tasks.cancel_scope.cancel()


def options_of(cluster: PretendCluster, url: str, kube: KubeClient | None = None, **more: Any) -> ConnectionOptions:
    return ConnectionOptions(kube=kube or cluster.kube, api_url=url, server_port=port_of(cluster.api_url), **more)


async def test_a_claim_is_made_with_the_key_that_opens_it_and_no_further_write(cluster: PretendCluster) -> None:
    wire = FaultyTransport(cluster.api.transport())
    async with router_of(cluster) as url:
        options = options_of(cluster, url, KubeClient(wire), headers={"Authorization": "Bearer of-the-application"})
        async with AsyncSandboxes(options=options) as sandboxes, sandboxes.use("python") as sandbox:
            assert (await sandbox.run("echo 42")).stdout == "42\n"
            writes = [(seen.method, seen.path.rpartition("/")[2]) for seen in wire.seen if seen.method != "GET"]

    assert writes == [("POST", "sandboxclaims")]
    arrived = cluster.requests[-1]
    assert arrived["Authorization"] == "Bearer of-the-application"
    assert not [name for name in arrived if name.lower().startswith("x-sandbox-")], "the credential ends at the router"


async def test_another_program_of_the_same_user_needs_no_write_and_one_with_another_key_needs_one(
    cluster: PretendCluster, tmp_path: Path
) -> None:
    async with router_of(cluster) as url:
        async with AsyncSandboxes(options=options_of(cluster, url)) as first:
            name = (await first.create("python")).claim_name
        wire = FaultyTransport(cluster.api.transport())
        async with AsyncSandboxes(options=options_of(cluster, url, KubeClient(wire))) as same:
            assert (await (await same.connect(name)).run("echo 1")).stdout == "1\n"
        assert [seen.method for seen in wire.seen if seen.method != "GET"] == []
        options = options_of(cluster, url, KubeClient(wire), access_key_file=tmp_path / "other")
        async with AsyncSandboxes(options=options) as other:
            assert (await (await other.connect(name)).run("echo 2")).stdout == "2\n"
        assert [seen.method for seen in wire.seen if seen.method != "GET"] == ["PATCH"]


async def test_a_sandbox_that_is_gone_is_gone_and_no_matter_of_permission(cluster: PretendCluster) -> None:
    async with (
        router_of(cluster) as url,
        AsyncSandboxes(options=options_of(cluster, url)) as sandboxes,
    ):
        sandbox = await sandboxes.create("python")
        await sandbox.run("true")
        await sandbox.delete()
        with pytest.raises(SandboxGoneError):
            await sandbox.run("true", timeout=60)


async def test_a_signed_url_opens_one_port_for_a_browser_and_for_a_while(cluster: PretendCluster) -> None:
    async with (
        router_of(cluster) as url,
        AsyncSandboxes(options=options_of(cluster, url)) as sandboxes,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser,
    ):
        sandbox = await sandboxes.create("python")
        port = port_of(cluster.api_url)
        link = await sandbox.ports.signed_url(port, "/v1/health?x=1")
        front = link.partition("/v1/")[0]
        async with browser.get(f"{front}/v1/health") as uninvited:
            assert uninvited.status == 401
        async with browser.get(link) as page:
            assert (page.status, str(page.url)) == (200, f"{front}/v1/health?x=1")
        async with browser.get(f"{front}/v1/health") as again:
            assert again.status == 200
        other = link.replace(f"/{port}/", f"/{port + 1}/")
        async with browser.get(other) as other_port:
            assert other_port.status == 403
        past = await sandbox.ports.signed_url(port, seconds=0.001)
        async with aiohttp.request("GET", past) as expired:
            assert expired.status == 401
        with pytest.raises(ValueError, match="slash"):
            await sandbox.ports.signed_url(port, "v1")


async def test_signed_headers_open_one_port_and_can_be_handed_on(cluster: PretendCluster) -> None:
    async with (
        router_of(cluster) as url,
        AsyncSandboxes(options=options_of(cluster, url, headers={"Authorization": "mine"})) as sandboxes,
    ):
        sandbox = await sandboxes.create("python")
        port = port_of(cluster.api_url)
        headers = await sandbox.ports.signed_headers(port, seconds=60)

        async with aiohttp.request("GET", f"{sandbox.ports.url(port)}/v1/health", headers=headers) as answer:
            assert answer.status == 200
        elsewhere = {**headers, "X-Sandbox-Port": str(port + 1)}
        async with aiohttp.request("GET", f"{sandbox.ports.url(port)}/", headers=elsewhere) as answer:
            assert answer.status == 403
        assert "Authorization" not in headers


async def test_a_signed_url_has_a_host_where_the_router_has_a_domain(cluster: PretendCluster) -> None:
    options = options_of(cluster, "https://router.example:8443", router_domain="box.example:8443")
    async with AsyncSandboxes(options=options) as sandboxes:
        sandbox = await sandboxes.create("python", name="mine")
        long = await sandboxes.create("python", name="x" * 54)

        link = await sandbox.ports.signed_url(3000)
        assert link.startswith("https://3000-mine-default.box.example:8443/?agent-sandbox-token=v2.")
        assert (await long.ports.signed_url(3000)).startswith("https://router.example:8443/sandboxes/default/xxx")


async def test_a_signed_url_needs_a_router(cluster: PretendCluster) -> None:
    async with AsyncSandboxes(options=ConnectionOptions(kube=cluster.kube, mode="pod")) as sandboxes:
        sandbox = await sandboxes.create("python")
        with pytest.raises(SandboxConfigError, match="router"):
            await sandbox.ports.signed_url(3000)


class Accounts(FaultyTransport):
    """An API server that knows service accounts: this client is one, and may have tokens for the router."""

    async def request(self, method: str, path: str, **rest: Any) -> Any:
        answer: dict[str, Any]
        body = msgspec.json.decode(rest["body"]) if rest.get("body") else {}
        match path.rpartition("/")[2]:
            case "selfsubjectreviews":
                answer = {"userInfo": {"username": "system:serviceaccount:default:agent"}}
            case "token":
                assert path == "/api/v1/namespaces/default/serviceaccounts/agent/token"
                answer = {"token": f"jwt-for-{body['spec']['audiences'][0]}"}
            case "tokenreviews":
                good = body["spec"]["token"] == "jwt-for-agent-sandbox-router"
                answer = {"authenticated": good, "audiences": body["spec"]["audiences"], "user": {"username": "agent"}}
            case "subjectaccessreviews":
                answer = {"allowed": True}
            case _:
                return await super().request(method, path, **rest)
        return RawResponse(201, {}, msgspec.json.encode({"status": answer}))


async def test_a_router_that_takes_kubernetes_tokens_only_gets_one_without_being_told(cluster: PretendCluster) -> None:
    kube = KubeClient(Accounts(cluster.api.transport()))
    async with (
        router_of(cluster, (AuthzMode.TOKENREVIEW,), kube) as url,
        AsyncSandboxes(options=options_of(cluster, url, kube)) as sandboxes,
    ):
        sandbox = await sandboxes.create("python")
        assert (await sandbox.run("sh -c 'echo once >> runs; cat runs'")).stdout == "once\n"
        assert (await sandbox.run("echo 2")).stdout == "2\n"


class _Behind(SystemClock):
    """A machine whose clock is a day late."""

    def now(self) -> Any:
        return super().now() - timedelta(days=1)


class TellsTheTime(FaultyTransport):
    """An API server with a ``Date`` in its answers, as those have that are reached over HTTP."""

    async def request(self, method: str, path: str, **rest: Any) -> Any:
        answer = await super().request(method, path, **rest)
        return RawResponse(answer.status, {**answer.headers, "Date": formatdate(usegmt=True)}, answer.body)


async def test_a_client_whose_clock_is_wrong_learns_the_time_and_gets_in(
    cluster: PretendCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_sandbox.sdk.lifetime.SystemClock", _Behind)
    kube = KubeClient(TellsTheTime(cluster.api.transport()))
    async with router_of(cluster) as url, AsyncSandboxes(options=options_of(cluster, url, kube)) as sandboxes:
        sandbox = await sandboxes.create("python")
        assert (await sandbox.run("echo 42")).stdout == "42\n"


class _Moved(SystemClock):
    """A clock that a test puts forward."""

    seconds = 0.0

    def now(self) -> Any:
        return super().now() + timedelta(seconds=self.seconds)


async def test_a_token_is_signed_anew_when_half_of_its_life_has_passed(cluster: PretendCluster) -> None:
    clock = _Moved()
    options = ConnectionOptions(kube=cluster.kube)
    credentials = Credentials(cluster.kube, options, ServerClock(cluster.kube, clock))
    await credentials.for_new_claim()
    target = Target("default", "box", claim_name="mine", claim_uid="uid")

    first = credentials.authorization(target)
    clock.seconds = TOKEN_SECONDS / 2 - 60
    assert credentials.authorization(target) == first
    clock.seconds = TOKEN_SECONDS / 2 + 60
    assert credentials.authorization(target) != first


async def test_a_key_is_added_to_the_claim_that_was_meant_and_to_no_other_of_its_name(cluster: PretendCluster) -> None:
    spec = {"sandboxTemplateRef": {"name": "python"}}
    body = {"metadata": {"name": "mine"}, "spec": spec}
    made = await cluster.kube.create(SANDBOX_CLAIMS, body, "default")
    former = msgspec.structs.replace(made.metadata, uid="of-the-claim-that-had-the-name-before")
    meant = msgspec.structs.replace(made, metadata=former)
    options = ConnectionOptions(kube=cluster.kube)

    with pytest.raises(SandboxError):
        await Credentials(cluster.kube, options, ServerClock(cluster.kube)).enter(meant)

    another = await cluster.kube.get(SANDBOX_CLAIMS, "mine", "default")
    assert access_keys_of(another.metadata.annotations) == {}


def test_the_key_is_made_once_readable_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "config" / "access.key"
    first, second = load_key_blocking(file), load_key_blocking(file)

    assert first.annotations == second.annotations
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["access.key"]
    assert first.text not in repr(first)


@pytest.mark.parametrize("content", ["", "not base64url!", "AAAA"])
def test_a_damaged_key_that_was_named_is_an_error_that_names_it(tmp_path: Path, content: str) -> None:
    file = tmp_path / "access.key"
    file.write_text(content)
    with pytest.raises(SandboxConfigError, match=r"access\.key"):
        load_key_blocking(file)


@pytest.mark.parametrize("home", ["file", None])
def test_where_no_file_can_be_kept_the_key_lives_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    """A read-only file system, and an account without a home."""
    monkeypatch.delenv("AGENT_SANDBOX_ACCESS_KEY_FILE")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "file").write_text("")

    def homeless(_: Path) -> Path:
        if home is None:
            raise RuntimeError("Could not determine home directory.")
        return tmp_path / home

    monkeypatch.setattr(Path, "expanduser", homeless)

    assert isinstance(load_key_blocking(None), AccessKey)


def test_a_token_says_what_it_opens_and_nothing_secret() -> None:
    key = AccessKey.generate()
    token = key.sign(namespace="n", name="c", uid="u", expires=1, ports=(2,))
    body = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))

    assert {name: body[name] for name in ("ns", "name", "uid", "exp", "ports")} == {
        "ns": "n",
        "name": "c",
        "uid": "u",
        "exp": 1,
        "ports": [2],
    }
    assert key.text not in token
