"""What a killed program leaves behind: nothing, as long as Python gets to run at all."""

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

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
                time.sleep(50)
        finally:
            print("left", len(names()), flush=True)
        """,
        tmp_path,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready 1\n"
    program.send_signal(number)
    rest, _ = program.communicate(timeout=30)

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
    out, err = program.communicate(timeout=30)

    assert out == "ready 1\nleft 0\n", err
    assert program.returncode == 0


def test_a_program_that_handles_sigterm_keeps_its_own_way(tmp_path: Path) -> None:
    program = start(
        """
        import signal
        signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
        with client():
            print("ready", flush=True)
            time.sleep(0.5)
        print("left", len(names()), flush=True)
        """,
        tmp_path,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    rest, _ = program.communicate(timeout=30)

    assert rest == "mine\nleft 0\n"


def test_sigterm_while_an_asynchronous_client_waits_for_its_sandbox_leaves_no_claim(tmp_path: Path) -> None:
    program = start(
        """
        import asyncio
        import threading
        from contextlib import asynccontextmanager
        from agent_sandbox import AsyncSandboxes, ConnectionOptions
        from agent_sandbox.local.apiserver.site import ApiServerSite

        @asynccontextmanager
        async def serving():
            async with await ApiServerSite.prepare(cluster.api.server, pathlib.Path(sys.argv[1]), port=0) as site:
                yield site

        site = loop.host(serving()).enter()
        # A moment later, so that the answer to the create has arrived and the client waits.
        cluster.answer = lambda claim: threading.Timer(1.0, print, ("ready",), {"flush": True}).start()

        async def main():
            kubeconfig = site.credentials.kubeconfig_file
            options = ConnectionOptions(kubeconfig=kubeconfig, local=False, api_url=cluster.api_url)
            async with AsyncSandboxes(options=options) as sandboxes, sandboxes.use("t"):
                pass

        try:
            asyncio.run(main())
        finally:
            print("left", len(names()), flush=True)
        """,
        tmp_path,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGTERM)
    rest, _ = program.communicate(timeout=30)

    assert rest == "left 0\n"
    assert program.returncode == 143
