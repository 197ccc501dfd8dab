"""How much one sandbox may get at once: requests on their way, and requests per second.

A limit protects the other sandboxes' share of the router, and a sandbox from its own clients. It is counted per claim
(or bare Sandbox), after its name was resolved: names that do not exist cost no memory here.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from agent_sandbox.router.directory import Holder
from agent_sandbox.router.errors import RateLimitedError

MANY: Final = 1024
"""Accounts from which on those of sandboxes at rest are forgotten."""


@dataclass
class _Account:
    running: int = 0
    # Requests that may begin now; refilled with time, up to the burst.
    tokens: float = 0.0
    refilled: float = 0.0


class Limits:
    """Counts per sandbox.

    Args:
        concurrent: requests on their way at once; None means no limit.
        rate: requests per second in the long run; None means no limit.
        burst: requests that may come at once after a rest.
    """

    def __init__(self, *, concurrent: int | None, rate: float | None, burst: int) -> None:
        self._concurrent = concurrent
        self._rate = rate
        self._burst = burst
        self._accounts: dict[str, _Account] = {}

    @contextmanager
    def slot(self, holder: Holder) -> Iterator[None]:
        """Hold while a request is on its way.

        Raises:
            RateLimitedError: the sandbox has as many as it may; `retry_after` says when to come again.
        """
        if self._concurrent is None and self._rate is None:
            yield
            return
        account = self._accounts.get(holder.uid)
        if account is None:
            self._forget_rested()
            account = self._accounts[holder.uid] = _Account(tokens=self._burst, refilled=_now())
        self._take(account, holder)
        account.running += 1
        try:
            yield
        finally:
            account.running -= 1

    def _take(self, account: _Account, holder: Holder) -> None:
        if self._concurrent is not None and account.running >= self._concurrent:
            raise RateLimitedError(
                f"Sandbox {holder.name} has {self._concurrent} requests on their way, as many as it may.",
                retry_after=1,
            )
        if self._rate is None:
            return
        self._refill(account)
        if account.tokens < 1:
            wait = math.ceil((1 - account.tokens) / self._rate)
            raise RateLimitedError(
                f"Sandbox {holder.name} gets more than {self._rate:g} requests per second.", retry_after=wait
            )
        account.tokens -= 1

    def _refill(self, account: _Account) -> None:
        now = _now()
        account.tokens = min(self._burst, account.tokens + (now - account.refilled) * (self._rate or 0))
        account.refilled = now

    def _forget_rested(self) -> None:
        """Forget accounts that are as good as new, when there are many."""
        if len(self._accounts) < MANY:
            return
        for uid, account in list(self._accounts.items()):
            self._refill(account)
            if not account.running and (self._rate is None or account.tokens >= self._burst):
                del self._accounts[uid]


def _now() -> float:
    return anyio.current_time()
