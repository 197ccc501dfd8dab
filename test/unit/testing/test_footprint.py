"""Whose processes are counted: our own, and those of programs that have ended; never another's."""

import subprocess
import sys

import pytest

from agent_sandbox.testing.footprint import take_footprint

SAY_ID_AND_WAIT = "import os; print(os.getpid(), flush=True); os.read(0, 1)"
PRETENDER = [sys.executable, "-c", SAY_ID_AND_WAIT, "-m", "agent_sandbox", ""]
"""Looks like one of our programs, says its process id, and ends when its standard input does."""
WAIT = f"import subprocess; subprocess.run({PRETENDER})"
LEAVE = f"import subprocess; subprocess.Popen({PRETENDER})"


def processes_of(pid: int) -> list[str]:
    return [line for line in take_footprint().processes if line.startswith(f"{pid} ")]


def start(*command: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_what_this_process_started_is_counted_until_it_has_ended() -> None:
    with start(*PRETENDER) as program:
        assert program.stdout is not None
        assert int(program.stdout.readline()) == program.pid
        assert len(processes_of(program.pid)) == 1
        program.communicate()
    assert processes_of(program.pid) == []


@pytest.mark.parametrize(("starter", "counted"), [(WAIT, 0), (LEAVE, 1)])
def test_what_another_program_started_is_counted_once_that_has_ended(starter: str, counted: int) -> None:
    with start(sys.executable, "-c", starter) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        if starter is LEAVE:
            program.wait()
        assert len(processes_of(pid)) == counted
        program.communicate()
