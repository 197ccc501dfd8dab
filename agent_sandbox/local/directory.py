"""The state directory of a local stack: where everything lies that a stack leaves on disk.

One running stack owns a directory by an advisory lock that dies with its process, so a killed stack never blocks the
next one. Several stacks live side by side under different names. The lock's file is also the mark by which a stack
knows a directory for its own: no other is ever used or removed.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agent_sandbox.local.errors import ForeignDirectoryError, StackRunningError


@dataclass(frozen=True)
class StateDirectory:
    """Paths inside a state directory. Nothing in it is readable for other users."""

    root: Path

    @property
    def database(self) -> Path:
        """The objects of the API server."""
        return self.root / "objects.db"

    @property
    def credentials(self) -> Path:
        """Certificates, token and kubeconfig of the API server."""
        return self.root / "api"

    @property
    def kubeconfig(self) -> Path:
        """What kubectl and client libraries connect with."""
        return self.credentials / "kubeconfig"

    @property
    def router_token(self) -> Path:
        """The credential of the router."""
        return self.root / "router.token"

    @property
    def node(self) -> Path:
        """What the node keeps: volumes, logs, records of its Pods."""
        return self.root / "node"

    @property
    def helper(self) -> Path:
        """The socket of the process in which Pods live; absent unless a stack runs or was killed."""
        return self.node / "helper.sock"

    @property
    def log(self) -> Path:
        """Output of a stack that runs in the background."""
        return self.root / "stack.log"

    @property
    def _lock(self) -> Path:
        return self.root / "lock"

    def create(self) -> None:
        """Make the directory, closed to other users; one that exists must be empty or a stack's.

        Raises:
            ForeignDirectoryError: something else is in it.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self._is_ours() and any(self.root.iterdir()) and not self._is_ours():
            raise ForeignDirectoryError(self.root, "give it one of its own with `--state-dir`")
        status = self.root.stat()
        if status.st_uid == os.geteuid() and status.st_mode & 0o077:
            self.root.chmod(0o700)
        self._lock.touch(mode=0o600)

    def _is_ours(self) -> bool:
        return self._lock.is_file()

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the directory for as long as the block runs.

        Raises:
            StackRunningError: another process owns it.
        """
        self.create()
        with self._lock.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise StackRunningError(self.root, lock.read().strip()) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield

    def owner(self) -> int | None:
        """Process id of the running stack that owns this directory, or None."""
        if not _is_locked(self._lock):
            return None
        text = self._lock.read_text().strip()
        return int(text) if text.isdigit() else None

    def is_survived(self) -> bool:
        """Whether Pods of a stack that was killed live on; also while a stack runs."""
        return _is_locked(self.node / "helper.lock")

    def purge(self) -> None:
        """Remove everything, control groups that a killed stack left too.

        Call it only while no stack runs on it, and no Pod of a killed one lives (``background.end_left_behind``).

        Raises:
            ForeignDirectoryError: no stack ever used the directory; nothing of it is removed.
        """
        from agent_sandbox.local.node.cgroups import remove_recorded_groups  # the whole node: not for every command
        from agent_sandbox.local.node.records import remove_tree

        if not self.root.exists():
            return
        if not self._is_ours():
            raise ForeignDirectoryError(self.root, "nothing of it was removed; name a stack's own with `--state-dir`")
        remove_recorded_groups(self.node)
        remove_tree(self.root)
        # Our own folder of stacks goes with the last of them; anybody else's stays.
        if self.root.parent.name == "agent-sandbox" and not any(self.root.parent.iterdir()):
            self.root.parent.rmdir()


def _is_locked(path: Path) -> bool:
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
