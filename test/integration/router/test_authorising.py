"""A credential for one sandbox opens that one only, by every name it has."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_sandbox.clock import SystemClock
from agent_sandbox.router import TokenKeys

KEY, NEW_KEY = b"k" * 40, b"n" * 40


def request(identifier: str, token: str | None, port: int = 1, namespace: str = "default") -> bytes:
    credential = f"X-Sandbox-Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"GET / HTTP/1.1\r\nHost: f\r\nX-Sandbox-ID: {identifier}\r\nX-Sandbox-Namespace: {namespace}\r\n"
        f"X-Sandbox-Port: {port}\r\n{credential}Connection: close\r\n\r\n"
    ).encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


def token_for(name: str, key: bytes = KEY, **more: Any) -> str:
    keys = TokenKeys([key], clock=SystemClock())
    settings: dict[str, Any] = {"namespace": "default", "lifetime": timedelta(days=1), **more}
    return keys.mint(name=name, **settings)


def write(file: Path, content: bytes) -> None:
    file.write_bytes(content)


async def greet(visit: Any) -> None:
    await visit.head()
    await visit.answer()


async def greet_again(visit: Any) -> None:
    while True:
        await visit.head()
        await visit.answer()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_bytes(KEY + b"\n")
    return file


async def test_tenants_credential_opens_its_own_sandbox_only(run_router: Any, key_file: Path) -> None:
    async with run_router(unsafe_allow_all=False, key_file=key_file) as place:
        a = await place.sandbox(greet, "a")
        b = await place.sandbox(greet, "b")
        mine = token_for("a", uid="a-uid")

        assert status_of(await place.ask(request("a", mine, a.port))) == 200
        assert status_of(await place.ask(request("a-uid", mine, a.port))) == 200
        for stranger in ("b", "b-uid", "missing"):
            assert status_of(await place.ask(request(stranger, mine, b.port))) == 403
        assert status_of(await place.ask(request("a", mine, a.port, namespace="other"))) == 403
        assert b.visits == 0


@pytest.mark.parametrize(
    ("token", "status"),
    [
        (None, 401),
        ("garbage", 401),
        (token_for("a", lifetime=timedelta(seconds=-1)), 401),
        (token_for("a", key=NEW_KEY), 401),
        (token_for("a", uid="an-earlier-life"), 403),
        (token_for("a", ports=[22]), 403),
        (token_for("a", namespace="other"), 403),
    ],
)
async def test_credential_that_does_not_fit_is_refused_before_anything_is_dialled(
    run_router: Any, key_file: Path, token: str | None, status: int
) -> None:
    async with run_router(unsafe_allow_all=False, key_file=key_file) as place:
        a = await place.sandbox(greet, "a")

        assert status_of(await place.ask(request("a", token, a.port))) == status
        assert a.visits == 0


async def test_keys_rotate_while_the_router_runs(
    run_router: Any, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_sandbox.router.credentials.CHECK_INTERVAL", 0.0)
    async with run_router(unsafe_allow_all=False, key_file=key_file) as place:
        a = await place.sandbox(greet, "a")
        before = status_of(await place.ask(request("a", token_for("a", NEW_KEY), a.port)))
        write(key_file, NEW_KEY + b"\n" + KEY + b"\n")
        both = [status_of(await place.ask(request("a", token_for("a", key), a.port))) for key in (NEW_KEY, KEY)]
        write(key_file, b"")
        emptied = status_of(await place.ask(request("a", token_for("a", NEW_KEY), a.port)))

    assert (before, both, emptied) == (401, [200, 200], 200)


async def test_routers_own_token_opens_all_beside_signed_ones(run_router: Any, key_file: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("master\n")
    async with run_router(unsafe_allow_all=False, key_file=key_file, token_file=tmp_path / "tokens") as place:
        a = await place.sandbox(greet, "a")

        assert status_of(await place.ask(request("a", "master", a.port))) == 200
        assert status_of(await place.ask(request("a", token_for("a"), a.port))) == 200
        assert status_of(await place.ask(request("a", token_for("b"), a.port))) == 403


async def test_address_of_a_pod_that_went_is_not_dialled_for_its_earlier_owner(run_router: Any) -> None:
    """The Pod of `a` goes, and its address is given to `b`: a kept connection or an old answer must not lead there."""
    async with run_router() as place:
        a = await place.sandbox(greet, "a")
        assert status_of(await place.ask(request("a", None, a.port))) == 200
        place.forget_pod("a")

        answer = await place.ask(request("a", None, a.port))

        assert status_of(answer) == 503
        assert a.visits == 1


async def test_address_given_to_another_tenants_pod_between_two_requests_is_not_dialled_for_the_first(
    run_router: Any,
) -> None:
    """Kept connections belong to a Pod, not to an address: the second request of `a` must not arrive at `b`."""
    async with run_router() as place:
        a = await place.sandbox(greet_again, "a")
        assert status_of(await place.ask(request("a", None, a.port))) == 200
        place.forget_pod("a")
        place.learn_of_pod("b")  # the same address, and behind it the same server

        first = await place.ask(request("a", None, a.port))
        assert (status_of(first), a.visits) == (503, 1)
        second = await place.ask(request("b", None, a.port))
        assert (status_of(second), a.visits) == (200, 2), "b's Pod gets a connection of its own"


@pytest.mark.parametrize("name", ["b", "nobody"])
async def test_refusal_takes_as_long_for_a_sandbox_that_exists_as_for_one_that_does_not(
    run_router: Any, key_file: Path, name: str
) -> None:
    async with run_router(unsafe_allow_all=False, key_file=key_file, wait_unknown=0.2) as place:
        await place.sandbox(greet, "b")
        began = anyio.current_time()

        assert status_of(await place.ask(request(name, token_for("a")))) == 403
        assert anyio.current_time() - began >= 0.2


@pytest.mark.parametrize("header", ["X-Sandbox-Pod-IP: 203.0.113.9", "X-Sandbox-UID: b-uid", "X-Forwarded-Host: b"])
async def test_addresses_and_identities_from_the_caller_change_nothing(run_router: Any, header: str) -> None:
    async with run_router() as place:
        a = await place.sandbox(greet, "a")
        b = await place.sandbox(greet, "b")
        asked = request("a", None, a.port).replace(b"Host: f\r\n", b"Host: f\r\n" + header.encode() + b"\r\n")

        assert status_of(await place.ask(asked)) == 200
        assert (a.visits, b.visits) == (1, 0)


NOT_NAMES = ["127.0.0.1:80/x?", "a/../b", "a b", "a%2Fb", "A", "-a", "a..b", "a\tb", "é", "٣", "a" * 300]


@pytest.mark.parametrize("name", ["X-Sandbox-ID", "X-Sandbox-Namespace", "X-Sandbox-Port", "X-Sandbox-Timeout"])
@pytest.mark.parametrize("value", [*NOT_NAMES, "1e3", "0x50", "99999"])
async def test_no_routing_header_leads_anywhere_but_to_a_sandbox(run_router: Any, name: str, value: str) -> None:
    async with run_router() as place:
        a = await place.sandbox(greet, "a")
        headers = {"X-Sandbox-ID": "a", "X-Sandbox-Port": str(a.port), name: value}
        lines = "".join(f"{key}: {text}\r\n" for key, text in headers.items())
        answer = await place.ask(f"GET / HTTP/1.1\r\nHost: f\r\nConnection: close\r\n{lines}\r\n".encode())
        harmless = (name, value) == ("X-Sandbox-Timeout", "99999")
        unknown = value not in NOT_NAMES and name in ("X-Sandbox-ID", "X-Sandbox-Namespace")

        assert status_of(answer) == (200 if harmless else 404 if unknown else 400)
        assert a.visits == int(harmless)
