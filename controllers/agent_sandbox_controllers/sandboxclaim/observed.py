"""What a pass over one claim sees, gathered from the caches before anything is decided."""

from dataclasses import dataclass
from datetime import datetime

from agent_sandbox_api.agents.v1alpha1 import SandboxView
from agent_sandbox_api.extensions.v1alpha1 import (
    SandboxClaim,
    SandboxClaimView,
    SandboxTemplate,
    SandboxWarmPool,
)

NO_POOL = "none"
ANY_POOL = "default"


@dataclass(frozen=True)
class Candidate:
    """A pool member that a claim may take.

    Attributes:
        view: the Sandbox.
        fresh: whether it is made as the template is now.
    """

    view: SandboxView
    fresh: bool = True


@dataclass(frozen=True)
class ClaimObserved:
    """One claim and everything around it.

    Attributes:
        view: the cached claim, for its metadata and status.
        claim: its model, for its spec.
        now: the moment of this pass.
        remembered: name of the Sandbox that this process gave to the claim, which its status may not say yet.
        bound: the Sandbox that the claim controls by UID.
        namesake: the Sandbox that has the claim's name, whoever owns it.
        template: the template that the claim names; None if it does not exist.
        pool: the pool that the claim names; None if it names none or it does not exist.
        ready: members to take, Ready and free.
        pending: how many members are on their way: not Ready yet, or looked at by another claim right now.
        ahead: claims that wait for such a member before this one.
        patience: seconds that this claim may still wait.
        trace_context: this pass's own span, as an annotation for the Sandbox; empty where nobody traces.
    """

    view: SandboxClaimView
    claim: SandboxClaim
    now: datetime
    remembered: str | None = None
    bound: SandboxView | None = None
    namesake: SandboxView | None = None
    template: SandboxTemplate | None = None
    pool: SandboxWarmPool | None = None
    ready: tuple[Candidate, ...] = ()
    pending: int = 0
    ahead: int = 0
    patience: float = 0.0
    trace_context: str = ""

    @property
    def namespace(self) -> str:
        """The namespace of the claim and of its Sandbox."""
        return self.view.metadata.namespace

    @property
    def template_namespace(self) -> str:
        """The namespace of the template; the claim's own unless it says otherwise."""
        return self.claim.spec.sandbox_template_ref.namespace or self.namespace

    @property
    def named_pool(self) -> str | None:
        """The pool that the claim insists on; None for any or none."""
        wanted = self.claim.spec.warmpool or ANY_POOL
        return None if wanted in (NO_POOL, ANY_POOL) else wanted

    @property
    def takes_warm(self) -> bool:
        """Whether a member of a pool can be what the claim wants: variables and volumes of its own need a new
        Sandbox.
        """
        spec = self.claim.spec
        return (spec.warmpool or ANY_POOL) != NO_POOL and not spec.env and not spec.volume_claim_templates

    @property
    def recorded_name(self) -> str | None:
        """The Sandbox that the claim is known to have had: by its status, or because this process has just given it."""
        status = self.view.status
        return (status.sandbox.name if status.sandbox else None) or status.sandbox_name or self.remembered
