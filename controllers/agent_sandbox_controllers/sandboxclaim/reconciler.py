"""Reconciles SandboxClaims: gives each one Sandbox, and mirrors how it is."""

from dataclasses import replace
from typing import Final

import structlog

from agent_sandbox import tracing
from agent_sandbox.kube import (
    AlreadyExistsError,
    ApiError,
    NotFoundError,
    Propagation,
    ServerError,
    TransportError,
    UnreachableError,
)
from agent_sandbox.runtime import Request, Result
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_CLAIMS,
    ClaimShutdownPolicy,
    SandboxClaimView,
    SandboxTemplate,
    SandboxWarmPoolView,
)
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.names import CONDITION_READY, LABEL_CLAIM_UID, LABEL_CREATED_BY, LABEL_LAUNCH_TYPE
from agent_sandbox_api.views import find_condition
from agent_sandbox_controllers.actions import Create, change, perform, remove
from agent_sandbox_controllers.holding import CLAIM_DELAYS
from agent_sandbox_controllers.indexes import BY_OWNER, owner_value
from agent_sandbox_controllers.memory import Identities
from agent_sandbox_controllers.metrics import UNKNOWN
from agent_sandbox_controllers.object_names import template_id
from agent_sandbox_controllers.ownership import Ownership, ownership_of
from agent_sandbox_controllers.parsed import pool_model, template_model
from agent_sandbox_controllers.sandbox.pod_metadata import normalised_creator
from agent_sandbox_controllers.sandboxclaim.adoption import Adoptions, Unanswered
from agent_sandbox_controllers.sandboxclaim.expiry import expiry_of, finished_condition, seconds_until
from agent_sandbox_controllers.sandboxclaim.latency import Latency
from agent_sandbox_controllers.sandboxclaim.line import Line
from agent_sandbox_controllers.sandboxclaim.metadata import merged_metadata, metadata_trouble
from agent_sandbox_controllers.sandboxclaim.observed import Candidate, ClaimObserved
from agent_sandbox_controllers.sandboxclaim.offers import Offers
from agent_sandbox_controllers.sandboxclaim.plan import (
    Adopt,
    Keep,
    Refuse,
    StartCold,
    Vanished,
    Wait,
    decide,
    pod_metadata_update,
)
from agent_sandbox_controllers.sandboxclaim.status import (
    bound_status,
    deletes_itself,
    expired_status,
    is_marked_expired,
    refused_status,
    vanished_status,
)
from agent_sandbox_controllers.sandboxwarmpool.members import is_of_template, is_ready
from agent_sandbox_controllers.start_trace import start_span
from agent_sandbox_controllers.status import Status
from agent_sandbox_controllers.status_writer import StatusWriter
from agent_sandbox_controllers.template_record import TemplateRecord, is_open_to
from agent_sandbox_controllers.troubles import Trouble, trouble_of
from agent_sandbox_controllers.vocabulary import LAUNCH_WARM, Reason
from agent_sandbox_controllers.waiting import SOON, look_again, soonest
from agent_sandbox_controllers.world import World

log = structlog.get_logger(__name__)

ROUNDS: Final = 3
"""How often one pass decides anew because what it wanted to take was gone."""
AGAIN: Final = 0.2
"""Seconds until the next pass where the cache did not catch up within this one."""


class ClaimReconciler:
    """Gives each claim its Sandbox.

    Guarantees:
        The record of who owns a Sandbox is the Sandbox's ownerReference and nothing else: one write decides, and a
        crash after it loses nothing. A claim that once had a Sandbox never silently gets another.
    """

    def __init__(self, world: World, line: Line) -> None:
        self._world = world
        self._line = line
        self._offers = Offers(world, line)
        self._adoptions = Adoptions(world, line)
        self._statuses = StatusWriter(world.client, SANDBOX_CLAIMS, CLAIM_DELAYS, self._warn)
        self._latency = Latency(world)
        # Per claim UID: the Sandbox it was given. Says whose start was told, and that a Sandbox which goes before the
        # status names it is missed and not replaced.
        self._started: dict[str, str] = {}
        self._identities = Identities(
            self._statuses.forget, self._adoptions.forget, self._latency.forget, self._forget_start
        )

    async def reconcile(self, request: Request) -> Result:
        """Bring one claim nearer to what it wants; see ``runtime.Reconciler``."""
        view = self._world.claims.get(request.namespace, request.name)
        if view is None or view.metadata.deleting:
            self._line.leave(request)
            if view is None:
                self._identities.gone(request)
            return Result.done()
        self._identities.seen(request, view.metadata.uid)
        with start_span(SANDBOX_CLAIMS, view.metadata, view.status.conditions):
            return await self._reconcile(view, request)

    async def _reconcile(self, view: SandboxClaimView, request: Request) -> Result:
        self._latency.first_seen(view)
        unanswered = await self._adoptions.settle(view.metadata)
        observed = self._observe(view, request, unanswered)
        end = expiry_of(observed.claim, finished_condition(view))
        left = seconds_until(end, observed.now)
        if left is not None and left <= 0:
            self._line.leave(request)
            wait = await self._expire(observed)
        else:
            wait = await self._serve(observed, request)
            # This pass may have written that the Pod finished, from which a time to live counts.
            end = expiry_of(observed.claim, finished_condition(self._on_record(observed)))
            wait = soonest(wait, seconds_until(end, observed.now))
        return look_again(wait)

    def _on_record(self, observed: ClaimObserved) -> SandboxClaimView:
        """The claim as this pass's writes have left it."""
        meta = observed.view.metadata
        current = self._world.claims.get(meta.namespace, meta.name)
        return current if current is not None and current.metadata.uid == meta.uid else observed.view

    # Seeing

    def _observe(self, view: SandboxClaimView, request: Request, unanswered: Unanswered | None = None) -> ClaimObserved:
        bare = ClaimObserved(
            view=view,
            claim=view.model(),
            now=self._world.clock.now(),
            remembered=self._started.get(view.metadata.uid),
            trace_context=tracing.to_annotation(tracing.current()),
        )
        bound = self._bound(bare)
        bare = replace(bare, bound=bound, template=self._template(bare, bound))
        if bound is not None or bare.recorded_name is not None:
            return bare
        meta = view.metadata
        pool = self._world.pools.get(meta.namespace, bare.named_pool) if bare.named_pool else None
        bare = replace(
            bare,
            namesake=self._world.sandboxes.get(meta.namespace, meta.name),
            pool=pool_model(pool) if pool is not None else None,
            ahead=self._line.ahead_of(_place(bare), request),
            patience=self._world.options.claim_patience - self._latency.age(meta.uid),
        )
        if unanswered is not None:
            return replace(bare, ready=(Candidate(unanswered.member),) if unanswered.member else ())
        return self._with_offers(bare, pool)

    def _with_offers(self, observed: ClaimObserved, pool: SandboxWarmPoolView | None) -> ClaimObserved:
        """Add what the pools have. Pools serve their own namespace, from templates of that namespace."""
        template = observed.template
        if template is None or not observed.takes_warm or template.metadata.namespace != observed.namespace:
            return observed
        if observed.named_pool is not None and pool is None:
            return observed
        pools = self._offers.pools_for(template, pool)
        ready = self._offers.ready(pools, template)
        return replace(observed, ready=ready, pending=0 if ready else self._offers.pending(pools, template))

    def _bound(self, observed: ClaimObserved) -> SandboxView | None:
        """The Sandbox that this claim controls; the recorded one if somebody made several look so."""
        owned = self._world.sandboxes.by_index(BY_OWNER, owner_value(observed.view.metadata))
        recorded = observed.recorded_name
        if recorded is not None:
            return next((each for each in owned if each.metadata.name == recorded), None)
        return min(owned, key=lambda each: (str(each.metadata.creation_timestamp), each.metadata.name), default=None)

    def _template(self, observed: ClaimObserved, bound: SandboxView | None) -> SandboxTemplate | None:
        """The template: for a bound claim the one that its Sandbox was made from, whatever the claim says now."""
        record = TemplateRecord.read(bound.metadata) if bound is not None else None
        if record is not None:
            view = self._world.templates.get(record.namespace, record.name)
        else:
            name = observed.claim.spec.sandbox_template_ref.name
            view = self._world.templates.get(observed.template_namespace, name)
        # One that is going has perhaps lost its policy already, and would not get it back.
        template = template_model(view) if view is not None and not view.metadata.deleting else None
        if record is not None and template is not None and not is_open_to(template, observed.namespace):
            return None  # whoever may edit the record could read through it what other namespaces' templates say
        return template

    # Serving

    async def _serve(self, observed: ClaimObserved, request: Request) -> float | None:
        """Act on what is decided, and decide anew where the world turned out to be another."""
        for _ in range(ROUNDS):
            match decide(observed, self._world.options.allowed_label_domains):
                case Wait(seconds):
                    self._line.join(_place(observed), request)
                    return seconds
                case Keep(sandbox):
                    return await self._keep(observed, sandbox, request)
                case Refuse(trouble):
                    return await self._refuse(observed, trouble, request)
                case Vanished(name):
                    known = find_condition(observed.view.status.conditions, CONDITION_READY)
                    if known is not None and known.reason == Reason.SANDBOX_MISSING:
                        return await self._write(observed, vanished_status(observed, name))
                    live = await self._world.look(SANDBOXES, observed.namespace, name)
                    if live is None or ownership_of(live.metadata, observed.view.metadata.uid) is not Ownership.OWNED:
                        return await self._write(observed, vanished_status(observed, name))
                case Adopt(candidates, template):
                    taken = await self._adopt(observed, candidates, template)
                    if taken is not None:
                        return await self._keep(observed, taken, request)
                case StartCold(create):
                    started = await self._start_cold(observed, create)
                    if isinstance(started, Trouble):
                        return await self._refuse(observed, started, request)
                    if started is not None:
                        return await self._keep(observed, started, request)
            current = self._world.claims.get(request.namespace, request.name)
            if current is None or current.metadata.uid != observed.view.metadata.uid:
                return SOON
            observed = self._observe(current, request)
        return AGAIN

    async def _adopt(
        self, observed: ClaimObserved, candidates: tuple[Candidate, ...], template: SandboxTemplate
    ) -> SandboxView | None:
        def still_fits(member: SandboxView) -> bool:
            return is_ready(member) and is_of_template(member, TemplateRecord.of(template))

        pools = {each.view.metadata.uid: each.view.metadata.controller for each in candidates}
        taken = await self._adoptions.take_first(observed, candidates, template, still_fits)
        if taken is None:
            return None
        pool = pools.get(taken.metadata.uid)
        self._note_start(observed, taken, pool.name if pool else UNKNOWN)
        return taken

    async def _start_cold(self, observed: ClaimObserved, create: Create) -> SandboxView | Trouble | None:
        """Make the claim's own Sandbox; None if one of that name turns out to exist."""
        uid = observed.view.metadata.uid
        try:
            created = await perform(self._world.client, create)
        except AlreadyExistsError:
            self._adoptions.forget(uid)
            await self._world.look(SANDBOXES, observed.namespace, create.name)
            return None
        except UnreachableError:
            raise
        except (TransportError, ServerError):
            self._adoptions.note_unanswered(uid, create.name)
            raise
        except ApiError as error:
            trouble = trouble_of(error, f'create Sandbox "{create.name}"')
            if trouble is None:
                raise
            return trouble
        assert isinstance(created, SandboxView), "the answer to a create of a Sandbox is a Sandbox"
        self._adoptions.forget(uid)
        self._note_start(observed, created, "none")
        return created

    # Keeping

    async def _keep(self, observed: ClaimObserved, sandbox: SandboxView, request: Request) -> float | None:
        """The claim has its Sandbox: pass on changed metadata, and mirror its state."""
        self._line.leave(request)
        if observed.view.metadata.uid not in self._started and observed.view.status.sandbox_name is None:
            self._note_start(observed, sandbox, UNKNOWN)
        unapplied = metadata_trouble(observed.claim, self._world.options.allowed_label_domains)
        if unapplied is None and observed.bound is not None and observed.template is not None:
            merged = merged_metadata(observed.template.spec.pod_template.metadata, observed.claim)
            if isinstance(merged, Trouble):
                unapplied = merged
            elif not sandbox.metadata.deleting:
                sandbox = await self._pass_on(observed, sandbox, observed.template)
        wait = await self._write(observed, bound_status(observed, sandbox, unapplied), sandbox)
        await self._remove_doubles(observed)
        return wait

    async def _remove_doubles(self, observed: ClaimObserved) -> None:
        """Remove what was made for this claim besides the Sandbox that its status names.

        A leader that dies may have a create or an adoption under way that takes effect after its successor has given
        the claim another Sandbox. Nobody was ever told of it.
        """
        uid, told = observed.view.metadata.uid, self._on_record(observed).status.sandbox_name
        for double in self._world.sandboxes.by_index(BY_OWNER, owner_value(observed.view.metadata)) if told else ():
            meta = double.metadata
            if meta.name != told and not meta.deleting and meta.labels.get(LABEL_CLAIM_UID) == uid:
                log.warning("a second sandbox of a claim is removed", sandbox=meta.name, told=told)
                await perform(self._world.client, remove(SANDBOXES, meta, locked=True))

    async def _pass_on(self, observed: ClaimObserved, sandbox: SandboxView, template: SandboxTemplate) -> SandboxView:
        body: JsonObject = {}
        if update := pod_metadata_update(observed, sandbox, template):
            body["spec"] = update
        creator = observed.view.metadata.labels.get(LABEL_CREATED_BY)
        if sandbox.metadata.labels.get(LABEL_CREATED_BY) != creator:
            body["metadata"] = {"labels": {LABEL_CREATED_BY: creator}}
        if not body:
            return sandbox
        try:
            changed = await perform(self._world.client, change(SANDBOXES, sandbox.metadata, body))
        except NotFoundError:
            # It was just deleted; the watch will say so.
            return sandbox
        assert isinstance(changed, SandboxView), "the answer to a patch of a Sandbox is a Sandbox"
        return changed

    async def _refuse(self, observed: ClaimObserved, trouble: Trouble, request: Request) -> float | None:
        self._line.leave(request)
        wait = await self._write(observed, refused_status(observed, trouble))
        return soonest(wait, trouble.retry_after)

    # Expiring

    async def _expire(self, observed: ClaimObserved) -> float | None:
        """Two passes: first everybody is told, then the Sandbox goes, or the claim with all that it owns."""
        if not is_marked_expired(observed):
            await self._write(observed, expired_status(observed, done=False))
            self._tell(observed, "ClaimExpired", "Claim Expired", "Claim expired")
            return SOON
        if deletes_itself(observed.claim):
            await self._delete_claim(observed)
            return None
        bound = observed.bound
        if bound is not None:
            if not bound.metadata.deleting:
                await perform(self._world.client, remove(SANDBOXES, bound.metadata))
            left = self._world.sandboxes.by_index(BY_OWNER, owner_value(observed.view.metadata))
            if not left:
                self._forget_start(observed.view.metadata.uid)
            return await self._write(observed, expired_status(observed, done=not left))
        self._forget_start(observed.view.metadata.uid)
        name = observed.recorded_name
        foreign = name if name and self._world.sandboxes.get(observed.namespace, name) is not None else None
        return await self._write(observed, expired_status(observed, done=True, foreign=foreign))

    async def _delete_claim(self, observed: ClaimObserved) -> None:
        lifecycle = observed.claim.spec.lifecycle
        assert lifecycle is not None, "only a lifecycle lets a claim delete itself"
        policy = lifecycle.shutdown_policy
        self._tell(observed, "ClaimExpired", "Deleting", f"Deleting Claim (ShutdownPolicy={policy})")
        foreground = Propagation.FOREGROUND if policy == ClaimShutdownPolicy.DELETE_FOREGROUND else None
        await perform(
            self._world.client,
            replace(remove(SANDBOX_CLAIMS, observed.view.metadata, locked=True), propagation=foreground),
        )

    # Telling

    async def _write(self, observed: ClaimObserved, status: Status, sandbox: SandboxView | None = None) -> float | None:
        wait = await self._statuses.write(observed.view, status, self._world.clock.monotonic())
        if wait is None and sandbox is not None:
            self._latency.served(observed, sandbox, status)
        return wait

    def _forget_start(self, uid: str) -> None:
        self._started.pop(uid, None)

    def _note_start(self, observed: ClaimObserved, sandbox: SandboxView, pool: str) -> None:
        """Count and tell that a claim got its Sandbox, once, also if a crash came between the two."""
        if observed.view.metadata.uid in self._started:
            return
        self._started[observed.view.metadata.uid] = sandbox.metadata.name
        metrics, template = self._world.metrics, observed.claim.spec.sandbox_template_ref.name
        name, launch = sandbox.metadata.name, sandbox.metadata.labels.get(LABEL_LAUNCH_TYPE, UNKNOWN)
        metrics.claims_created.labels(
            namespace=observed.namespace,
            sandbox_template=template,
            launch_type=launch,
            warmpool_name=pool,
            pod_condition="ready" if is_ready(sandbox) else "not_ready",
            created_by=normalised_creator(observed.view.metadata.labels.get(LABEL_CREATED_BY, "")),
        ).inc()
        if observed.takes_warm:
            metrics.pool_hits.labels(observed.namespace, template, "hit" if launch == LAUNCH_WARM else "miss").inc()
        if launch == LAUNCH_WARM:
            self._tell(observed, "SandboxAdopted", "Adoption", f'Adopted warm pool Sandbox "{name}"')
        else:
            self._tell(observed, "SandboxProvisioned", "Provisioning", f'Created Sandbox "{name}"')

    def _warn(self, view: SandboxClaimView, reason: str, message: str) -> None:
        self._world.events.event(
            view, type="Warning", reason=reason, action="Waiting", note=message, resource=SANDBOX_CLAIMS
        )

    def _tell(self, observed: ClaimObserved, reason: str, action: str, note: str) -> None:
        if self._world.options.claim_events:
            self._world.events.event(
                observed.view, type="Normal", reason=reason, action=action, note=note, resource=SANDBOX_CLAIMS
            )


def _place(observed: ClaimObserved) -> str:
    """Where in the line this claim waits: at its pool, or at all pools of its template."""
    if observed.named_pool is not None:
        return pool_place(observed.namespace, observed.named_pool)
    name = observed.claim.spec.sandbox_template_ref.name
    return template_place(template_id(observed.template_namespace, name))


def pool_place(namespace: str, pool: str) -> str:
    """The place of claims that insist on a pool."""
    return f"pool/{namespace}/{pool}"


def template_place(identity: str) -> str:
    """The place of claims that take any pool of a template."""
    return f"template/{identity}"
