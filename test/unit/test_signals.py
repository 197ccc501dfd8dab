"""A process that is asked to end ends in order, however often it is asked within a moment."""

import importlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import anyio
import pytest
from click.testing import CliRunner

from agent_sandbox import cli
from agent_sandbox.signals import arriving_signals

INTERRUPTED_AT_EACH_LINE = """
import os, signal, sys, threading
import anyio, anyio.to_thread
import agent_sandbox.signals
from agent_sandbox.cli import eventloop
from agent_sandbox.cli.sandboxes.running import run_verb

agent_sandbox.signals.ECHO_SECONDS = 60  # tracing is slow
echoes = 0

def echo(frame, event, argument):
    global echoes
    if event == "line" and echoes < 2000:
        echoes += 1
        signal.raise_signal(signal.SIGINT)
    return echo

async def work(*_):
    await anyio.to_thread.run_sync(int)  # a worker thread that must be told to end
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()
    finally:
        sys.settrace(echo)
        frame = sys._getframe()
        while frame is not None:
            frame.f_trace = echo
            frame = frame.f_back
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0)
        os.write(1, b"cleaned\\n")

try:
    RUN
finally:
    sys.settrace(None)
    os.write(1, b"%d\\n" % echoes)
"""

IMPATIENT = """
import itertools, signal
from agent_sandbox.signals import ECHO_SECONDS, arriving_signals

with arriving_signals(signal.SIGINT, now=itertools.count(step=0.6 * ECHO_SECONDS).__next__) as arrivals:
    arrivals.end()
signal.raise_signal(signal.SIGINT)
print("an echo", flush=True)
try:
    signal.raise_signal(signal.SIGINT)
finally:
    print("not at once")
"""


def run_program(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize(
    ("run", "status"),
    [
        ("run_verb(work, endless=True)", 0),
        ("run_verb(work)", 130),
        ("eventloop.run_until_signalled(work, service='test')", 0),
    ],
    ids=["endless", "verb", "service"],
)
def test_an_interrupt_that_comes_again_at_each_line_breaks_nothing(run: str, status: int) -> None:
    """``timeout`` sends SIGINT twice; the second one hung ``ls -w``, since a worker thread was never told to end."""
    done = run_program(INTERRUPTED_AT_EACH_LINE.replace("RUN", run))

    assert done.stderr == ""
    cleaned, echoes = done.stdout.split()[-2:]
    assert cleaned == "cleaned"
    assert int(echoes) > 100
    assert done.returncode == status


def test_who_asks_again_after_a_second_gets_it_at_once() -> None:
    done = run_program(IMPATIENT)

    assert done.stdout == "an echo\n"
    assert done.returncode == -signal.SIGINT


def test_handlers_are_put_back_by_who_does_not_end(handlers: None) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    with arriving_signals(signal.SIGINT, signal.SIGTERM) as arrivals:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == [arrivals.take] * 2

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_hangup_that_nohup_ignores_stays_ignored(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with arriving_signals(signal.SIGHUP):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_what_arrived_before_the_event_loop_comes_first(handlers: None) -> None:
    async def read() -> list[signal.Signals]:
        signals = arrivals.each()
        first = [await anext(signals)]
        signal.raise_signal(signal.SIGINT)
        with anyio.fail_after(5):
            return [*first, await anext(signals)]

    with arriving_signals(signal.SIGINT, signal.SIGTERM) as arrivals:
        signal.raise_signal(signal.SIGTERM)
        assert anyio.run(read) == [signal.SIGTERM, signal.SIGINT]


def test_an_interrupt_of_a_verb_that_still_loads_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", load)

    done = CliRunner().invoke(cli.main, ["ls"])

    assert done.exit_code == 130
    assert done.output == ""


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put back what a test changes."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
