"""Log files: format, rotation, and reading them back."""

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_sandbox.clock import SystemClock
from agent_sandbox.local.node.log_reader import LogQuery, read_log, run_files
from agent_sandbox.local.node.logs import LogFile, LogThread
from agent_sandbox.testing.clock import VirtualClock

NOW = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)


async def read(path: Path, **query: object) -> str:
    pieces = [piece async for piece in read_log(path, LogQuery(**query), SystemClock(), lambda: False)]  # type: ignore[arg-type] # a test's shorthand
    return b"".join(pieces).decode()


def test_lines_are_written_as_container_runtimes_do(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "0.log")
    file.append("stdout", b"one\ntw", NOW)
    file.append("stderr", b"oops\n", NOW)
    file.append("stdout", b"o\nrest", NOW + timedelta(seconds=1))
    file.finish(NOW + timedelta(seconds=2))

    assert (tmp_path / "0.log").read_text().splitlines() == [
        "2026-01-01T12:00:00.250000000Z stdout F one",
        "2026-01-01T12:00:00.250000000Z stderr F oops",
        "2026-01-01T12:00:01.250000000Z stdout F two",
        "2026-01-01T12:00:02.250000000Z stdout F rest",
    ]
    assert file.head == b"oops\n"


async def test_a_line_of_any_length_comes_back_whole(tmp_path: Path) -> None:
    line = b"x" * 100_000 + b"\n"
    file = LogFile(tmp_path / "0.log")
    file.append("stdout", line, NOW)
    file.finish(NOW)

    assert await read(tmp_path / "0.log") == line.decode()


def _sizes(directory: Path) -> list[int]:
    return [path.stat().st_size for path in directory.iterdir()]


async def test_old_output_is_dropped_before_the_files_outgrow_their_bound(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "0.log", max_bytes=1000, keep=2)
    for number in range(100):
        file.append("stdout", f"line {number}\n".encode(), NOW)
    file.finish(NOW)

    sizes = _sizes(tmp_path)
    lines = (await read(tmp_path / "0.log")).splitlines()
    assert len(sizes) == 2
    assert max(sizes) <= 1000
    assert lines[-1] == "line 99"
    assert lines == [f"line {number}" for number in range(100 - len(lines), 100)]
    assert run_files(tmp_path) == [tmp_path / "0.log"]


async def test_a_log_is_cut_by_tail_time_and_bytes(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "0.log")
    for number in range(5):
        file.append("stdout", f"{number}\n".encode(), NOW + timedelta(seconds=number))
    file.finish(NOW)

    path = tmp_path / "0.log"
    assert await read(path, tail_lines=2) == "3\n4\n"
    assert await read(path, tail_lines=0) == ""
    assert await read(path, since=NOW + timedelta(seconds=3)) == "3\n4\n"
    assert await read(path, limit_bytes=3) == "0\n1"
    assert await read(path, tail_lines=1, timestamps=True) == "2026-01-01T12:00:04.250000000Z 4\n"


@pytest.mark.virtual_time
async def test_following_goes_on_until_the_container_ends(tmp_path: Path, virtual_clock: VirtualClock) -> None:
    file = LogFile(tmp_path / "0.log")
    file.append("stdout", b"a\n", NOW)
    rest = [b"b\n", b"c\n"]

    def is_open() -> bool:
        if rest:
            file.append("stdout", rest.pop(0), NOW)
            return True
        return False

    query = LogQuery(follow=True)
    pieces = [piece async for piece in read_log(tmp_path / "0.log", query, virtual_clock, is_open)]

    assert b"".join(pieces) == b"a\nb\nc\n"
    file.finish(NOW)


def test_the_log_thread_says_when_everything_is_written(tmp_path: Path) -> None:
    logs = LogThread(SystemClock())
    thread = threading.Thread(target=logs.run)
    thread.start()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    ended = threading.Event()

    logs.capture(out_read, err_read, LogFile(tmp_path / "0.log"), ended.set)
    os.write(out_write, b"hello\n")
    os.close(out_write)
    os.close(err_write)
    assert ended.wait(5)
    logs.stop()
    thread.join(5)

    assert not thread.is_alive()
    assert (tmp_path / "0.log").read_text().endswith(" stdout F hello\n")


def test_stopping_the_log_thread_ends_captures_that_are_still_open(tmp_path: Path) -> None:
    logs = LogThread(SystemClock())
    thread = threading.Thread(target=logs.run)
    thread.start()
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    ended = threading.Event()
    logs.capture(out_read, err_read, LogFile(tmp_path / "0.log"), ended.set)
    os.write(out_write, b"last words")

    logs.stop()
    thread.join(5)

    assert ended.is_set()
    assert (tmp_path / "0.log").read_text().endswith(" stdout F last words\n")
    os.close(out_write)
    os.close(err_write)
