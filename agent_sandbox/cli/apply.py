"""`agent-sandbox apply`: server-side apply for people without kubectl."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import click
import msgspec

from agent_sandbox.cli.connection import connect_for, connection_options
from agent_sandbox.cli.manifests import Manifest, read_manifests
from agent_sandbox.cli.namespaces import NAMESPACE
from agent_sandbox.cli.sandboxes.values import DURATION
from agent_sandbox.kube import ApplyPatch, KubeClient, KubeError, NotFoundError
from agent_sandbox_api.core import MetaOnlyView
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import MetaView

FIELD_MANAGER = "agent-sandbox-apply"


@click.command()
@click.option(
    "-f", "--filename", "sources", multiple=True, required=True, help="File, folder, or - for standard input."
)
@click.option(
    "-n", "--namespace", type=NAMESPACE, default="default", show_default=True, help="For objects that name none."
)
@click.option("--wait", is_flag=True, help="Wait until the applied sandboxes, claims and pools are Ready.")
@click.option("--timeout", type=DURATION, default=120.0, show_default="2m", help="How long --wait waits for each.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing on success.")
@connection_options()
def apply(
    sources: tuple[str, ...],
    namespace: str,
    wait: bool,
    timeout: float,
    quiet: bool,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Create or update the objects in manifests.

    \b
    agent-sandbox apply -f config/samples
    agent-sandbox apply -f template.yaml -f pool.yaml --wait
    """
    manifests = read_manifests(sources)
    say = (lambda text: None) if quiet else click.echo
    work = functools.partial(_apply_all, manifests, namespace, wait, timeout, say, kubeconfig, context)
    try:
        anyio.run(work)
    except KubeError as error:
        raise click.ClickException(str(error)) from error
    except TimeoutError as error:
        raise click.ClickException(str(error)) from error


async def _apply_all(
    manifests: list[Manifest],
    namespace: str,
    wait: bool,
    timeout: float,
    say: Callable[[str], object],
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    client = await connect_for(kubeconfig, context, field_manager=FIELD_MANAGER)
    try:
        applied: list[tuple[Resource[MetaOnlyView], MetaView]] = []
        for manifest in manifests:
            resource = await find_resource(client, manifest["apiVersion"], manifest["kind"])
            home = manifest["metadata"].get("namespace", namespace) if resource.namespaced else None
            patch = ApplyPatch(manifest, force=True)
            view = await client.patch(resource, manifest["metadata"]["name"], patch, home)
            say(f"{resource.kind.lower()}/{view.metadata.name} applied")
            applied.append((resource, view.metadata))
        if wait:
            await wait_until_ready(client, applied, timeout, say)
    finally:
        await client.aclose()


async def find_resource(client: KubeClient, api_version: str, kind: str) -> Resource[MetaOnlyView]:
    """Where the server keeps a kind, by its discovery.

    Raises:
        click.ClickException: the server does not know the kind.
    """
    group, _, version = api_version.rpartition("/")
    path = f"/apis/{api_version}" if group else f"/api/{version}"
    try:
        served = msgspec.json.decode((await client.request("GET", path)).body).get("resources", [])
    except NotFoundError:
        served = []
    for entry in served:
        if entry["kind"] == kind and "/" not in entry["name"]:
            return Resource(group, version, entry["name"], kind, MetaOnlyView, entry["namespaced"])
    raise click.ClickException(
        f"the server knows no {kind} of {api_version}: correct the manifest, or, if it is one of our four kinds, "
        "install them: kubectl apply --server-side -k config/crd"
    )


async def wait_until_ready(
    client: KubeClient,
    applied: list[tuple[Resource[MetaOnlyView], MetaView]],
    timeout: float,
    say: Callable[[str], object],
) -> None:
    """Wait for the Ready condition of every object that will have one.

    Raises:
        TimeoutError: one was not Ready in time; says which, and its last condition.
    """
    for resource, metadata in applied:
        if not resource.group.endswith("agents.x-k8s.io") or resource.kind == "SandboxTemplate":
            continue
        name = f"{resource.kind.lower()}/{metadata.name}"
        last = "it has no Ready condition yet"
        try:
            with anyio.fail_after(timeout):
                while True:
                    current = await client.get_object(resource, metadata.name, metadata.namespace)
                    ready = _ready_condition(current)
                    if ready.get("status") == "True" and ready.get("observedGeneration", 0) >= metadata.generation:
                        break
                    if ready:
                        last = f"{ready.get('reason')}: {ready.get('message')}"
                    await anyio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"{name} was not Ready within {timeout:g} s; {last}") from None
        say(f"{name} is Ready")


def _ready_condition(current: dict[str, Any]) -> dict[str, Any]:
    for condition in current.get("status", {}).get("conditions") or []:
        if condition["type"] == "Ready":
            return dict(condition)
    return {}
