"""What goes wrong is said at once, to whom it concerns, with the way out."""

import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_sandbox import SandboxClient, SandboxPodFailedError, SandboxTemplateNotFoundError
from agent_sandbox.kube import connect_to
from agent_sandbox.local.state import StackRecord
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES
from agent_sandbox_api.views import find_condition

pytestmark = pytest.mark.node


def test_a_claim_for_a_missing_template_ends_in_a_typed_error_at_once(stack: Path) -> None:
    """Not after the ready timeout of three minutes; the error names the template; no claim is left."""
    began = time.monotonic()

    with pytest.raises(SandboxTemplateNotFoundError, match="no-such-template"):
        SandboxClient(template_name="no-such-template", state_dir=stack).__enter__()

    assert time.monotonic() - began < 120
    assert anyio.run(_list, stack, SANDBOX_CLAIMS) == []


def test_a_command_that_does_not_exist_is_told_in_the_condition_and_in_the_error(stack: Path) -> None:
    """The Sandbox's Ready condition and the SDK's error both name the command."""
    template = anyio.run(_create_broken_template, stack)

    with pytest.raises(SandboxPodFailedError, match="/no/such/program"):
        SandboxClient(template_name="broken", claim_name="doomed", state_dir=stack, ttl=None).__enter__()

    anyio.run(_delete_broken_template, stack, template)


def test_the_condition_of_a_sandbox_says_why_its_pod_does_not_start(stack: Path) -> None:
    """`kubectl get sandbox` shows the container's own reason, and the message names the command."""
    message, reason = anyio.run(_ready_of_broken_sandbox, stack)

    assert "/no/such/program" in message
    assert reason not in {"DependenciesNotReady", "SandboxNotReady"}


async def _list(stack: Path, resource: Any) -> list[str]:
    async with _client(stack) as client:
        with anyio.fail_after(60):
            while True:
                names = [view.metadata.name for view in (await client.list(resource)).items]
                if not names:
                    return names
                await anyio.sleep(0.05)


async def _create_broken_template(stack: Path) -> str:
    async with _client(stack) as client:
        made = await client.create(
            SANDBOX_TEMPLATES, {"metadata": {"name": "broken"}, "spec": {"podTemplate": _BROKEN}}, "default"
        )
    return str(made.metadata.uid)


async def _delete_broken_template(stack: Path, uid: str) -> None:
    async with _client(stack) as client:
        await client.delete(SANDBOX_TEMPLATES, "broken", "default", uid=uid)


async def _ready_of_broken_sandbox(stack: Path) -> tuple[str, str]:
    async with _client(stack) as client:
        await client.create(SANDBOXES, {"metadata": {"name": "broken"}, "spec": {"podTemplate": _BROKEN}}, "default")
        with anyio.fail_after(60):
            while True:
                sandbox = await client.get(SANDBOXES, "broken", "default")
                ready = find_condition(sandbox.status.conditions, "Ready")
                if ready is not None and "/no/such/program" in ready.message:
                    await client.delete(SANDBOXES, "broken", "default", uid=sandbox.metadata.uid)
                    return ready.message, ready.reason
                await anyio.sleep(0.05)


_BROKEN = {
    "spec": {"containers": [{"name": "main", "image": "python-runtime-sandbox", "command": ["/no/such/program"]}]}
}


class _client:  # noqa: N801 - reads as a verb
    """A client of the stack's API server for a block."""

    def __init__(self, stack: Path) -> None:
        record = StackRecord.read(stack)
        assert record is not None
        self._api = record.api

    async def __aenter__(self) -> Any:
        self._kube = await connect_to(self._api.url, token_file=self._api.token_file, ca_file=self._api.ca_file)
        return self._kube

    async def __aexit__(self, *_: object) -> None:
        await self._kube.aclose()
