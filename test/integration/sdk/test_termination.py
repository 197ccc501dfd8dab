"""What a killed program leaves behind: nothing, as long as Python gets to run at all."""

import contextlib
import gc
import linecache
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest

from agent_sandbox import ConnectionOptions, SandboxClient, Sandboxes
from agent_sandbox.sdk import facade, loop_thread, signals
from agent_sandbox.sdk.loop_thread import shared_loop
from agent_sandbox.testing.pretend_cluster import PretendCluster

PRELUDE = """
import pathlib, sys, time
from agent_sandbox import SandboxClient
from agent_sandbox.sdk.loop_thread import shared_loop
from agent_sandbox.testing.pretend_cluster import open_pretend_cluster
loop = shared_loop()
cluster = loop.host(open_pretend_cluster(pathlib.Path(sys.argv[1]) / "w")).enter()
def client():
    return SandboxClient("t", kube=cluster.kube, api_url=cluster.api_url)
def names():
    return loop.run(lambda job: cluster.claim_names())
"""


def start(body: str, folder: Path) -> "subprocess.Popen[str]":
    """Start a program that prints ``ready`` when it holds a sandbox, and works in this folder."""
    return subprocess.Popen(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_arrives_however_the_tests_were_started() -> None:
    """hack/test.sh starts this one in the background of a shell, which ignores SIGINT for it."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unwinds_the_block_and_deletes_the_claim(number: signal.Signals, tmp_path: Path) -> None:
    program = start(
        """
        try:
            with client():
                print("ready", len(names()), flush=True)
                time.sleep(500)
        finally:
            print("left", len(names()), flush=True)
        """,
        tmp_path,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready 1\n"
    program.send_signal(number)
    rest, _ = program.communicate(timeout=120)

    assert rest == "left 0\n"
    assert program.returncode in {143, -2, 130}


def test_a_client_that_was_never_left_is_closed_at_exit(tmp_path: Path) -> None:
    program = start(
        """
        import atexit
        atexit.unregister(__import__("agent_sandbox.sdk.facade").sdk.facade._close_what_is_open)
        atexit.register(lambda: print("left", len(names()), flush=True))
        atexit.register(__import__("agent_sandbox.sdk.facade").sdk.facade._close_what_is_open)
        kept = client().__enter__()
        print("ready", len(names()), flush=True)
        """,
        tmp_path,
    )
    out, err = program.communicate(timeout=120)

    assert out == "ready 1\nleft 0\n", err
    assert program.returncode == 0


def test_a_program_that_handles_sigterm_keeps_its_own_way(tmp_path: Path) -> None:
    program = start(
        """
        import os
        import signal
        import threading
        told = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"mine\\n"), told.set()))
        with client():
            print("ready", flush=True)
            told.wait(500)
        print("left", len(names()), flush=True)
        """,
        tmp_path,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    rest, _ = program.communicate(timeout=120)

    assert rest == "mine\nleft 0\n"


class InterruptAtLine:
    """Raises KeyboardInterrupt at the n-th line that the main thread runs in certain files, as Ctrl-C might."""

    def __init__(self, line: int, files: set[str]) -> None:
        self._left = line
        self._files = files
        self._entered: set[tuple[FrameType, int]] = set()

    @property
    def has_fired(self) -> bool:
        return self._left <= 0

    def __enter__(self) -> Self:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line" and not self._leaves_with(frame):
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._trace

    def _leaves_with(self, frame: FrameType) -> bool:
        """Python runs no signal handler between the end of a ``with`` block and its ``__exit__``."""
        if not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
            return False
        place = (frame, frame.f_lineno)
        entered = place in self._entered
        self._entered.add(place)
        return entered


def use_client(cluster: PretendCluster) -> None:
    with SandboxClient("t", kube=cluster.kube, api_url=cluster.api_url) as sandbox:
        sandbox.run("true")


def use_sandboxes(cluster: PretendCluster) -> None:
    options = ConnectionOptions(kube=cluster.kube, api_url=cluster.api_url)
    with Sandboxes(options=options) as sandboxes, sandboxes.use("t") as sandbox:
        sandbox.run("true")


@pytest.mark.slow
@pytest.mark.parametrize("use", [use_client, use_sandboxes])
def test_ctrl_c_between_any_two_lines_leaves_no_claim_at_the_latest_at_exit(
    sync_cluster: PretendCluster, use: Callable[[PretendCluster], None]
) -> None:
    files = {str(module.__file__) for module in (facade, loop_thread, signals)}
    line, fired = 0, True
    while fired:
        line += 1
        with contextlib.suppress(KeyboardInterrupt), InterruptAtLine(line, files) as interrupt:
            use(sync_cluster)
        fired = interrupt.has_fired
        gc.collect()
        facade._close_what_is_open()  # as Python does at exit
        assert shared_loop().run(lambda _: sync_cluster.claim_names()) == [], f"line {line}"
    assert line > 100
