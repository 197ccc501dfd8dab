"""The two served versions of the API, as far as a benchmark needs them: bodies to send, and where answers stand."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from agent_sandbox.kube import KubeClient, NotFoundError
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import ConditionView, MetaView, is_condition_true

AGENTS: Final = "agents.x-k8s.io"
EXTENSIONS: Final = "extensions.agents.x-k8s.io"
VERSIONS: Final = ("v1alpha1", "v1beta1")

Json = dict[str, Any]


class DialectError(Exception):
    """The cluster does not serve the four kinds in a version that is known here."""


class _Bound(msgspec.Struct, rename="camel", frozen=True):
    name: str = ""
    old_name: str = msgspec.field(default="", name="Name")  # v1alpha1 of 2025


class _Status(msgspec.Struct, rename="camel", frozen=True):
    conditions: tuple[ConditionView, ...] = ()
    sandbox: _Bound = _Bound()
    sandbox_name: str = ""
    ready_replicas: int = 0
    replicas: int = 0


class Seen(msgspec.Struct, rename="camel", frozen=True):
    """A claim, a Sandbox or a pool, in either version, as deep as a benchmark looks."""

    metadata: MetaView
    status: _Status = _Status()

    @property
    def is_ready(self) -> bool:
        """The condition Ready holds."""
        return is_condition_true(self.status.conditions, "Ready")

    @property
    def is_answered(self) -> bool:
        """A controller has written its status."""
        return self.status != _Status()

    @property
    def trouble(self) -> str:
        """Why it is not Ready, in the words of its condition; empty if it is, or says nothing."""
        for condition in self.status.conditions:
            if condition.type == "Ready" and condition.status != "True":
                return f"{condition.reason}: {condition.message}"
        return ""

    @property
    def is_suspended(self) -> bool:
        """The condition Suspended holds."""
        return is_condition_true(self.status.conditions, "Suspended")

    @property
    def sandbox(self) -> str:
        """The Sandbox that a claim got; empty as long as it has none."""
        return self.status.sandbox.name or self.status.sandbox.old_name or self.status.sandbox_name


@dataclass(frozen=True)
class Dialect:
    """One version of the API.

    Attributes:
        version: ``v1alpha1`` or ``v1beta1``.
    """

    version: str

    @property
    def sandboxes(self) -> Resource[Seen]:
        """The kind Sandbox."""
        return Resource(AGENTS, self.version, "sandboxes", "Sandbox", Seen)

    @property
    def templates(self) -> Resource[Seen]:
        """The kind SandboxTemplate."""
        return Resource(EXTENSIONS, self.version, "sandboxtemplates", "SandboxTemplate", Seen)

    @property
    def pools(self) -> Resource[Seen]:
        """The kind SandboxWarmPool."""
        return Resource(EXTENSIONS, self.version, "sandboxwarmpools", "SandboxWarmPool", Seen)

    @property
    def claims(self) -> Resource[Seen]:
        """The kind SandboxClaim."""
        return Resource(EXTENSIONS, self.version, "sandboxclaims", "SandboxClaim", Seen)

    def template(self, name: str, pod: Json) -> Json:
        """A template of this Pod, without Services, so that every implementation writes the same children."""
        return {"metadata": {"name": name}, "spec": {"podTemplate": {"spec": pod}, "service": False}}

    def pool(self, name: str, template: str, replicas: int) -> Json:
        """A pool of that size."""
        return {
            "metadata": {"name": name},
            "spec": {"replicas": replicas, "sandboxTemplateRef": {"name": template}},
        }

    def claim(self, name: str, template: str, pool: str | None) -> Json:
        """A claim on a pool, or a cold one.

        v1beta1 has no claim without a pool: there the template's own name is taken, and ``cold_pool`` makes the empty
        pool of that name.
        """
        if self.version == "v1beta1":
            spec: Json = {"warmPoolRef": {"name": pool or template}}
        else:
            spec = {"sandboxTemplateRef": {"name": template}, "warmpool": pool or "none"}
        return {"metadata": {"name": name}, "spec": spec}

    def cold_pool(self, template: str) -> Json | None:
        """What must exist before a cold claim, beside the template."""
        return self.pool(template, template, 0) if self.version == "v1beta1" else None

    def sandbox(self, name: str, pod: Json) -> Json:
        """A Sandbox that nobody owns."""
        return {"metadata": {"name": name}, "spec": {"podTemplate": {"spec": pod}, "service": False}}

    def running(self, wanted: bool) -> Json:
        """The merge patch that resumes or suspends a Sandbox."""
        if self.version == "v1beta1":
            return {"spec": {"operatingMode": "Running" if wanted else "Suspended"}}
        return {"spec": {"replicas": int(wanted)}}


class _GroupVersion(msgspec.Struct):
    version: str


class _Group(msgspec.Struct):
    versions: tuple[_GroupVersion, ...] = ()


async def find_dialect(client: KubeClient, wanted: str | None = None) -> Dialect:
    """The version to speak: the wanted one, else the first of ours that the server serves.

    Raises:
        DialectError: the server serves none of them, or not the wanted one.
    """
    try:
        answer = await client.request("GET", f"/apis/{EXTENSIONS}")
    except NotFoundError as error:
        raise DialectError(
            f"{client.transport.host} does not serve {EXTENSIONS}: kubectl apply -k config/crd brings it"
        ) from error
    served = [each.version for each in msgspec.json.decode(answer.body, type=_Group).versions]
    for version in (wanted,) if wanted else VERSIONS:
        if version in served:
            return Dialect(version)
    raise DialectError(
        f"{client.transport.host} serves {EXTENSIONS} as {', '.join(served)}, not as {wanted or ' or '.join(VERSIONS)}"
    )
