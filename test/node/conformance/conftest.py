"""Runs the cases of a module, side by side, on one node; for every runtime that this machine has."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_sandbox.kube import AlreadyExistsError, NotFoundError
from agent_sandbox.local.apiserver import StatusError
from agent_sandbox.local.node.gvisor_trial import INSTALL, find_program
from agent_sandbox.local.node.oci import ImageStore
from agent_sandbox.testing.images import shell_image
from agent_sandbox.testing.pods import IMAGE, Case, Json, Observed
from agent_sandbox_api.core import EVENTS, PODS

PATIENCE = 100.0
BACKGROUND = 60.0
OPTIONS = {"restart_backoff": 0.05, "restart_backoff_max": 0.2, "status_settle": 0.3}


@dataclass(frozen=True)
class RuntimeUnderTest:
    """A runtime, and how many Pods it is given at once.

    Attributes:
        image: for ``IMAGE``.
        class_name: for ``runtimeClassName``.
        at_once: Pods side by side.
    """

    image: str
    class_name: str = ""
    at_once: int = 30


RUNTIMES = {
    "bubblewrap": RuntimeUnderTest("localhost/host"),
    "bubblewrap-on-an-image": RuntimeUnderTest("localhost/shell:1"),
    "gvisor": RuntimeUnderTest("localhost/host", "gvisor", at_once=6),
    "gvisor-on-an-image": RuntimeUnderTest("localhost/shell:1", "gvisor", at_once=6),
}
SLOW = RUNTIMES.keys() - {"bubblewrap"}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNTIMES]
)
def observed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, root_files: Path) -> Any:
    """What became of the module's cases, by name."""
    runtime = RUNTIMES[request.param]
    if runtime.class_name == "gvisor" and find_program() is None:
        pytest.skip(f"runsc is not installed: {INSTALL}")
    state = tmp_path_factory.mktemp("node")
    request.getfixturevalue("share_root_files")(state)
    if runtime.image != "localhost/host":
        ImageStore(state / "images").add_layout(shell_image(tmp_path_factory.mktemp("image") / "layout"))
    return anyio.run(_observe_all, request.getfixturevalue("node_in"), state, runtime, request.module.CASES)


async def _observe_all(
    run_node: Callable[..., AbstractAsyncContextManager[Any]],
    state: Path,
    runtime: RuntimeUnderTest,
    cases: list[Case],
) -> Mapping[str, Observed]:
    found: dict[str, Observed] = {}
    limit = anyio.Semaphore(runtime.at_once)

    async def observe(stack: Any, case: Case) -> None:
        async with limit:
            found[case.name] = await _observe(stack, case, runtime)

    async with run_node(state, **OPTIONS) as stack, anyio.create_task_group() as group:
        for case in cases:
            group.start_soon(observe, stack, case)
    return found


async def _observe(stack: Any, case: Case, runtime: RuntimeUnderTest) -> Observed:
    for body in case.objects:
        with suppress(AlreadyExistsError):
            await stack.server.create(body)
    spec = json.loads(json.dumps(case.spec).replace(f'"{IMAGE}"', f'"{runtime.image}"'))
    if runtime.class_name:
        spec["runtimeClassName"] = runtime.class_name
    await stack.create_pod(case.name, spec, **case.metadata)
    pod = await _until(stack, case)
    result = await case.act(stack, case.name) if case.act is not None else None
    seen = await _look(stack, case, pod, result)
    with suppress(NotFoundError):  # the case has deleted it
        await stack.delete_pod(case.name, grace_period_seconds=0)
    return seen


async def _look(stack: Any, case: Case, pod: Json, result: Any) -> Observed:
    """What is there, once the Events, which are written in the background, are there too."""
    deadline = anyio.current_time() + BACKGROUND
    while True:
        logs = await _logs(stack, case.name, pod) if result is None else {}
        seen = Observed(pod, logs, await _events(stack, pod["metadata"]["uid"]), result)
        with suppress(LookupError, TypeError):
            if case.expect(seen) or anyio.current_time() > deadline:
                return seen
        if anyio.current_time() > deadline:
            return seen
        await anyio.sleep(0.05)


async def _until(stack: Any, case: Case) -> Json:
    pod: Json = {}
    with anyio.move_on_after(PATIENCE):
        while not (pod and case.until(pod)):
            await anyio.sleep(0.02)
            pod = await stack.client.get_object(PODS, case.name, "default")
    return pod


async def _logs(stack: Any, name: str, pod: Json) -> Mapping[str, str]:
    spec = pod["spec"]
    found = {}
    for container in (*spec["containers"], *(spec.get("initContainers") or [])):
        with suppress(StatusError):  # it never ran
            found[container["name"]] = await stack.log(name, container["name"])
    return found


async def _events(stack: Any, uid: str) -> list[str]:
    events = [
        await stack.client.get_object(EVENTS, event.metadata.name, "default")
        for event in (await stack.client.list(EVENTS, "default")).items
    ]
    mine = [event for event in events if event["regarding"]["uid"] == uid]
    return [f"{event['reason']}: {event['note']}" for event in sorted(mine, key=lambda event: event["eventTime"])]
