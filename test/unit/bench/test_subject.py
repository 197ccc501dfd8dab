"""Controllers as processes that the benchmark starts: when they end by themselves it is said at once, and why."""

import os
import sys
from pathlib import Path

import anyio
import pytest

from agent_sandbox.bench import Processes, cause_of
from agent_sandbox.bench.bench import BenchError
from agent_sandbox.bench.subject import SubjectError
from agent_sandbox.kube import TransportError


def processes(folder: Path, command: str) -> Processes:
    return Processes("ours", command, kubeconfig=folder / "config", folder=folder, environment=os.environ)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "sh -c 'echo first; echo no such flag: --wokrers >&2; exit 3'",
            r"with status 3; .*\n.*\n?no such flag: --wok",
        ),
        ("sh -c 'kill -9 $$'", r"by SIGKILL; .*\n\(nothing\)"),
        ("true", "with status 0"),
        ("/no/such/program --kubeconfig {kubeconfig}", "cannot be started: .*/no/such/program"),
        ("manager 'unbalanced", "cannot be started: No closing quotation"),
    ],
)
async def test_controllers_that_end_by_themselves_end_the_run_with_their_last_words(
    tmp_path: Path, command: str, words: str
) -> None:
    async def wait_for_ever() -> None:
        async with processes(tmp_path, command) as subject:
            await subject.start()
            await anyio.sleep_forever()

    with anyio.fail_after(30), pytest.raises(BaseExceptionGroup) as caught:
        await wait_for_ever()

    assert caught.group_contains(SubjectError, match=words)


async def test_controllers_that_are_stopped_or_killed_have_not_ended_by_themselves(tmp_path: Path) -> None:
    command = f"{sys.executable} -c 'import signal; signal.pause()'"
    with anyio.fail_after(30):
        async with processes(tmp_path, command) as subject:
            await subject.start()
            await subject.start()
            await subject.kill_leader()
            await subject.stop()
            await subject.start()
            assert (await subject.read()).memory_bytes > 0


def test_of_many_errors_at_once_the_one_that_explains_the_others_is_told() -> None:
    ended, refused, late = SubjectError("ended"), TransportError("refused"), BenchError("late")

    assert cause_of(ExceptionGroup("", [refused, ExceptionGroup("", [late, ended])])) is ended
    assert cause_of(ExceptionGroup("", [refused, late])) is late
    assert cause_of(refused) is refused
    assert cause_of(ExceptionGroup("", [refused, KeyError("a defect")])) is None
    assert cause_of(KeyError("a defect")) is None
