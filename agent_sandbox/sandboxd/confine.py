"""Paths that stay inside: opens what a caller names, never outside the allowed directories, whatever races.

The walk goes component by component through directory descriptors (``O_PATH | O_NOFOLLOW``); it reads symbolic links
itself and continues inside, so no step ever hands a whole path to the kernel. ``..`` goes back along the descriptors
that were walked, which a concurrent rename cannot redirect. It works on every Linux, gVisor included, where openat2 is
missing.

All functions here may block: call them in a worker thread.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_sandbox.sandboxd.errors import PathDeniedError, PathNotFoundError

MAX_LINKS: Final = 40
"""Symbolic links followed in one path, as Linux does."""

_PATH_ONLY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True)
class Place:
    """A name in an open directory. The name may not exist; if it is a symbolic link, it is meant itself.

    Attributes:
        directory: descriptor of the directory; it is closed when the context of `Confinement.place` ends.
        name: one component, or ``.`` for the directory itself.
    """

    directory: int
    name: str


class Confinement:
    """The directories that the file API may touch.

    Args:
        roots: the first one is where relative paths start; all of them must exist.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.root = roots[0]
        # Longest first: the most special directory decides. Links may name a root by its real path.
        spellings = {Path(root) for root in roots} | {Path(root).resolve() for root in roots}
        self._roots = sorted(spellings, key=lambda root: len(root.parts), reverse=True)

    def split(self, path: str) -> tuple[Path, list[str]]:
        """The root that `path` lies in, by its text, and the components below it.

        Raises:
            PathDeniedError: an absolute path outside every root, or a path with a null byte.
        """
        if "\0" in path:
            raise PathDeniedError("a path cannot contain a null byte")
        if not path.startswith("/"):
            return self.root, path.split("/")
        parts = [part for part in path.split("/") if part not in ("", ".")]
        for root in self._roots:
            depth = len(root.parts) - 1
            if parts[:depth] == list(root.parts[1:]):
                return root, parts[depth:]
        raise PathDeniedError(
            f"{path!r} is outside the workspace {self.root}; allowed are {', '.join(sorted(map(str, self._roots)))}"
        )

    @contextmanager
    def place(self, path: str, *, follow: bool = True, create_parents: bool = False) -> Iterator[Place]:
        """Walk to `path` and give its directory and last component.

        Args:
            follow: whether a symbolic link at the end is resolved. The place is then that of its target.
            create_parents: make missing directories on the way, with mode 0755.

        Raises:
            PathDeniedError: the path leaves the allowed directories.
            PathNotFoundError: a directory on the way does not exist, or is none.
        """
        walk = _Walk(self, path, follow=follow, create_parents=create_parents)
        with walk.descriptors:
            try:
                yield walk.run()
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise PathDeniedError(f"{path!r} changed into a symbolic link while it was opened") from error
                raise

    @contextmanager
    def open(self, path: str, flags: int = os.O_RDONLY) -> Iterator[int]:
        """Open an existing file or directory and give its descriptor, closed at the end.

        Never blocks on a FIFO, and never makes a terminal the daemon's own.

        Raises:
            PathDeniedError: the path leaves the allowed directories.
            PathNotFoundError: nothing is there.
        """
        with self.place(path) as place:
            flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            try:
                descriptor = os.open(place.name, flags, dir_fd=place.directory)
            except FileNotFoundError as error:
                raise PathNotFoundError(f"{path!r} does not exist") from error
            try:
                yield descriptor
            finally:
                os.close(descriptor)


class _Walk:
    """One walk from a root to a place; `descriptors` closes whatever it opened."""

    def __init__(self, confinement: Confinement, path: str, *, follow: bool, create_parents: bool) -> None:
        self.descriptors = ExitStack()
        self._confinement = confinement
        self._path = path
        self._follow = follow
        self._create_parents = create_parents
        self._links = 0
        # The directories from the root to where the walk stands; never empty while it runs.
        self._stack: list[int] = []
        self._pending: list[str] = []

    def run(self) -> Place:
        self._start_at(*self._confinement.split(self._path))
        while self._pending:
            part = self._pending.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                self._ascend()
                continue
            last = not any(rest not in ("", ".") for rest in self._pending)
            if (place := self._step(part, last=last)) is not None:
                return place
        return Place(self._stack[-1], ".")

    def _start_at(self, root: Path, parts: list[str]) -> None:
        self._stack = [self._keep(os.open(root, _DIRECTORY))]
        self._pending = parts + self._pending

    def _ascend(self) -> None:
        if len(self._stack) == 1:
            raise PathDeniedError(f"{self._path!r} leads out of the workspace by '..'")
        self._stack.pop()

    def _step(self, part: str, *, last: bool) -> Place | None:
        """Go into `part`, or return the place if the walk ends here."""
        here = self._stack[-1]
        if last and not self._follow:
            return Place(here, part)
        try:
            descriptor = self._keep(os.open(part, _PATH_ONLY, dir_fd=here))
        except FileNotFoundError:
            if last:
                return Place(here, part)
            descriptor = self._make_directory(part)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISLNK(mode):
            self._go_through_link(os.readlink("", dir_fd=descriptor))
            return None
        if last:
            return Place(here, part)
        if not stat.S_ISDIR(mode):
            raise PathNotFoundError(f"{part!r} in {self._path!r} is not a directory")
        self._stack.append(descriptor)
        return None

    def _make_directory(self, part: str) -> int:
        if not self._create_parents:
            raise PathNotFoundError(f"the directory {part!r} in {self._path!r} does not exist")
        with suppress(FileExistsError):  # Somebody else made it between our two calls: just as good.
            os.mkdir(part, 0o755, dir_fd=self._stack[-1])
        return self._keep(os.open(part, _PATH_ONLY, dir_fd=self._stack[-1]))

    def _go_through_link(self, target: str) -> None:
        self._links += 1
        if self._links > MAX_LINKS:
            raise PathDeniedError(f"{self._path!r} goes through more than {MAX_LINKS} symbolic links")
        if target.startswith("/"):
            self._start_at(*self._confinement.split(target))
        else:
            self._pending = target.split("/") + self._pending

    def _keep(self, descriptor: int) -> int:
        self.descriptors.callback(os.close, descriptor)
        return descriptor
