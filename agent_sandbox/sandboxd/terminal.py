"""A pseudo-terminal for one command: its two ends and its size."""

import fcntl
import os
import pty
import struct
import termios


class Terminal:
    """A new pseudo-terminal.

    Attributes:
        master: our end.
        slave: the command's end, until `close_slave`.
    """

    def __init__(self, columns: int, rows: int) -> None:
        self.master, self.slave = pty.openpty()
        os.set_inheritable(self.master, False)
        self.resize(columns, rows)

    def resize(self, columns: int, rows: int) -> None:
        """Set the size; the processes on the terminal get SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close_slave(self) -> None:
        """Let go of the command's end: the terminal ends with the last process on it."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1

    def close(self) -> None:
        """Let go of both ends."""
        self.close_slave()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1
