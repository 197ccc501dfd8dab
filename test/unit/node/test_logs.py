"""Log files: format, rotation, and reading them back."""

import os
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent_sandbox.clock import SystemClock
from agent_sandbox.local.node.helper.output import LogFile, Output
from agent_sandbox.local.node.log_reader import LogQuery, read_log, run_files
from agent_sandbox.testing.clock import VirtualClock

NOW = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def log_in(directory: Path, **options: int) -> LogFile:
    fd = os.open(directory, os.O_PATH)
    try:
        return LogFile(fd, "0.log", **options)
    finally:
        os.close(fd)


async def read(path: Path, **query: object) -> str:
    pieces = [piece async for piece in read_log(path, LogQuery(**query), SystemClock(), lambda: False)]  # type: ignore[arg-type] # a test's shorthand
    return b"".join(pieces).decode()


def test_lines_are_written_as_container_runtimes_do(tmp_path: Path) -> None:
    file = log_in(tmp_path)
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


async def test_a_line_of_any_length_comes_back_whole(tmp_path: Path) -> None:
    line = b"x" * 100_000 + b"\n"
    file = log_in(tmp_path)
    file.append("stdout", line, NOW)
    file.finish(NOW)

    assert await read(tmp_path / "0.log") == line.decode()


def _sizes(directory: Path) -> list[int]:
    return [path.stat().st_size for path in directory.iterdir()]


async def test_old_output_is_dropped_before_the_files_outgrow_their_bound(tmp_path: Path) -> None:
    file = log_in(tmp_path, max_bytes=1000, keep=2)
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
    file = log_in(tmp_path)
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
    file = log_in(tmp_path)
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


class Printing:
    """A process that prints, and the helper's loop that copies what it prints."""

    def __init__(self, directory: Path, ended: Callable[[], None]) -> None:
        self.selector = selectors.DefaultSelector()
        out_read, self.out = os.pipe()
        err_read, self.err = os.pipe()
        self.output = Output(self.selector, log_in(directory), {"stdout": out_read, "stderr": err_read}, ended)

    def turn(self) -> None:
        """One turn of the loop."""
        for key, _ in self.selector.select(0):
            key.data(key.fileobj)


def test_the_end_of_output_is_told_when_everything_is_written(tmp_path: Path) -> None:
    ended: list[bool] = []
    process = Printing(tmp_path, lambda: ended.append(True))

    os.write(process.out, b"hello\n")
    os.write(process.err, b"oops\n")
    os.close(process.out)
    process.turn()
    process.turn()
    early = list(ended)
    os.close(process.err)
    process.turn()

    assert early == []
    assert ended == [True]
    assert process.output.head == b"oops\n"
    assert {line.split(" ", 1)[1] for line in (tmp_path / "0.log").read_text().splitlines()} == {
        "stdout F hello",
        "stderr F oops",
    }


def test_output_that_nobody_waits_for_any_more_is_written_as_far_as_it_came(tmp_path: Path) -> None:
    ended: list[bool] = []
    process = Printing(tmp_path, lambda: ended.append(True))
    os.write(process.out, b"last words")
    process.turn()

    process.output.abandon()

    assert ended == [True]
    assert (tmp_path / "0.log").read_text().endswith(" stdout F last words\n")
    os.close(process.out)
    os.close(process.err)


def test_who_listens_and_does_not_read_loses_what_he_missed_and_nobody_waits(tmp_path: Path) -> None:
    process = Printing(tmp_path, lambda: None)
    (slow_out, its_out), (slow_err, its_err) = os.pipe(), os.pipe()
    process.output.listen(its_out, its_err)

    for _ in range(10):
        os.write(process.out, b"x" * 30000 + b"\n")
        process.turn()
    os.close(process.out)
    os.close(process.err)
    process.turn()

    heard = b""
    while piece := os.read(slow_out, 65536):
        heard += piece
    assert 30000 <= len(heard) < 300_000
    assert os.read(slow_err, 1) == b""
    assert (tmp_path / "0.log").stat().st_size > 300_000
    os.close(slow_out)
    os.close(slow_err)
