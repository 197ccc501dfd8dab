"""A command that does not end in time: the failure tells all that is known, and nothing of it goes on."""

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent_sandbox.testing.commands import LINES, run_command

STUCK = """
import os, subprocess, sys
for number in range(100):
    print("line", number)
print("oops", file=sys.stderr, flush=True)
sys.stdout.flush()
places = {}, {"process_group": 0}, {"start_new_session": True}
sleepers = [subprocess.Popen(["sleep", "4321"], **place) for place in places]
with open("pids", "w") as file:
    print(*[sleeper.pid for sleeper in sleepers], file=file)
os.rename("pids", "started")
sleepers[0].wait()
"""
"""Hangs with children of each kind: ``timeout`` makes a process group of its own, ``script`` a session."""


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the process ids of the children; a time limit begins once it is there, however slow the machine."""
    file, communicate = tmp_path / "started", subprocess.Popen.communicate

    def once_started(process: "subprocess.Popen[str]", **limit: float) -> Any:
        while not file.exists():
            time.sleep(0.01)
        return communicate(process, **limit)

    monkeypatch.setattr("subprocess.Popen.communicate", once_started)
    return file


def living(started: Path) -> list[int]:
    """Those of the children that have not ended; one that nobody has reaped yet has."""
    states = {}
    for pid in started.read_text().split():
        stat = Path(f"/proc/{pid}/stat")
        states[int(pid)] = stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else "gone"
    return [pid for pid, state in states.items() if state not in {"gone", "Z", "X"}]


def test_a_command_that_does_not_end_is_shown_with_its_last_words_and_its_processes_and_all_are_killed(
    tmp_path: Path, started: Path
) -> None:
    with pytest.raises(AssertionError) as failed:
        run_command(sys.executable, "-c", STUCK, timeout=0.1, cwd=tmp_path)

    said = str(failed.value)
    assert said.startswith("not ended after 0.1 s")
    assert re.findall(r"^line (\d+)$", said, re.MULTILINE) == [str(number) for number in range(100 - LINES, 100)]
    assert "\noops\n" in said
    assert len(re.findall(r"^\d+ sleep 4321\n    state \w, waits in \S+$", said, re.MULTILINE)) == 3
    assert living(started) == []


def test_a_command_is_killed_when_whoever_waits_for_it_is_interrupted(
    tmp_path: Path, started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    communicate: Any = subprocess.Popen.communicate
    interruptions = iter([KeyboardInterrupt])

    def interrupted(process: "subprocess.Popen[str]", **limit: float) -> Any:
        for interruption in interruptions:
            while not started.exists():
                time.sleep(0.01)
            raise interruption
        return communicate(process, **limit)

    monkeypatch.setattr("subprocess.Popen.communicate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_command(sys.executable, "-c", STUCK, timeout=1234, cwd=tmp_path)

    assert living(started) == []


def test_how_a_command_ended_is_given_with_all_it_wrote_in_order_and_whatever_its_status() -> None:
    done = run_command("sh", "-c", "echo out; echo err >&2; printf '\\377'; cat; exit 3", timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n\ufffd", "err\n")
