"""The parts of the verbs for sandboxes: what is typed, what is shown, what the terminal is left like."""

import doctest
import os
import pty
import signal
import termios
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sandbox import sdk
from agent_sandbox.cli.sandboxes import places, tables
from agent_sandbox.cli.sandboxes.descriptors import read_pieces, write_all
from agent_sandbox.cli.sandboxes.failures import Failure, failure_of
from agent_sandbox.cli.sandboxes.listing import data_of, header_of, row_of
from agent_sandbox.cli.sandboxes.places import Pipe, Remote, parse_place
from agent_sandbox.cli.sandboxes.port import PortPair, PortPairType
from agent_sandbox.cli.sandboxes.progress import NoBar, transfer_bar
from agent_sandbox.cli.sandboxes.running import Interruptions, run_verb
from agent_sandbox.cli.sandboxes.terminal import Keyboard, RawTerminal, ScreenModes
from agent_sandbox.cli.sandboxes.values import DURATION, PAIR, SANDBOX
from agent_sandbox.kube import AlreadyExistsError, ForbiddenError, KubeError, NotFoundError, StatusDetails


@pytest.mark.parametrize("module", [tables, places])
def test_the_examples_in_the_docstrings_are_true(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("2d", 172800)]
)
def test_durations_are_read_as_kubernetes_writes_them(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "-5", "5m1h", "1e9", "5 m"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="1h30m"):
        DURATION.convert(text, None, None)


def test_names_are_taken_as_ls_prints_them() -> None:
    assert SANDBOX.convert("sandboxclaim.extensions.agents.x-k8s.io/box", None, None) == "box"
    assert PAIR.convert("a=b=c", None, None) == ("a", "b=c")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("box:a/b", Remote("box", "a/b")),
        ("box:", Remote("box", ".")),
        ("box:/tmp/x:y", Remote("box", "/tmp/x:y")),
        ("./box:a", Path("./box:a")),
        ("/tmp/a:b", Path("/tmp/a:b")),
        ("a", Path("a")),
        ("-", Pipe()),
    ],
)
def test_a_colon_makes_a_place_in_a_sandbox(text: str, place: object) -> None:
    assert parse_place(text) == place


@pytest.mark.parametrize(
    ("text", "pair"),
    [("8000", PortPair(8000, 8000)), ("8080:80", PortPair(8080, 80)), (":5432", PortPair(0, 5432))],
)
def test_ports_are_read_as_kubectl_reads_them(text: str, pair: PortPair) -> None:
    assert PortPairType().convert(text, None, None) == pair


@pytest.mark.parametrize("text", ["0", "65536", "a", "1:2:3", "70000:1", ""])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="8080:8000"):
        PortPairType().convert(text, None, None)


# Errors


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            sdk.SandboxTemplateNotFoundError("no template t"),
            "no template t. Apply one, for example: agent-sandbox apply",
        ),
        (sdk.SandboxGoneError("gone"), "agent-sandbox ls"),
        (sdk.SandboxNotReadyError("asleep", reason="SandboxSuspended"), "agent-sandbox resume"),
        (sdk.SandboxConnectionError("no way"), "agent-sandbox doctor"),
        (ForbiddenError(403, "Forbidden", "no\nentry"), "403 no entry"),
        (FileNotFoundError(2, "No such file or directory", "x"), "No such file or directory: x"),
    ],
)
def test_an_expected_error_is_one_line_with_the_next_step(error: Exception, words: str) -> None:
    failure = failure_of(error, 7)

    assert failure is not None
    assert words in failure.message
    assert "\n" not in failure.message
    assert failure.exit_code == 7


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            NotFoundError(404, "NotFound", "none", details=StatusDetails(name="nowhere", kind="namespaces")),
            "said? Make it (kubectl create namespace nowhere)",
        ),
        (AlreadyExistsError(409, "AlreadyExists", "there"), "agent-sandbox run NAME"),
    ],
)
def test_the_next_step_may_lie_in_the_cause(cause: KubeError, words: str) -> None:
    error = sdk.SandboxNotFoundError("said?")
    error.__cause__ = cause

    failure = failure_of(error, 1)

    assert failure is not None
    assert words in failure.message
    assert "agent-sandbox ls" not in failure.message


def test_what_could_not_be_cleaned_up_is_told_too() -> None:
    error = sdk.SandboxGoneError("gone")
    error.add_note("Besides, claim x still exists")

    failure = failure_of(error, 1)

    assert failure is not None
    assert "claim x still exists" in failure.message


def test_a_defect_keeps_its_traceback() -> None:
    assert failure_of(ZeroDivisionError(), 1) is None
    with pytest.raises(ExceptionGroup):
        run_verb(_raise(ZeroDivisionError()))


def test_an_error_inside_groups_of_tasks_is_told_as_itself() -> None:
    nested = ExceptionGroup("a", [ExceptionGroup("b", [sdk.SandboxGoneError("gone")])])

    with pytest.raises(Failure, match="gone"):
        run_verb(_raise(nested))
    with pytest.raises(click.UsageError, match="mine"):
        run_verb(_raise(click.UsageError("mine")))


def _raise(error: Exception) -> Any:
    async def work(_: Interruptions) -> None:
        raise error

    return work


# Signals


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put back the handlers that an ending program keeps; heed SIGHUP though ``nohup`` may have started the tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "endless", "status"),
    [(signal.SIGINT, False, 130), (signal.SIGTERM, True, 143), (signal.SIGHUP, False, 129), (signal.SIGINT, True, 0)],
)
def test_a_signal_ends_a_verb_in_order(number: signal.Signals, endless: bool, status: int, handlers: None) -> None:
    cleaned: list[str] = []

    async def work(_: Interruptions) -> None:
        try:
            os.kill(os.getpid(), number)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            cleaned.append("yes")

    with pytest.raises(SystemExit) as ended:
        run_verb(work, endless=endless)
    assert ended.value.code == status
    assert cleaned == ["yes"]


def test_a_signal_goes_to_whoever_takes_it_for_the_moment() -> None:
    taken: list[signal.Signals] = []

    async def work(interruptions: Interruptions) -> str:
        arrived = anyio.Event()

        async def take(number: signal.Signals) -> None:
            taken.append(number)
            arrived.set()

        with interruptions.passed_to(take):
            os.kill(os.getpid(), signal.SIGINT)
            await arrived.wait()
        return "went on"

    assert run_verb(work) == "went on"
    assert taken == [signal.SIGINT]


# Streams


async def test_a_read_that_never_ends_keeps_nobody_from_ending() -> None:
    reading, writing = os.pipe()
    try:
        with anyio.move_on_after(0.05) as scope:
            async for _ in read_pieces(reading):
                pass
        assert scope.cancelled_caught
        left = [thread for thread in threading.enumerate() if thread.name == "standard streams"]
        assert all(thread.daemon for thread in left)
    finally:
        os.close(writing)  # ends the thread


async def test_bytes_go_through_as_they_are() -> None:
    data = os.urandom(300_000)
    reading, writing = os.pipe()
    got = bytearray()

    async def write() -> None:
        await write_all(writing, data)
        os.close(writing)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        async for piece in read_pieces(reading):
            got += piece
    os.close(reading)

    assert bytes(got) == data


async def test_a_closed_descriptor_is_an_empty_one_and_a_reader_that_left_is_told() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        await write_all(writing, b"x")
    os.close(writing)
    assert [piece async for piece in read_pieces(writing)] == []


# The terminal


def test_the_terminal_is_raw_in_the_block_and_as_before_behind_it() -> None:
    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        with suppress(ZeroDivisionError), RawTerminal(slave).raw():
            assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
            raise ZeroDivisionError
        assert termios.tcgetattr(slave) == before
        assert RawTerminal(slave).size() == (80, 24)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    ("typed", "passed", "out"),
    [
        ("~.", "", True),
        ("ls\r~.", "ls\r", True),
        ("a~.", "a~.", False),
        ("~~.", "~.", False),
        ("~x\r~", "~x\r", False),
        ("~/bin\r", "~/bin\r", False),
    ],
)
def test_enter_tilde_dot_is_the_way_out_and_nothing_else_is_lost(typed: str, passed: str, out: bool) -> None:
    whole, single = Keyboard(), Keyboard()
    pieces = [single.typed(bytes([key])) for key in typed.encode()]

    assert whole.typed(typed.encode()) == (passed.encode(), out)
    assert (b"".join(piece for piece, _ in pieces), pieces[-1][1]) == (passed.encode(), out)


@given(st.binary().filter(lambda data: b"~" not in data))
def test_what_has_no_tilde_is_passed_as_it_is(data: bytes) -> None:
    assert Keyboard().typed(data) == (data, False)


def test_modes_that_a_dead_program_left_on_are_switched_off() -> None:
    modes = ScreenModes()
    modes.note(b"\x1b[?1049h\x1b[?25l text \x1b[?2004h \x1b[?1000;10")
    modes.note(b"06h more \x1b[?2004l")

    assert modes.undoing() == b"\x1b[?25h\x1b[?1000l\x1b[?1006l\x1b[?1049l"
    modes.note(b"\x1b[?1000;1006;1049l\x1b[?25h")
    assert modes.undoing() == b""


def test_nothing_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with transfer_bar("copying") as bar:
        bar.note(sdk.TransferProgress(1, 2))
        bar.count(5)

    assert isinstance(bar, NoBar)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_shows_how_far_it_is_on_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with transfer_bar("copying") as bar:
        for done in (0, 50, 200):
            bar.note(sdk.TransferProgress(done, 200, "a"))
    with transfer_bar("reading") as bar:
        bar.count(2048)
    out, err = capsys.readouterr()

    assert out == ""
    assert "100%" in err
    assert "2.0 KiB" in err


# Listing


def test_a_sandbox_is_a_row_and_data() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    status = sdk.SandboxStatus(
        "Ready", "DependenciesReady", "fine", ("10.0.0.1",), now - timedelta(minutes=5), now + timedelta(hours=2)
    )
    info = sdk.SandboxInfo("box", "default", "python", "warm-1", status, {"team": "a"})

    assert row_of(info, now=now) == ["box", "Ready", "warm-1", "python", "5m", "120m"]
    columns = {"namespaced": True, "wide": True, "labels": True}
    assert len(row_of(info, now=now, **columns)) == len(header_of(**columns)) == 10
    data = data_of(info)
    assert data["created"] == "2025-12-31T23:55:00Z"
    assert (data["name"], data["state"], data["labels"]) == ("box", "Ready", {"team": "a"})
