"""Commands that tests run as a user does: one that does not end in time is told of in full, and ended as a whole."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

LINES: Final = 40
"""So many lines of each output are shown of a command that did not end."""
_LAST_WORDS: Final = 5.0
"""Seconds to read what was written before the end, by processes that somebody else's session may keep alive."""
_GONE: Final = ("X", 0, 0)


def run_command(
    *command: str, timeout: float, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, in a session of its own and without input.

    Args:
        command: its words.
        timeout: seconds that it may take: what no machine needs, however busy.
        cwd: its directory; this process's by default.
        env: its environment; this process's by default.

    Returns:
        How it ended and what it wrote, whatever its status.

    Raises:
        AssertionError: it had not ended after ``timeout`` seconds. The message shows the last lines of its outputs, and
            of each of its processes the command line, its state and where in the kernel it waits. They are killed.
    """
    with subprocess.Popen(  # noqa: S603
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            living = _describe(process.pid)
            out, err = _end(process)
            told = "\n".join(
                f"--- {name}, its last lines:\n{_tail(text)}" for name, text in (("stdout", out), ("stderr", err))
            )
            message = f"not ended after {timeout:g} s: {command}\n{told}\n--- its processes:\n{living}"
            raise AssertionError(message) from None
        except BaseException:
            _end(process)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def _end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Kill a command with all that it started, and give what it wrote."""
    deadline = time.monotonic() + _LAST_WORDS
    while (found := list(_processes_of(process.pid))) and time.monotonic() < deadline:
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended meanwhile
        time.sleep(0.01)  # one that is being forked is not seen yet
    try:
        return process.communicate(timeout=_LAST_WORDS)
    except subprocess.TimeoutExpired as held:
        return _text(held.stdout), _text(held.stderr)


def _describe(leader: int) -> str:
    return "\n".join(
        f"{pid} {_read(pid, 'cmdline').replace(chr(0), ' ').strip() or _read(pid, 'comm').strip()}\n"
        f"    state {_fields(pid)[0]}, waits in {_read(pid, 'wchan') or '?'}"
        for pid in _processes_of(leader)
    )


def _processes_of(leader: int) -> Iterator[int]:
    """The living processes of a session, and those that they started in sessions of their own."""
    facts = {int(entry.name): _fields(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    for pid, (state, parent, session) in sorted(facts.items()):
        if state in "ZX":
            continue
        while session not in {leader, 0}:
            _, parent, session = facts.get(parent, _GONE)
        if session == leader:
            yield pid


def _fields(pid: int) -> tuple[str, int, int]:
    """State, parent and session of a process."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return (fields[0], int(fields[1]), int(fields[3])) if fields else _GONE


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""  # it ended while we looked


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-LINES:])


def _text(output: str | bytes | None) -> str:
    """What a timeout holds of an output: bytes, whatever the mode."""
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
