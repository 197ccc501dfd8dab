"""Reconciles SandboxWarmPools: keeps them at their size, and says what keeps them from it."""

import random
from collections.abc import Iterable
from typing import Final

from agent_sandbox.kube import AlreadyExistsError, ApiError, ConflictError, NotFoundError, ServerError
from agent_sandbox.runtime import Change, Controller, Request, Result, not_own_status
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.extensions.v1alpha1 import (
    SANDBOX_TEMPLATES,
    SANDBOX_WARM_POOLS,
    SandboxTemplate,
    SandboxTemplateView,
    SandboxWarmPoolView,
)
from agent_sandbox_api.names import CONDITION_PROGRESSING, name_hash
from agent_sandbox_controllers.actions import Change as ChangeAction
from agent_sandbox_controllers.actions import Create, Remove, perform
from agent_sandbox_controllers.blueprint import sandbox_hash, template_hash
from agent_sandbox_controllers.conditions import status_of
from agent_sandbox_controllers.holding import WriteHold
from agent_sandbox_controllers.indexes import BY_OWNER, BY_TEMPLATE_REF, ORPHANS, owner_value
from agent_sandbox_controllers.memory import Identities
from agent_sandbox_controllers.object_names import member_name
from agent_sandbox_controllers.ownership import Ownership, ownership_of
from agent_sandbox_controllers.parsed import pool_model, template_model
from agent_sandbox_controllers.recreation import Recreation
from agent_sandbox_controllers.sandboxwarmpool.batches import in_batches
from agent_sandbox_controllers.sandboxwarmpool.members import Member, is_of_template, new_member
from agent_sandbox_controllers.sandboxwarmpool.pacing import Pacing
from agent_sandbox_controllers.sandboxwarmpool.plan import PoolObserved, PoolPlan, plan_pool
from agent_sandbox_controllers.sandboxwarmpool.status import NOT_PROGRESSING, PROGRESSING, is_urgent, pool_status
from agent_sandbox_controllers.status import Status, status_change, status_json
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.troubles import Trouble, trouble_of
from agent_sandbox_controllers.urgency import Urgency
from agent_sandbox_controllers.waiting import SOON, look_again, soonest
from agent_sandbox_controllers.world import World

RISING_DELAY: Final = 1.0
"""Seconds for which growing readyReplicas are collected into one status write."""
MEMBERS_PAUSE: Final = 0.1
"""Seconds for which changes of members are collected into one pass, whose work grows with the pool."""
_SUFFIX_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
"""The alphabet of Kubernetes' generated names: no vowels, so no words; nothing that looks like something else."""
_SUFFIX_LENGTH: Final = 5


class PoolReconciler:
    """Keeps each pool at its size.

    Guarantees:
        Never more members than wanted: those on their way out count, and what this process creates is in the store
        before the next pass looks. A name whose creation was not answered is used again before any new one, so that it
        becomes one member whatever happened. Members are removed only in the version that was looked at.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._pacing = Pacing(world.options.pool_replenish_delay, world.options.pool_refill_rate)
        self._falling = WriteHold((world.options.pool_status_delay,))
        self._rising = WriteHold((RISING_DELAY,))
        self._random = random.Random(world.options.member_suffixes)  # noqa: S311 - names, not secrets
        # Per pool UID: names of members that were sent to the server without an answer.
        self._unanswered: dict[str, list[str]] = {}
        # Pools that lost a member which neither they nor a claim took away, until the next member is made.
        self._lost: set[str] = set()
        self._recreation = Recreation()
        # UIDs of members that this process removes.
        self._removing: set[str] = set()
        self._identities = Identities(
            self._pacing.forget,
            self._falling.forget,
            self._rising.forget,
            self._forget_unanswered,
            self._recreation.forget,
            self._lost.discard,
        )

    async def reconcile(self, request: Request) -> Result:
        """Bring one pool nearer to what it wants; see ``runtime.Reconciler``."""
        view = self._world.pools.get(request.namespace, request.name)
        if view is None:
            self._identities.gone(request)
            self._world.metrics.forget_pool(request.namespace, request.name)
            return Result.done()
        self._identities.seen(request, view.metadata.uid)
        if view.metadata.deleting:
            return Result.done()
        observed = self._observe(view)
        plan = plan_pool(observed, self._world.options)
        trouble, failure, paced = await self._carry_out(observed, plan)
        current = self._world.pools.get(request.namespace, request.name)
        if current is None or current.metadata.uid != view.metadata.uid:
            return Result.requeue_after(SOON)
        held_back = await self._write_status(self._observe(current), trouble, plan.held)
        if failure is not None:
            raise failure
        wait = soonest(plan.look_again, paced, held_back, trouble.retry_after if trouble else None)
        return look_again(wait)

    # Seeing

    def _observe(self, view: SandboxWarmPoolView) -> PoolObserved:
        world, meta = self._world, view.metadata
        pool = pool_model(view)
        template_view = world.templates.get(meta.namespace, pool.spec.sandbox_template_ref.name)
        going = template_view is not None and template_view.metadata.deleting
        template = template_model(template_view) if template_view is not None and not going else None
        wanted = template_hash(template) if template is not None else ""
        record = TemplateRecord.of(template) if template is not None else None
        orphans = world.sandboxes.by_index(ORPHANS, f"{meta.namespace}/{name_hash(meta.name)}")
        candidates = [self._member(each, wanted, record) for each in orphans] if template is not None else []
        members = [self._member(each, wanted, record) for each in world.sandboxes.by_index(BY_OWNER, owner_value(meta))]
        return PoolObserved(
            view=view,
            pool=pool,
            template=template,
            members=tuple(members),
            orphans=tuple(each for each in candidates if not each.stale and not each.retargeted),
            now=world.clock.now(),
        )

    def _member(self, view: SandboxView, wanted: str, record: TemplateRecord | None) -> Member:
        if record is None:
            return Member(view)
        return Member(view, stale=sandbox_hash(view.spec) != wanted, retargeted=not is_of_template(view, record))

    # Writing

    async def _carry_out(
        self, observed: PoolObserved, plan: PoolPlan
    ) -> tuple[Trouble | None, Exception | None, float | None]:
        """Write what was planned.

        Returns:
            What the server refuses, what failed and is to be retried, and seconds until pacing allows more.
        """
        _, failed_removal = await in_batches(plan.remove, self._remove)
        _, failed_adoption = await in_batches(plan.adopt, self._take_in)
        failure = failed_removal or failed_adoption
        uid = observed.view.metadata.uid
        if plan.create:
            held_back = await self._look_after_loss(observed)
            if held_back is not None:
                return None, failure, held_back
        grant = self._pacing.grant(
            uid,
            members=len(observed.active),
            desired=observed.desired,
            missing=plan.create,
            now=self._world.clock.monotonic(),
        )
        if not grant.count or observed.template is None:
            return None, failure, grant.wait
        template = observed.template
        names = self._names(observed.view, grant.count)

        async def create(name: str) -> None:
            await self._create(observed.view, template, name)

        created, failed_creation = await in_batches(names, create)
        self._pacing.give_back(uid, grant.count - created)
        trouble = None
        if isinstance(failed_creation, ApiError) and not isinstance(failed_creation, ServerError | ConflictError):
            trouble = trouble_of(failed_creation, "create a member")
        if trouble is None:
            failure = failure or failed_creation
        return trouble, failure, grant.wait

    def member_changed(self, change: Change[SandboxView]) -> None:
        """Note a member that vanished without having been removed or claimed."""
        if change.old is None or change.new is not None:
            return
        meta = change.old.metadata
        if meta.uid in self._removing:
            self._removing.discard(meta.uid)
            return
        controller = meta.controller
        if controller is None or controller.kind != SANDBOX_WARM_POOLS.kind:
            return
        pool = self._world.pools.get(meta.namespace, controller.name)
        if pool is not None and pool.metadata.uid == controller.uid:
            self._lost.add(controller.uid)

    async def _look_after_loss(self, observed: PoolObserved) -> float | None:
        """After a loss, make sure that the pool still exists, and go slowly if members keep vanishing.

        Returns:
            Seconds to wait before members are made; None if they may be now.
        """
        meta = observed.view.metadata
        if meta.uid not in self._lost:
            return None
        now = self._world.clock.monotonic()
        wait = self._recreation.wait_for(meta.uid, now)
        if wait > 0:
            return wait
        self._recreation.made(meta.uid, now)
        live = await self._world.look(SANDBOX_WARM_POOLS, meta.namespace, meta.name)
        if live is None or live.metadata.uid != meta.uid or live.metadata.deleting:
            return self._recreation.wait_for(meta.uid, now)
        self._lost.discard(meta.uid)
        return None

    def _names(self, pool: SandboxWarmPoolView, count: int) -> list[str]:
        """Names for new members: those whose creation is open first."""
        names = self._unanswered.get(pool.metadata.uid, [])[:count]
        while len(names) < count:
            suffix = "".join(self._random.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))
            names.append(member_name(pool.metadata.name, suffix))
        return names

    async def _create(self, pool: SandboxWarmPoolView, template: SandboxTemplate, name: str) -> None:
        uid = pool.metadata.uid
        try:
            await perform(self._world.client, Create(SANDBOXES, new_member(pool.metadata, template, name)))
        except AlreadyExistsError:
            # Our own, created by an attempt without an answer; or another object, and the next pass takes another name.
            self._settle(uid, name)
            known = self._world.sandboxes.get(pool.metadata.namespace, name)
            live = await self._world.look(SANDBOXES, pool.metadata.namespace, name)
            if known is not None or live is None or ownership_of(live.metadata, uid) is not Ownership.OWNED:
                raise
            return
        except ApiError as error:
            if isinstance(error, ServerError):
                self._note_unanswered(uid, name)
            raise
        except BaseException:
            # No answer, or cancelled while waiting for one.
            self._note_unanswered(uid, name)
            raise
        self._settle(uid, name)

    def _note_unanswered(self, uid: str, name: str) -> None:
        names = self._unanswered.setdefault(uid, [])
        if name not in names:
            names.append(name)

    def _settle(self, uid: str, name: str) -> None:
        names = self._unanswered.get(uid, [])
        if name in names:
            names.remove(name)
        if not names:
            self._unanswered.pop(uid, None)

    def _forget_unanswered(self, uid: str) -> None:
        self._unanswered.pop(uid, None)

    async def _remove(self, action: Remove) -> None:
        self._removing.add(action.uid)
        try:
            await perform(self._world.client, action)
        except ConflictError:
            # It changed: perhaps a claim has it. Look, and let the next pass judge.
            self._removing.discard(action.uid)
            await self._world.look(SANDBOXES, action.namespace, action.name)

    async def _take_in(self, action: ChangeAction) -> None:
        try:
            await perform(self._world.client, action)
        except (ConflictError, NotFoundError):
            await self._world.look(SANDBOXES, action.namespace, action.name)

    # Telling

    async def _write_status(
        self, observed: PoolObserved, trouble: Trouble | None, held: tuple[Member, ...]
    ) -> float | None:
        meta = observed.view.metadata
        status = pool_status(observed, trouble, held, self._world.options)
        self._measure(observed, status)
        old = status_json(observed.view.status)
        change = status_change(SANDBOX_WARM_POOLS, meta, old, status)
        if change is None:
            self._falling.settled(meta.uid)
            self._rising.settled(meta.uid)
            return None
        wait = self._wait(meta.uid, old, status)
        if wait > 0:
            return wait
        await perform(self._world.client, change)
        self._falling.forget(meta.uid)
        self._rising.forget(meta.uid)
        self._tell(observed.view, old, status)
        return None

    def _wait(self, uid: str, old: Status, status: Status) -> float:
        """Seconds to wait before this status is written: what was taken is usually replaced before anybody asks."""
        now = self._world.clock.monotonic()
        if is_urgent(old, status):
            return 0.0
        rises = status.get("readyReplicas", 0) >= old.get("readyReplicas", 0)
        delay = self._world.options.pool_status_delay
        # An empty pool is worth knowing: claims start cold.
        falling = self._falling.wait_for(uid, Urgency.PROGRESS, now, (delay if status["readyReplicas"] else delay / 3,))
        return min(falling, self._rising.wait_for(uid, Urgency.PROGRESS, now)) if rises else falling

    def _measure(self, observed: PoolObserved, status: Status) -> None:
        labels = (observed.view.metadata.namespace, observed.view.metadata.name)
        self._world.metrics.pool_replicas.labels(*labels).set(status["replicas"])
        self._world.metrics.pool_ready.labels(*labels).set(status["readyReplicas"])
        self._world.metrics.pool_desired.labels(*labels).set(observed.desired)

    def _tell(self, view: SandboxWarmPoolView, old: Status, new: Status) -> None:
        """An event when the pool stops progressing, and when it goes on: edges of the condition, which outlives us."""
        before = status_of(old.get("conditions", []), CONDITION_PROGRESSING)
        after = status_of(new["conditions"], CONDITION_PROGRESSING)
        if before == after or (not before and after == "True"):
            return
        note = next(each["message"] for each in new["conditions"] if each["type"] == CONDITION_PROGRESSING)
        self._world.events.event(
            view,
            type="Warning" if after == "False" else "Normal",
            reason=NOT_PROGRESSING if after == "False" else PROGRESSING,
            action="Reconciling",
            note=note if after == "False" else "Warm pool is progressing again",
            resource=SANDBOX_WARM_POOLS,
        )


def comes_or_goes(change: Change[SandboxView]) -> bool:
    """Whether a Sandbox may have become a member or ceased to be one; that a pass made it, the pass knows."""
    old, new = change.old, change.new
    if old is None or new is None:
        return not (change.own and old is None)
    return old.metadata.controller != new.metadata.controller or old.metadata.deleting != new.metadata.deleting


def stays_a_member(change: Change[SandboxView]) -> bool:
    """Whether a member only changed."""
    return change.old is not None and not comes_or_goes(change)


def pool_controller(world: World) -> Controller:
    """The controller with all its watches."""

    def of_template(change: Change[SandboxTemplateView]) -> Iterable[Request]:
        meta = change.object.metadata
        pools = world.pools.by_index(BY_TEMPLATE_REF, f"{meta.namespace}/{meta.name}")
        return [Request(pool.metadata.namespace, pool.metadata.name) for pool in pools]

    reconciler = PoolReconciler(world)

    def note(change: Change[SandboxView]) -> Iterable[Request]:
        reconciler.member_changed(change)
        return ()

    return (
        Controller("sandboxwarmpool", reconciler, workers=world.options.warm_pool_workers, yields_to=["sandboxclaim"])
        .watches_for(SANDBOX_WARM_POOLS, not_own_status)
        .watches(SANDBOXES, note)
        .owns(SANDBOXES, owner=SANDBOX_WARM_POOLS, predicate=comes_or_goes)
        .owns(SANDBOXES, owner=SANDBOX_WARM_POOLS, predicate=stays_a_member, pause=MEMBERS_PAUSE)
        .watches(SANDBOX_TEMPLATES, of_template)
    )
