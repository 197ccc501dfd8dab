"""Reconciles Sandboxes: reads what is there, has it planned, writes in order, and tells the truth in the status."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import structlog

from agent_sandbox.kube import AlreadyExistsError, ApiError, ConflictError, NotFoundError, ServerError
from agent_sandbox.runtime import Request, Result
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.core import PODS
from agent_sandbox_api.names import CONDITION_READY
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import find_condition
from agent_sandbox_controllers.actions import Action, Change, Create, Remove, perform
from agent_sandbox_controllers.errors import StaleCacheError
from agent_sandbox_controllers.holding import MEMBER_DELAYS, SANDBOX_DELAYS
from agent_sandbox_controllers.indexes import BY_OWNER, owner_value
from agent_sandbox_controllers.memory import Identities
from agent_sandbox_controllers.parsed import sandbox_spec
from agent_sandbox_controllers.recreation import Recreation
from agent_sandbox_controllers.sandbox.gate import gate_of, owner_of
from agent_sandbox_controllers.sandbox.observed import Gate, Observed, OwnerKind, wanted_pod_name
from agent_sandbox_controllers.sandbox.outcome import Notice
from agent_sandbox_controllers.sandbox.plan import is_marked_expired, plan_children, plan_expiry
from agent_sandbox_controllers.sandbox.pod import owner_not_found
from agent_sandbox_controllers.sandbox.refusals import Refusals, before
from agent_sandbox_controllers.sandbox.status import expired_status, expiring_status, living_status
from agent_sandbox_controllers.sandbox.transitions import Transitions
from agent_sandbox_controllers.sandbox.volumes import volume_names
from agent_sandbox_controllers.start_trace import start_span
from agent_sandbox_controllers.status import Status
from agent_sandbox_controllers.status_writer import StatusWriter
from agent_sandbox_controllers.template_record import TemplateRecord
from agent_sandbox_controllers.troubles import Trouble, trouble_of
from agent_sandbox_controllers.vocabulary import LABEL_TEMPLATE_ID, Reason
from agent_sandbox_controllers.waiting import SOON, look_again, soonest
from agent_sandbox_controllers.world import World

log = structlog.get_logger(__name__)

ROUNDS: Final = 2
"""How often one pass plans anew because the cache turned out to be behind the server."""


@dataclass(frozen=True)
class Admitted:
    """What a pass may write now.

    Attributes:
        actions: these.
        refused: what the server refused a moment ago and is not asked again yet.
        wait: seconds until what is held back may be tried.
    """

    actions: tuple[Action, ...]
    refused: tuple[Trouble, ...] = ()
    wait: float | None = None


@dataclass(frozen=True)
class Carried:
    """What became of a pass's writes.

    Attributes:
        refused: what the server refuses.
        wait: seconds until what was held back may be tried.
        stale: the cache turned out to be behind the server.
    """

    refused: tuple[Trouble, ...] = ()
    wait: float | None = None
    stale: bool = False


class SandboxReconciler:
    """Keeps one Pod, one Service and the volumes of each Sandbox.

    Guarantees:
        A pass that changes nothing writes nothing. The Pod is created last, after everything that must stand before it,
        and never while anything is refused. Every delete names a UID.
    Caveats:
        A new Sandbox has no status for its first four seconds (a pool's member: 20), unless it is Ready or in trouble
        before.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._statuses = StatusWriter(world.client, SANDBOXES, SANDBOX_DELAYS)
        self._told: dict[str, set[tuple[str, str]]] = {}
        self._recreation = Recreation()
        self._refusals = Refusals()
        self._transitions = Transitions(world.metrics)
        self._identities = Identities(
            self._statuses.forget,
            self._recreation.forget,
            self._refusals.forget,
            self._transitions.forget,
            self._forget,
        )

    async def reconcile(self, request: Request) -> Result:
        """Bring one Sandbox nearer to what it wants; see ``runtime.Reconciler``."""
        view = self._world.sandboxes.get(request.namespace, request.name)
        if view is None:
            self._identities.gone(request)
            return Result.done()
        self._identities.seen(request, view.metadata.uid)
        if view.metadata.deleting:
            self._tell_pretender(view)
            return Result.done()
        with start_span(SANDBOXES, view.metadata, view.status.conditions):
            return await self._reconcile(view)

    async def _reconcile(self, view: SandboxView) -> Result:
        observed = self._observe(view)
        wait = await self._expire(observed) if observed.expired else await self._live(observed)
        return look_again(wait)

    # Seeing

    def _observe(self, view: SandboxView) -> Observed:
        world, meta = self._world, view.metadata
        spec = sandbox_spec(view)
        owned = world.pods.by_index(BY_OWNER, owner_value(meta))
        names = volume_names(spec, meta.name)
        found = {name: world.volumes.get(meta.namespace, name) for name in names}
        owner = owner_of(world, view)
        return Observed(
            view=view,
            spec=spec,
            now=world.clock.now(),
            owned_pods=tuple(sorted(owned, key=lambda pod: pod.metadata.name)),
            named_pod=world.pods.get(meta.namespace, wanted_pod_name(view))
            or world.pods.get(meta.namespace, meta.name),
            service=world.services.get(meta.namespace, meta.name),
            volumes={name: volume for name, volume in found.items() if volume is not None},
            owner=owner,
            gate=Gate() if owned else gate_of(world, view, owner),
            evictable=world.options.pool_eviction,
            cluster_domain=world.options.cluster_domain,
        )

    def _observe_again(self, observed: Observed) -> Observed | None:
        """The same Sandbox after writes; None if it is gone or became another."""
        view = self._world.sandboxes.get(observed.namespace, observed.name)
        if view is None or view.metadata.uid != observed.uid or view.metadata.deleting:
            return None
        return self._observe(view)

    # Living

    async def _live(self, observed: Observed) -> float | None:
        current: Observed | None = observed
        done = Carried()
        for _ in range(ROUNDS):
            assert current is not None, "a Sandbox that is gone ends the pass"
            plan = plan_children(current)
            self._tell(current, plan.notices)
            with self._keeping_policy(current, plan.actions):
                admitted = await self._admit(current, plan.actions)
                if admitted is None:
                    return None
                if await self._is_handed_a_pod(current, admitted.actions):
                    done = Carried(stale=True)
                else:
                    done = await self._carry_out(current, admitted)
            if admitted.actions:
                current = self._observe_again(current)
            if current is None:
                return None
            if not done.stale:
                break
        if done.stale:
            raise StaleCacheError(f'Sandbox "{observed.namespace}/{observed.name}"')
        if current is None or current.expired:
            return SOON
        troubles = (*plan_children(current).troubles, *done.refused)
        wait = await self._write(current, living_status(current, troubles))
        overdue = current.seconds_until_overdue
        return soonest(wait, done.wait, current.seconds_left, overdue, *(trouble.retry_after for trouble in troubles))

    def _keeping_policy(self, observed: Observed, actions: tuple[Action, ...]) -> AbstractContextManager[None]:
        """From the look at the gate until the Pod is there, its NetworkPolicy stays, even if the Sandbox goes."""
        if not _makes_pod(actions):
            return nullcontext()
        return self._world.creating_pod(observed.namespace, observed.view.metadata.labels.get(LABEL_TEMPLATE_ID, ""))

    async def _admit(self, observed: Observed, actions: tuple[Action, ...]) -> Admitted | None:
        """Hold back what the server has just refused, and a child that would follow too soon upon the last of its name,
        with all that comes after it; None if nobody is left to make one for: the garbage collector takes at once what
        is made for a Sandbox that is gone, and its going would be the reason to make it again.
        """
        now = self._world.clock.monotonic()
        if observed.suspended:
            self._recreation.excuse(observed.uid, _child(PODS, observed.name))
        refusal = self._refusals.current(observed, actions, now)
        if refusal is not None:
            return Admitted(before(actions, refusal), (refusal.trouble,), refusal.until - now)
        again = [each for each in actions if self._is_made_again(observed, each)]
        for each in again:
            wait = self._recreation.wait_for(observed.uid, now, _child(each.resource, each.name))
            if wait > 0:
                return Admitted(actions[: actions.index(each)], wait=wait)
        if not again:
            return Admitted(actions)
        live = await self._world.look(SANDBOXES, observed.namespace, observed.name)
        if live is None or live.metadata.uid != observed.uid or live.metadata.deleting:
            return None
        return Admitted(actions)

    def _is_made_again(self, observed: Observed, action: Action) -> bool:
        return isinstance(action, Create) and not self._recreation.is_first(
            observed.uid, _child(action.resource, action.name)
        )

    async def _is_handed_a_pod(self, observed: Observed, actions: tuple[Action, ...]) -> bool:
        """Whether the annotation names a Pod that the cache has not seen yet; else a new one would take its place."""
        named = wanted_pod_name(observed.view)
        if named == observed.name or not _makes_pod(actions):
            return False
        return await self._world.look(PODS, observed.namespace, named) is not None

    async def _carry_out(self, observed: Observed, admitted: Admitted) -> Carried:
        """Write in order until something is refused."""
        for action in admitted.actions:
            try:
                await perform(self._world.client, action)
                if isinstance(action, Create):
                    child = _child(action.resource, action.name)
                    self._recreation.made(observed.uid, self._world.clock.monotonic(), child)
            except (ConflictError, NotFoundError) as error:
                if not await self._catch_up(action, error):
                    raise
                return Carried(stale=True)
            except ApiError as error:
                trouble = None if isinstance(error, ServerError) else trouble_of(error, _describe(action))
                if trouble is None:
                    raise
                self._refusals.note(observed, action, trouble, self._world.clock.monotonic())
                return Carried((trouble,))
        return Carried(admitted.refused, admitted.wait)

    async def _catch_up(self, action: Action, error: ApiError) -> bool:
        """Read live what the cache does not know yet, so that the next round plans with it."""
        match action:
            case Create() if isinstance(error, AlreadyExistsError):
                namespace = str(action.body["metadata"]["namespace"])
                return await self._world.look(action.resource, namespace, action.name) is not None
            case Change() | Remove():
                return await self._world.look(action.resource, action.namespace, action.name) is not None
        return False

    # Expiring

    async def _expire(self, observed: Observed) -> float | None:
        """Two passes: first everybody is told, then children go, and with Delete the Sandbox."""
        if not is_marked_expired(observed):
            await self._write(observed, expiring_status(observed))
            self._world.metrics.transitions.labels(observed.namespace, "expired").inc()
            return SOON
        for action in plan_expiry(observed).actions:
            await perform(self._world.client, action)
        current = self._observe_again(observed)
        return await self._write(current, expired_status(current)) if current is not None else None

    # Telling

    async def _write(self, observed: Observed, status: Status) -> float | None:
        now = self._world.clock.monotonic()
        self._transitions.observe(observed, status, now)
        delays = MEMBER_DELAYS if observed.owner is OwnerKind.POOL else SANDBOX_DELAYS
        return await self._statuses.write(observed.view, status, now, delays)

    def _tell(self, observed: Observed, notices: Iterable[Notice]) -> None:
        told = self._told.setdefault(observed.uid, set())
        for notice in notices:
            if notice.reason == Reason.MULTIPLE_PODS and _ready_reason(observed) == Reason.MULTIPLE_PODS:
                continue
            if (notice.reason, notice.about) in told:
                continue
            told.add((notice.reason, notice.about))
            if notice.lost_pod:
                self._world.metrics.pods_lost.labels(observed.namespace).inc()
            self._world.events.event(
                observed.view,
                type=notice.type,
                reason=notice.reason,
                action=notice.action,
                note=notice.note,
                resource=SANDBOXES,
            )
        if not told:
            del self._told[observed.uid]

    def _tell_pretender(self, view: SandboxView) -> None:
        """A Sandbox that names an owner which does not exist is collected within a second, often before it has a
        status: an event stays, and says why. What claims and pools made themselves carries a record of its template.
        """
        if TemplateRecord.read(view.metadata) is None and owner_of(self._world, view) is OwnerKind.UNVERIFIED:
            observed = self._observe(view)
            text = owner_not_found(observed)
            self._tell(observed, (Notice("Warning", Reason.OWNER_NOT_FOUND, "Deleting", text, about=observed.uid),))

    def _forget(self, uid: str) -> None:
        self._told.pop(uid, None)


def _ready_reason(observed: Observed) -> str:
    ready = find_condition(observed.view.status.conditions, CONDITION_READY)
    return ready.reason if ready else ""


def _makes_pod(actions: Sequence[Action]) -> bool:
    return any(isinstance(action, Create) and action.resource is PODS for action in actions)


def _child(resource: Resource[Any], name: str) -> str:
    return f"{resource.kind}/{name}"


def _describe(action: Action) -> str:
    verb = {Create: "create", Change: "change", Remove: "delete"}[type(action)]
    return f'{verb} {action.resource.kind} "{action.name}"'
