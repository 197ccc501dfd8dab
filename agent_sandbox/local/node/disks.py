"""Makes PersistentVolumeClaims disks of their size, where this machine lets us: ext4 in a sparse file.

In: a size. Out: a file that the helper mounts. Only root may attach loop devices; elsewhere claims are directories,
whose size is watched (``eviction``). Everything is done with plain calls: call from a worker thread.
"""

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_sandbox.local.node.helper.disks import attach_loop

_SEARCH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_LEAST_BYTES: Final = 1 << 20
"""Below this ext4 has no room for its own notes."""

_OPTIONS: Final = ("-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard")


@dataclass(frozen=True)
class Disks:
    """Makes disks.

    Attributes:
        mkfs: path of ``mkfs.ext4``.
    """

    mkfs: str

    def make(self, path: Path, size: int) -> None:
        """Make a disk of ``size`` bytes that occupies only what is written to it.

        Raises:
            OSError: the disk is full, or the program failed.
        """
        part = path.with_name(f".{path.name}.new")
        try:
            with part.open("wb") as file:
                file.truncate(max(size, _LEAST_BYTES))
            done = subprocess.run(  # noqa: S603 - a fixed program
                [self.mkfs, *_OPTIONS, str(part)], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise OSError(f"mkfs.ext4 failed: {done.stderr.strip()}")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def find_disks(state_dir: Path) -> Disks | None:
    """The maker of disks, found out by making a small one; None if this machine lets us attach none (0.1 s)."""
    mkfs = shutil.which("mkfs.ext4", path=_SEARCH)
    if os.geteuid() != 0 or mkfs is None:
        return None
    disks, trial = Disks(mkfs), state_dir / ".trial.img"
    try:
        disks.make(trial, _LEAST_BYTES)
        with trial.open("r+b") as file:
            os.close(attach_loop(file.fileno()))
    except OSError:
        return None
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)
    return disks
