"""Signed tokens open one sandbox, until their time is over, whichever of the current keys signed them."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox.router import RouterConfigError, TokenKeys
from agent_sandbox.router.errors import ForbiddenError, UnauthenticatedError

KEY, OTHER = b"k" * 32, b"o" * 32


class StillClock:
    """A clock that stands."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


def mint(keys: TokenKeys, **more: Any) -> str:
    return keys.mint(namespace="ns", name="mine", lifetime=timedelta(hours=1), **more)


def test_token_says_what_it_opens(clock: StillClock) -> None:
    keys = TokenKeys([KEY], clock=clock)

    scope = keys.read(mint(keys, uid="u", ports=[8888, 80]))

    assert (scope.namespace, scope.name, scope.uid, scope.ports) == ("ns", "mine", "u", frozenset({80, 8888}))
    scope.check(namespace="ns", name="mine", uid="u", port=80)


@pytest.mark.parametrize(
    "request_for",
    [
        {"namespace": "other", "name": "mine", "uid": "u", "port": 80},
        {"namespace": "ns", "name": "yours", "uid": "u", "port": 80},
        {"namespace": "ns", "name": "mine", "uid": "a-later-life", "port": 80},
        {"namespace": "ns", "name": "mine", "uid": "u", "port": 22},
    ],
)
def test_token_opens_nothing_else(clock: StillClock, request_for: dict[str, Any]) -> None:
    keys = TokenKeys([KEY], clock=clock)
    scope = keys.read(mint(keys, uid="u", ports=[80]))

    with pytest.raises(ForbiddenError):
        scope.check(**request_for)


def test_token_is_void_from_its_last_second_on(clock: StillClock) -> None:
    keys = TokenKeys([KEY], clock=clock)
    token = mint(keys)

    clock.time += timedelta(minutes=59, seconds=59)
    keys.read(token)
    clock.time += timedelta(seconds=1)
    with pytest.raises(UnauthenticatedError, match="expired"):
        keys.read(token)


def test_keys_rotate(clock: StillClock) -> None:
    old, both, new = (TokenKeys(keys, clock=clock) for keys in ([OTHER], [KEY, OTHER], [KEY]))

    assert both.read(mint(old)) == both.read(mint(both)) == new.read(mint(both))
    with pytest.raises(UnauthenticatedError):
        new.read(mint(old))


def test_token_of_the_go_router_is_read(clock: StillClock) -> None:
    body = json.dumps({"ns": "ns", "name": "mine", "exp": int(clock.time.timestamp()) + 5}).encode()
    payload = base64.urlsafe_b64encode(body).rstrip(b"=")
    mac = hmac.new(KEY, b"agent-sandbox/scoped-token/v1." + payload, hashlib.sha256).digest()
    token = b"v1." + payload + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")

    assert TokenKeys([KEY], clock=clock).read(token.decode()).name == "mine"


@given(st.data())
def test_no_changed_token_is_accepted(data: st.DataObject) -> None:
    keys = TokenKeys([KEY], clock=StillClock())
    token = mint(keys)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.characters(codec="latin-1").filter(lambda letter: letter != token[at]))
    forged = token[:at] + other + token[at + 1 :]

    # The last letter of a signature carries four bits only: another letter may say the same.
    if at == len(token) - 1 and base64.urlsafe_b64decode(token[-43:] + "=") == _decoded(forged[-43:]):
        return
    with pytest.raises(UnauthenticatedError):
        keys.read(forged)


def _decoded(text: str) -> bytes | None:
    try:
        return base64.urlsafe_b64decode(text + "=")
    except ValueError:
        return None


@given(st.text(max_size=200))
def test_any_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        TokenKeys([KEY], clock=StillClock()).read(text)


@pytest.mark.parametrize("body", [{}, [], {"ns": 1, "name": "n", "exp": 1}, {"ns": "n", "name": "", "exp": 9e12}, 7])
def test_signed_nonsense_is_refused(clock: StillClock, body: Any) -> None:
    payload = base64.urlsafe_b64encode(json.dumps(body).encode()).rstrip(b"=")
    mac = hmac.new(KEY, b"agent-sandbox/scoped-token/v1." + payload, hashlib.sha256).digest()
    token = b"v1." + payload + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")

    with pytest.raises(UnauthenticatedError):
        TokenKeys([KEY], clock=clock).read(token.decode())


@pytest.mark.parametrize("keys", [[], [b"short"], [KEY, b"short"]])
def test_short_keys_are_refused(clock: StillClock, keys: list[bytes]) -> None:
    with pytest.raises(RouterConfigError, match="32 bytes"):
        TokenKeys(keys, clock=clock)
