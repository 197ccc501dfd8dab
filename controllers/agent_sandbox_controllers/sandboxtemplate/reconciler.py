"""Reconciles SandboxTemplates: their NetworkPolicies stand before the first Pod, and go after the last."""

from collections.abc import Callable, Collection, Iterable

import structlog

from agent_sandbox.kube import AlreadyExistsError, ApiError, ConflictError, NotFoundError, ServerError
from agent_sandbox.runtime import Change, Controller, Request, Result
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.core import NETWORK_POLICIES, PODS, NetworkPolicyView, PodView
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_TEMPLATES, SandboxTemplateView
from agent_sandbox_api.meta import JsonObject
from agent_sandbox_api.names import CONDITION_POLICY_READY
from agent_sandbox_api.views import raw_object
from agent_sandbox_controllers.actions import Action, Create, perform, remove
from agent_sandbox_controllers.conditions import status_of
from agent_sandbox_controllers.indexes import BY_TEMPLATE
from agent_sandbox_controllers.object_names import policy_name, template_id
from agent_sandbox_controllers.sandboxtemplate.plan import (
    TemplateObserved,
    is_managed,
    plan_template,
    template_conditions,
)
from agent_sandbox_controllers.sandboxtemplate.policy import is_ours
from agent_sandbox_controllers.status import Status, status_change, status_json
from agent_sandbox_controllers.template_record import TemplateRecord, is_open_to
from agent_sandbox_controllers.troubles import SLOW_LOOK, Trouble, trouble_of
from agent_sandbox_controllers.vocabulary import LABEL_TEMPLATE_ID, Reason
from agent_sandbox_controllers.waiting import soonest
from agent_sandbox_controllers.world import World

log = structlog.get_logger(__name__)

RECHECK = 10.0
"""Seconds until a policy that is still needed, although the cache saw nobody who needs it, is looked at again."""


class TemplateReconciler:
    """Keeps the NetworkPolicies of each template, and tidies up those of templates that are gone.

    Guarantees:
        A policy is removed only after the server itself has shown no Pod and no Sandbox that it governs. A policy of
        the right name that is not ours is never touched. One that somebody removes under living Pods is made again, as
        its template says, or as it was where the template is gone or does not allow the namespace any more.
    Caveats:
        What is removed in that last case while no process leads stays removed.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        # Per template, by namespace: policies that are gone, as they were.
        self._gone: dict[Request, dict[str, NetworkPolicyView]] = {}

    def policy_gone(self, template: Request, policy: NetworkPolicyView) -> None:
        """A policy of this template was removed, by whomever."""
        self._gone.setdefault(template, {})[policy.metadata.namespace] = policy

    async def reconcile(self, request: Request) -> Result:
        """Bring the policies of one template to what it says; see ``runtime.Reconciler``."""
        view = self._world.templates.get(request.namespace, request.name)
        if view is None or view.metadata.deleting:
            refused = await self._restore(request)
            tidied = await self._tidy(self._policies(request))
            return tidied if refused is None else Result.requeue_after(refused)
        observed = self._observe(view)
        plan = plan_template(observed, self._world.options)
        trouble = plan.trouble
        for action in plan.actions:
            trouble = await self._carry_out(action) or trouble
        refused = None
        if is_managed(observed.template):
            refused = await self._restore(request, but_not_in=observed.wanted_namespaces)
        else:
            self._gone.pop(request, None)
        await self._write_status(view, trouble)
        wait = soonest(trouble.retry_after if trouble is not None else None, refused)
        tidied = await self._tidy(plan.surplus)
        return Result.requeue_after(wait) if wait is not None else tidied

    def _policies(self, request: Request) -> tuple[NetworkPolicyView, ...]:
        return tuple(self._world.policies.by_index(BY_TEMPLATE, template_id(request.namespace, request.name)))

    def _observe(self, view: SandboxTemplateView) -> TemplateObserved:
        meta = view.metadata
        identity = template_id(meta.namespace, meta.name)
        users = {each.metadata.namespace for each in self._world.sandboxes.by_index(BY_TEMPLATE, identity)}
        users |= {each.metadata.namespace for each in self._world.pods.by_index(BY_TEMPLATE, identity)}
        template = view.model()
        # A Sandbox's or a Pod's label is not enough: it would show a namespace what any template says.
        wanted = {each for each in users if is_open_to(template, each)} | {meta.namespace}
        named = {each: self._world.policies.get(each, policy_name(meta.namespace, meta.name, each)) for each in wanted}
        return TemplateObserved(
            view=view,
            template=template,
            wanted_namespaces=wanted,
            named={namespace: policy for namespace, policy in named.items() if policy is not None},
            ours=self._policies(Request(meta.namespace, meta.name)),
            now=self._world.clock.now(),
        )

    async def _restore(self, template: Request, but_not_in: Collection[str] = ()) -> float | None:
        """Make again what is gone although it governs somebody, and what nobody can work out any more.

        Returns:
            Seconds until what the server refused is worth another try; None if it refused nothing.
        """
        gone = self._gone.get(template, {})
        for namespace, policy in list(gone.items()):
            meta = policy.metadata
            standing = self._world.policies.get(namespace, meta.name) is not None
            if namespace not in but_not_in and not standing and self._is_used(policy):
                if await self._carry_out(Create(NETWORK_POLICIES, _as_it_was(policy))) is not None:
                    continue  # for example because the whole namespace is going
                log.warning("a policy that governs sandboxes was made again", namespace=namespace, name=meta.name)
            if gone.get(namespace) is policy:  # else it was removed once more meanwhile
                del gone[namespace]
        if gone:
            return SLOW_LOOK
        self._gone.pop(template, None)
        return None

    async def _carry_out(self, action: Action) -> Trouble | None:
        try:
            await perform(self._world.client, action)
        except AlreadyExistsError:
            # Somebody was first, or the cache is behind: the next pass judges what stands there.
            assert isinstance(action, Create), "only creates meet an existing object"
            await self._world.look(NETWORK_POLICIES, str(action.body["metadata"]["namespace"]), action.name)
            raise
        except ConflictError:
            raise
        except ApiError as error:
            if isinstance(error, ServerError):
                raise
            kind = NETWORK_POLICIES.kind
            trouble = trouble_of(error, f'write {kind} "{action.name}"')
            if trouble is None and isinstance(error, NotFoundError):
                return Trouble(
                    Reason.POLICY_REJECTED, f'cannot write {kind} "{action.name}": {error.message}', SLOW_LOOK
                )
            if trouble is None:
                raise
            return Trouble(Reason.POLICY_REJECTED, trouble.message, trouble.retry_after)
        return None

    async def _write_status(self, view: SandboxTemplateView, trouble: Trouble | None) -> None:
        current = self._world.templates.get(view.metadata.namespace, view.metadata.name)
        if current is None or current.metadata.uid != view.metadata.uid:
            return
        conditions = template_conditions(self._observe(current), trouble)
        old = status_json(current.status)
        status: Status = {"conditions": conditions}
        change = status_change(SANDBOX_TEMPLATES, current.metadata, old, status)
        if change is None:
            return
        await perform(self._world.client, change)
        before = status_of(old.get("conditions", []), CONDITION_POLICY_READY)
        if trouble is not None and before != "False":
            self._world.events.event(
                current,
                type="Warning",
                reason=trouble.reason,
                action="Reconciling",
                note=trouble.message,
                resource=SANDBOX_TEMPLATES,
            )

    async def _tidy(self, policies: Iterable[NetworkPolicyView]) -> Result:
        """Remove policies that nobody needs; what is still needed wakes this template again when its last Pod goes."""
        needed = False
        for policy in policies:
            if policy.metadata.deleting or self._is_used(policy):
                continue
            if self._is_awaited(policy):
                # If that Pod is not made after all, nothing else would bring us back.
                needed = True
                continue
            with self._world.removing_policy(policy.metadata.namespace, policy.metadata.labels[LABEL_TEMPLATE_ID]):
                if await self._is_used_live(policy):
                    needed = True
                    continue
                try:
                    await perform(self._world.client, remove(NETWORK_POLICIES, policy.metadata, locked=True))
                except ConflictError:
                    needed = True
        return Result.requeue_after(RECHECK) if needed else Result.done()

    def _is_used(self, policy: NetworkPolicyView) -> bool:
        identity = policy.metadata.labels[LABEL_TEMPLATE_ID]
        namespace = policy.metadata.namespace
        sandboxes = self._world.sandboxes.by_index(BY_TEMPLATE, identity)
        pods = self._world.pods.by_index(BY_TEMPLATE, identity)
        return namespace in {user.metadata.namespace for user in sandboxes} | {user.metadata.namespace for user in pods}

    def _is_awaited(self, policy: NetworkPolicyView) -> bool:
        """Whether a Pod that it governs is being created right now."""
        return self._world.is_creating_pod(policy.metadata.namespace, policy.metadata.labels[LABEL_TEMPLATE_ID])

    async def _is_used_live(self, policy: NetworkPolicyView) -> bool:
        """Ask the server: the cache may be behind a Sandbox or a Pod that was created a moment ago."""
        selector = f"{LABEL_TEMPLATE_ID}={policy.metadata.labels[LABEL_TEMPLATE_ID]}"
        namespace, client = policy.metadata.namespace, self._world.client
        sandboxes = await client.list_page(SANDBOXES, namespace, label_selector=selector, limit=1)
        if sandboxes.items:
            return True
        pods = await client.list_page(PODS, namespace, label_selector=selector, limit=1)
        return bool(pods.items)


def _as_it_was(policy: NetworkPolicyView) -> JsonObject:
    meta = policy.metadata
    kept = {"labels": dict(meta.labels), "annotations": dict(meta.annotations)}
    return {
        "apiVersion": NETWORK_POLICIES.api_version,
        "kind": NETWORK_POLICIES.kind,
        "metadata": {"name": meta.name, "namespace": meta.namespace, **kept},
        "spec": raw_object(policy.spec),
    }


def template_controller(world: World) -> Controller:
    """The controller with all its watches."""
    reconciler = TemplateReconciler(world)
    watches = Watches(world, reconciler.policy_gone)
    return (
        Controller("sandboxtemplate", reconciler, workers=world.options.template_workers)
        .watches_for(SANDBOX_TEMPLATES)
        .watches(NETWORK_POLICIES, watches.of_policy)
        .watches(SANDBOXES, watches.of_sandbox)
        .watches(PODS, watches.of_pod)
    )


class Watches:
    """Mappings from changes of other kinds to the templates that they concern."""

    def __init__(self, world: World, policy_gone: Callable[[Request, NetworkPolicyView], None]) -> None:
        self._world = world
        self._policy_gone = policy_gone

    def of_policy(self, change: Change[NetworkPolicyView]) -> Iterable[Request]:
        """A NetworkPolicy: its template, or whichever template wants that name."""
        keys: dict[Request, None] = {}
        for view in (change.old, change.new):
            record = TemplateRecord.read(view.metadata) if view is not None else None
            if view is None or record is None:
                continue
            template = Request(record.namespace, record.name)
            keys[template] = None
            if change.new is None and is_ours(view.metadata.labels, record):
                self._policy_gone(template, view)
        meta = change.object.metadata
        if not keys and meta.name.endswith("-network-policy"):
            keys[Request(meta.namespace, meta.name.removesuffix("-network-policy"))] = None
        return keys

    def of_sandbox(self, change: Change[SandboxView]) -> Iterable[Request]:
        """A Sandbox: its template, if this is its first or its last in a foreign namespace, or the template is gone."""
        record = TemplateRecord.read(change.object.metadata)
        if record is None or not self._matters(change, record):
            return ()
        return (Request(record.namespace, record.name),)

    def of_pod(self, change: Change[PodView]) -> Iterable[Request]:
        """A Pod that is gone: its policy's template, if that is gone too or is another namespace's."""
        if change.new is not None:
            return ()
        meta = change.object.metadata
        keys: dict[Request, None] = {}
        for policy in self._world.policies.by_index(BY_TEMPLATE, meta.labels.get(LABEL_TEMPLATE_ID, "")):
            record = TemplateRecord.read(policy.metadata)
            if record is not None and policy.metadata.namespace == meta.namespace and self._matters(change, record):
                keys[Request(record.namespace, record.name)] = None
        return keys

    def _matters(self, change: Change[SandboxView] | Change[PodView], record: TemplateRecord) -> bool:
        if change.old is not None and change.new is not None:
            return False
        abroad = record.namespace != change.object.metadata.namespace
        return abroad or self._world.templates.get(record.namespace, record.name) is None
