"""The line in front of the pools: which members are being looked at, and which claims wait for the next one.

Two claims never try the same member at once, although the server would sort them out: the loser would have paid a
write. A claim that waits is woken when a member becomes Ready, the longest waiting first; nobody polls.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from agent_sandbox.runtime import Request


class Line:
    """Reservations and waiting claims, in memory. A restart forgets them, and everybody asks again."""

    def __init__(self) -> None:
        self._reserved: set[str] = set()
        # Per pool, or per template for claims that take any pool: waiting claims in the order of their coming.
        self._waiting: dict[str, dict[Request, None]] = {}

    @contextmanager
    def reserve(self, member_uid: str) -> Iterator[None]:
        """Keep other claims away from a member while this one tries to take it."""
        assert member_uid not in self._reserved, "a reserved member is no candidate"
        self._reserved.add(member_uid)
        try:
            yield
        finally:
            self._reserved.discard(member_uid)

    def is_reserved(self, member_uid: str) -> bool:
        """Whether a claim is trying to take this member."""
        return member_uid in self._reserved

    def ahead_of(self, place: str, claim: Request) -> int:
        """How many claims wait at this place before this one."""
        for position, waiting in enumerate(self._waiting.get(place, ())):
            if waiting == claim:
                return position
        return len(self._waiting.get(place, ()))

    def join(self, place: str, claim: Request) -> None:
        """Wait at this place; who waits already keeps its position."""
        self._waiting.setdefault(place, {})[claim] = None

    def leave(self, claim: Request) -> None:
        """Wait nowhere any more."""
        for place in [place for place, claims in self._waiting.items() if claim in claims]:
            del self._waiting[place][claim]
            if not self._waiting[place]:
                del self._waiting[place]

    def call_next(self, places: Iterable[str]) -> Request | None:
        """Take the claim that has waited longest out of the first of these places where anybody waits."""
        for place in places:
            for claim in self._waiting.get(place, ()):
                self.leave(claim)
                return claim
        return None

    def __len__(self) -> int:
        return sum(len(claims) for claims in self._waiting.values())
