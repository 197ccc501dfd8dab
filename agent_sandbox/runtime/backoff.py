"""How long to wait after failures: per stream, and per key."""

import random
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from agent_sandbox.clock import Clock

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class BackoffOptions:
    """Exponential backoff of one stream; the defaults are those of client-go's reflector.

    Attributes:
        base: first pause in seconds, 0.8. Near zero it floods a server that is restarting.
        cap: longest pause before jitter, 30. Much more and recovery is felt late.
        factor: growth per failure, 2.
        jitter: up to this share is added at random, 1.0, so that a thousand clients do not return together.
        reset_after: seconds without failure after which the next pause is ``base`` again, 120.
    """

    base: float = 0.8
    cap: float = 30.0
    factor: float = 2.0
    jitter: float = 1.0
    reset_after: float = 120.0


class Backoff:
    """Counts the failures of one stream and says how long to pause."""

    def __init__(self, options: BackoffOptions, *, clock: Clock, random: random.Random) -> None:
        self._options = options
        self._clock = clock
        self._random = random
        self._pause = options.base
        self._last_failure: float | None = None

    def next_pause(self) -> float:
        """Note a failure; seconds to wait before trying again."""
        now = self._clock.monotonic()
        options = self._options
        if self._last_failure is not None and now - self._last_failure >= options.reset_after:
            self._pause = options.base
        self._last_failure = now
        pause = self._pause * (1 + options.jitter * self._random.random())
        self._pause = min(self._pause * options.factor, options.cap)
        return pause


ITEM_BASE: Final = 0.005
ITEM_CAP: Final = 1000.0


class ItemBackoff(Generic[K]):
    """Exponential backoff per key: 5 ms, 10 ms, ... to 1000 s, as controller-runtime's default rate limiter.

    No jitter, as there: keys that failed together were created together, and the spread comes from the work itself.
    """

    def __init__(self, base: float = ITEM_BASE, cap: float = ITEM_CAP) -> None:
        self._base = base
        self._cap = cap
        # Invariant: holds exactly the keys that failed since they were last forgotten, each with its number of
        # failures.
        self._failures: dict[K, int] = {}

    def next_pause(self, key: K) -> float:
        """Note a failure of this key; seconds to wait before trying it again."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # 2**64 seconds is beyond any cap: larger exponents would only overflow.
        return min(self._base * 2.0 ** min(failures, 64), self._cap)

    def forget(self, key: K) -> None:
        """The key succeeded, or is gone: its next failure counts as the first."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        """How often the key failed in a row."""
        return self._failures.get(key, 0)
