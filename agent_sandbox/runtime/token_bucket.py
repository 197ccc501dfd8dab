"""How often something may happen: some times at once, and then at a steady pace."""


class TokenBucket:
    """``burst`` at once, one more each ``refill`` seconds."""

    def __init__(self, *, burst: int, refill: float, now: float) -> None:
        self._burst = float(burst)
        self._refill = refill
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> bool:
        """True if there was a token."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) / self._refill)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
