"""Runs a command as a person at a terminal does, who waits for what it says before doing anything.

    person.py types PROMPT KEYS COMMAND...   when PROMPT (a regular expression) is shown, type KEYS
    person.py interrupts COMMAND...          when it has written a line, press Ctrl-C

Shows what the command wrote, and ends with its exit status.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from agent_sandbox.testing.terminal import Screen


def types(prompt: str, keys: str, *command: str) -> int:
    """Run a command on a terminal, and answer it once."""
    screen = Screen(*command, env=os.environ)
    sys.stdout.write(screen.wait_for(prompt))
    screen.type(keys)
    status = screen.status()
    sys.stdout.write(screen.shown.decode(errors="replace"))
    return status


def interrupts(*command: str) -> int:
    """Run a command that never ends by itself, until it has told what it does."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        sys.stdout.write(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        sys.stdout.write(process.stdout.read())
    return process.returncode


if __name__ == "__main__":
    does: dict[str, Callable[..., int]] = {"types": types, "interrupts": interrupts}
    sys.exit(does[sys.argv[1]](*sys.argv[2:]))
