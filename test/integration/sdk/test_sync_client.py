"""SandboxClient: the same, from ordinary threads, with Ctrl-C."""

import os
import signal
import threading
import time

import pytest

from agent_sandbox.sdk import SandboxClient, SandboxTemplateNotFoundError
from agent_sandbox.sdk.loop_thread import shared_loop
from agent_sandbox.testing.pretend_cluster import PretendCluster


def client_of(cluster: PretendCluster, **options: object) -> SandboxClient:
    """A client of the pretend cluster."""
    return SandboxClient("python", kube=cluster.kube, api_url=cluster.api_url, **options)  # type: ignore[arg-type]


def claim_names(cluster: PretendCluster) -> list[str]:
    """The claims that exist."""
    return shared_loop().run(lambda _: cluster.claim_names())


def test_the_example_of_the_seed_works_as_written(sync_cluster: PretendCluster) -> None:
    with client_of(sync_cluster) as sandbox:
        result = sandbox.run("python3 -c 'print(42)'")
        sandbox.write("test.py", "print('Hello')")
        hello = sandbox.run("python3 test.py")

        assert result.stdout == "42\n"
        assert hello.stdout == "Hello\n"
        assert sandbox.read("test.py") == b"print('Hello')"
        assert sandbox.is_ready()
        assert claim_names(sync_cluster) == [sandbox.claim_name]
    assert claim_names(sync_cluster) == []


def test_exit_may_be_called_twice(sync_cluster: PretendCluster) -> None:
    client = client_of(sync_cluster)
    client.__enter__()
    client.__exit__(None, None, None)
    client.__exit__(None, None, None)

    assert claim_names(sync_cluster) == []


def test_errors_of_the_core_arrive_as_they_are(sync_cluster: PretendCluster) -> None:
    sync_cluster.answer = lambda _: {"status": "False", "reason": "TemplateNotFound", "message": "no python"}

    with pytest.raises(SandboxTemplateNotFoundError, match="no python"), client_of(sync_cluster):
        pytest.fail("entered")


def test_ctrl_c_while_waiting_for_the_sandbox_deletes_the_claim(sync_cluster: PretendCluster) -> None:
    sync_cluster.answer = lambda _: os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), client_of(sync_cluster):
        pytest.fail("entered")
    assert claim_names(sync_cluster) == []


def test_ctrl_c_while_a_command_runs_deletes_the_claim(sync_cluster: PretendCluster) -> None:
    def interrupt_once_the_daemon_is_asked(before: int) -> None:
        while len(sync_cluster.requests) == before:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    def run_interrupted(sandbox: SandboxClient) -> None:
        threading.Thread(target=interrupt_once_the_daemon_is_asked, args=[len(sync_cluster.requests)]).start()
        sandbox.run("sleep 60")

    with pytest.raises(KeyboardInterrupt), client_of(sync_cluster) as sandbox:
        run_interrupted(sandbox)

    assert claim_names(sync_cluster) == []


def test_many_threads_share_one_loop(sync_cluster: PretendCluster) -> None:
    outputs: list[str] = []

    def work(number: int) -> None:
        with client_of(sync_cluster) as sandbox:
            outputs.append(sandbox.run(f"echo {number}").stdout.strip())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outputs) == [str(number) for number in range(8)]
    assert claim_names(sync_cluster) == []
    assert sum(thread.name == "agent-sandbox-loop" for thread in threading.enumerate()) == 1
