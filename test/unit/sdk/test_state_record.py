"""The record by which programs find a running local stack."""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent_sandbox.local.state import (
    RECORD_FILE,
    Endpoint,
    StackRecord,
    StackRecordError,
    default_state_dir,
    find_running_stack,
)


def record(**changes: object) -> StackRecord:
    """The record of a stack in this process."""
    made = StackRecord.of_this_process(
        started=datetime(2026, 1, 31, 12, tzinfo=UTC),
        api=Endpoint("https://127.0.0.1:6443", token_file=Path("/t"), ca_file=Path("/ca")),
        router=Endpoint("http://127.0.0.1:8080"),
        kubeconfig=Path("/k"),
    )
    return StackRecord(**{**made.__dict__, **changes})


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record().write(tmp_path)

    assert StackRecord.read(tmp_path) == record()
    assert find_running_stack(tmp_path) == record()


def test_nobody_else_can_read_it_and_no_half_file_is_left(tmp_path: Path) -> None:
    record().write(tmp_path)

    assert (tmp_path / RECORD_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_FILE]


def test_no_record_means_no_stack(tmp_path: Path) -> None:
    assert find_running_stack(tmp_path / "absent") is None


def test_the_record_of_a_dead_process_is_stale(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    record(pid=int(child.stdout), process_start="boot/1").write(tmp_path)

    assert find_running_stack(tmp_path) is None


def test_a_stranger_with_the_same_process_id_is_not_taken_for_the_stack(tmp_path: Path) -> None:
    record(process_start="another-boot/1").write(tmp_path)

    assert find_running_stack(tmp_path) is None


def test_a_zombie_is_not_running() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    made = record(pid=child.pid, process_start=record().process_start)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert not made.is_running()
    finally:
        child.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 99}'])
def test_a_damaged_record_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_FILE).write_text(text)

    with pytest.raises(StackRecordError, match="remove"):
        find_running_stack(tmp_path)


def test_removing_spares_the_record_of_a_newer_stack(tmp_path: Path) -> None:
    record(pid=1).write(tmp_path)
    record().remove(tmp_path)
    assert StackRecord.read(tmp_path) == record(pid=1)

    record(pid=1).remove(tmp_path)
    assert StackRecord.read(tmp_path) is None


def test_the_state_directory_follows_the_environment() -> None:
    home = Path("~").expanduser()

    assert default_state_dir({}) == home / ".local/state/agent-sandbox/default"
    assert default_state_dir({"XDG_STATE_HOME": "/x"}) == Path("/x/agent-sandbox/default")
    assert default_state_dir({"XDG_STATE_HOME": "relative"}) == home / ".local/state/agent-sandbox/default"
    assert default_state_dir({"AGENT_SANDBOX_STATE_DIR": "/s", "XDG_STATE_HOME": "/x"}) == Path("/s")
