"""Who depends on whom: the ownerReferences of all objects, by the owner's UID."""

from collections import defaultdict

from agent_sandbox.local.apiserver.storage import Change, Key, Stored


class Dependents:
    """An index from an owner's UID to the objects that name it."""

    def __init__(self) -> None:
        self._by_owner: dict[str, set[Key]] = defaultdict(set)
        self._owners: dict[Key, frozenset[str]] = {}

    def notice(self, change: Change) -> None:
        """Follow one change."""
        key = change.key
        after = frozenset() if change.deleted else owner_uids(change.current)
        before = self._owners.get(key, frozenset())
        if after == before:
            return
        for uid in before - after:
            self._by_owner[uid].discard(key)
            if not self._by_owner[uid]:
                del self._by_owner[uid]
        for uid in after - before:
            self._by_owner[uid].add(key)
        if after:
            self._owners[key] = after
        else:
            self._owners.pop(key, None)

    def of(self, uid: str) -> list[Key]:
        """The objects that name this owner, in a stable order."""
        return sorted(self._by_owner.get(uid, ()))


def owner_uids(stored: Stored) -> frozenset[str]:
    """The UIDs of an object's owners."""
    return frozenset(owner.get("uid", "") for owner in stored.metadata.get("ownerReferences") or ())
