"""Forgets what is remembered about an object when the object is gone, or when another has taken its name."""

from collections.abc import Callable

from agent_sandbox.runtime import Request


class Identities:
    """Which UID each key had last; reconcilers keep their notes by UID and learn here when one is gone."""

    def __init__(self, *forget: Callable[[str], None]) -> None:
        """
        Args:
            forget: called with each UID that is gone.
        """
        self._forget = forget
        self._uids: dict[Request, str] = {}

    def seen(self, request: Request, uid: str) -> None:
        """The key's object has this UID now."""
        if self._uids.get(request, uid) != uid:
            self.gone(request)
        self._uids[request] = uid

    def gone(self, request: Request) -> None:
        """The key has no object any more."""
        uid = self._uids.pop(request, None)
        if uid is not None:
            for forget in self._forget:
                forget(uid)

    def __len__(self) -> int:
        return len(self._uids)
