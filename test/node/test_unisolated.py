"""Pods without walls, which a user must ask for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent_sandbox.local.node import IsolationError, trial
from agent_sandbox_api.views import find_condition

RunNode = Callable[..., Any]
SANDBOX = {"containers": [{"name": "main", "image": "python-runtime-sandbox"}]}


async def test_unisolated_pods_work_on_loopback_addresses_and_say_loudly_what_they_are(run_node: RunNode) -> None:
    async with run_node(unisolated=True) as stack:
        for name in ("one", "two"):
            await stack.create_pod(name, SANDBOX)
        pods = [await stack.until_ready(name) for name in ("one", "two")]
        connector = aiohttp.TCPConnector(socket_factory=stack.node.network.socket_factory)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"http://{pods[0].ips[0]}:8888/execute"
            answer = await (await session.post(url, json={"command": "python -c 'print(6*7)'; pwd"})).json()
        command = await stack.execute("one", "main", ["sh", "-c", "pwd"])
        await stack.delete_pod("one")

    condition = find_condition(pods[0].status.conditions, "Unisolated")
    assert condition is not None
    assert (condition.status, "WITHOUT isolation" in condition.message) == ("True", True)
    assert all(pod.ips[0].startswith("127.77.") for pod in pods)
    assert answer["stdout"].splitlines()[0] == "42"
    assert command.out.decode().strip().endswith("/workspace")


def test_a_missing_program_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trial, "_SEARCH", str(tmp_path))

    with pytest.raises(IsolationError, match="apt-get install bubblewrap nftables") as caught:
        trial.find_tools()

    assert "--unisolated" in str(caught.value)
