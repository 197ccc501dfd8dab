"""The user's own terminal while a command in a sandbox has it: raw, and as it was before on every way out."""

import os
import re
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

_MODE: Final = re.compile(rb"\x1b\[\?([\d;]+)([hl])")
_TAIL: Final = 24
"""Bytes of one piece that may be the beginning of a sequence which the next one ends."""

_ALTERNATE: Final = frozenset({47, 1047, 1049})
_WATCHED: Final = frozenset({1, 9, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 2004}) | _ALTERNATE
_CURSOR: Final = 25
_NEW_LINES: Final = frozenset(b"\r\n")


class RawTerminal:
    """A terminal that hands over every key as it is, Ctrl-C too."""

    def __init__(self, descriptor: int) -> None:
        """
        Args:
            descriptor: the terminal.
        """
        self._descriptor = descriptor

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Raw while the block lasts; restored however it ends."""
        before = termios.tcgetattr(self._descriptor)
        try:
            self.make_raw()
            yield
        finally:
            with suppress(termios.error):  # the terminal itself is gone
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, before)

    def make_raw(self) -> None:
        """Raw now; again, after a shell that stopped this process has had the terminal."""
        tty.setraw(self._descriptor, termios.TCSADRAIN)

    def size(self) -> tuple[int, int]:
        """Columns and rows; 80 and 24 if it does not know."""
        try:
            columns, rows = os.get_terminal_size(self._descriptor)
        except OSError:
            columns, rows = 0, 0
        return columns or 80, rows or 24


class ScreenModes:
    """Remembers what a program switched on at the terminal, to switch it off if the program cannot any more."""

    def __init__(self) -> None:
        self._on: set[int] = set()
        self._cursor_hidden = False
        self._tail = b""

    def note(self, output: bytes) -> None:
        """Look at what is shown."""
        text = self._tail + output
        end = 0
        for found in _MODE.finditer(text):
            end = found.end()
            for mode in (int(part) for part in found[1].split(b";") if part):
                switched_on = found[2] == b"h"
                if mode == _CURSOR:
                    self._cursor_hidden = not switched_on
                elif mode in _WATCHED:
                    (self._on.add if switched_on else self._on.discard)(mode)
        self._tail = text[end:][-_TAIL:]

    def undoing(self) -> bytes:
        """What brings the terminal back to how it was."""
        # The alternate screen last: what comes before it must not be seen on the user's own.
        modes = sorted(self._on, key=lambda mode: mode in _ALTERNATE)
        show = b"\x1b[?25h" if self._cursor_hidden else b""
        return show + b"".join(b"\x1b[?%dl" % mode for mode in modes)


class Keyboard:
    """Finds the way out in what is typed: Enter, then ``~.``; ``~~`` sends one ``~``. As in ssh."""

    def __init__(self) -> None:
        self._at_line_start = True
        self._tilde = False

    def typed(self, data: bytes) -> tuple[bytes, bool]:
        """What of it goes to the sandbox, and whether the user wants out."""
        passed = bytearray()
        for key in data:
            if self._tilde:
                self._tilde = False
                if key == ord("."):
                    return bytes(passed), True
                if key != ord("~"):
                    passed.append(ord("~"))
            elif key == ord("~") and self._at_line_start:
                self._tilde = True
                continue
            passed.append(key)
            self._at_line_start = key in _NEW_LINES
        return bytes(passed), False
