"""A terminal with a program on it, as a person has one before them."""

import os
import pty
import re
import select
import termios
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

PATIENCE: Final = 120.0
"""Seconds to wait for what shall come: only what never comes takes them."""


class Screen:
    """A program on a terminal of its own.

    Args:
        command: its words.
        env: its environment.
        columns: the window's width.
        rows: the window's height.
    """

    def __init__(self, *command: str, env: Mapping[str, str], columns: int = 100, rows: int = 30) -> None:
        self.master, terminal = pty.openpty()
        self.resize(columns, rows)  # before the program can ask
        self.process = os.fork()
        if not self.process:
            os.close(self.master)
            os.login_tty(terminal)
            os.execvpe(command[0], command, env)  # noqa: S606
        os.close(terminal)
        self._hung_up = False
        self.shown = b""
        """What was shown since the last pattern that somebody waited for."""

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def wait_for(self, pattern: str) -> str:
        """Wait until something is shown that was not before; gives it, and forgets all until there.

        Raises:
            AssertionError: it does not come, or the program ended before.
        """
        found = self.look_for(pattern, PATIENCE)
        assert found is not None, f"{pattern!r} never came: {self.shown!r}"
        return found

    def look_for(self, pattern: str, seconds: float) -> str | None:
        """As ``wait_for``; None if it is not shown within so many seconds.

        Raises:
            AssertionError: the program ended before.
        """
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern.encode(), self.shown)) is None:
            if time.monotonic() > deadline:
                return None
            assert self._read(deadline - time.monotonic()), f"it ended without {pattern!r}: {self.shown!r}"
        self.shown = self.shown[found.end() :]
        return found[0].decode()

    def resize(self, columns: int, rows: int) -> None:
        """Pull at the window's corner."""
        termios.tcsetwinsize(self.master, (rows, columns))

    def status(self) -> int:
        """Wait for the program's end; its exit status.

        Raises:
            AssertionError: it does not end.
        """
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._read(0.05)
            ended, status = os.waitpid(self.process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it does not end: {self.shown!r}")

    def hang_up(self) -> None:
        """Close the window."""
        if not self._hung_up:
            self._hung_up = True
            os.close(self.master)

    def close(self) -> None:
        """Close the window, and wait for the program's end."""
        self.hang_up()
        with suppress(ChildProcessError):  # somebody asked how it ended
            os.waitpid(self.process, 0)

    def _read(self, seconds: float) -> bool:
        """Wait so long for output at most; False if there will be no more."""
        if not select.select([self.master], [], [], max(0.0, seconds))[0]:
            return True
        try:
            self.shown += os.read(self.master, 65536)
        except OSError:  # nobody has the terminal open any more
            return False
        return True
