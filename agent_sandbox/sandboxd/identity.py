"""Who a command runs as: an account of the sandbox's own /etc/passwd, or a bare number."""

import os
import pwd
from dataclasses import dataclass


@dataclass(frozen=True)
class Identity:
    """User, groups and home of an account."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def identity_of(user: str | int) -> Identity | None:
    """The account of that name or number; None if the daemon runs as it already. May block: call it in a thread.

    Raises:
        LookupError: there is no account of that name.
        PermissionError: the daemon is not root and cannot become anybody else.
    """
    number = int(user) if isinstance(user, int) or user.isdecimal() else None
    try:
        entry = pwd.getpwnam(str(user)) if number is None else pwd.getpwuid(number)
    except KeyError:
        if number is None:
            raise LookupError(f"the sandbox has no user {user!r}") from None
        identity = Identity(str(number), number, number, (), "/")
    else:
        groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
        identity = Identity(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)
    if identity.uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise PermissionError(f"the daemon runs as user {os.geteuid()} and cannot become {user!r}; only root can")
    return identity
