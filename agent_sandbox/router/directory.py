"""Which Pod is whose: resolves a claim name, a Sandbox name or a UID to the address of that sandbox's Pod.

In: changes of Sandboxes, SandboxClaims and Pods, from informers. Out: `Target`s. Nothing else is an address: no DNS
name, nothing that a caller says. Ownership is judged by UID: a Pod belongs to the Sandbox that controls it, a Sandbox
to the claim that controls it; an unclaimed member of a warm pool belongs to nobody and cannot be reached.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import anyio
import msgspec

from agent_sandbox.router.errors import NotFoundError, NotReadyError, SuspendedError
from agent_sandbox_api.access import access_keys_of
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES, SandboxView
from agent_sandbox_api.core import PODS, PodView
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SandboxClaimView
from agent_sandbox_api.names import (
    AGENTS_GROUP,
    ANNOTATION_WAKE_ON_REQUEST,
    CONDITION_READY,
    EXTENSIONS_GROUP,
    LABEL_SANDBOX_NAME_HASH,
    LABEL_WARM_POOL,
)
from agent_sandbox_api.resource import Resource
from agent_sandbox_api.views import ConditionView, MetaView, View, find_condition

V = TypeVar("V", bound=View)
V_co = TypeVar("V_co", bound=View, covariant=True)
Key = tuple[str, str]


class Change(Protocol[V_co]):
    """What an informer tells: the object before and after; one of them may be missing."""

    @property
    def old(self) -> V_co | None: ...

    @property
    def new(self) -> V_co | None: ...


class Informer(Protocol[V_co]):
    """The part of an informer that the directory uses."""

    def add_handler(self, handler: Callable[[Change[V_co]], None]) -> None: ...


class Informers(Protocol):
    """The part of `agent_sandbox.runtime.Cache` that the directory uses."""

    def informer(self, resource: Resource[V], *, label_selector: str = "") -> Informer[V]: ...


@dataclass(frozen=True, slots=True)
class Holder:
    """What a credential is for: the claim that holds a Sandbox, or the Sandbox itself where no claim does.

    Attributes:
        claimed: whether it is a claim.
        access_keys: the annotations of that object that name keys, see ``agent_sandbox_api.access``.
    """

    namespace: str
    name: str
    uid: str
    claimed: bool
    access_keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A suspended Sandbox that a request may wake.

    Attributes:
        resource_version: of the Sandbox as it was seen asleep.
    """

    namespace: str
    name: str
    resource_version: str


class AsleepError(SuspendedError):
    """The sandbox is suspended, and its template lets a request wake it."""

    def __init__(self, detail: str, sleeper: Sleeper) -> None:
        super().__init__(detail)
        self.sleeper = sleeper


@dataclass(frozen=True, slots=True)
class Target:
    """A Pod that may be dialled for a sandbox.

    Attributes:
        pod_uid: tells two Pods apart that had the same address one after the other.
        claim: name of the claim that holds the Sandbox, or None.
        holder_uid: UID of that claim; of the Sandbox itself where there is none. Credentials are tied to it.
    """

    address: str
    pod_uid: str
    namespace: str
    sandbox: str
    claim: str | None
    holder_uid: str


@dataclass(frozen=True, slots=True)
class _Sandbox:
    key: Key
    uid: str
    version: str
    claim_uid: str | None
    pooled: bool
    suspended: bool
    wakes: bool
    deleting: bool
    ready: ConditionView | None
    access_keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Claim:
    key: Key
    uid: str
    sandbox_name: str | None
    ready: ConditionView | None
    access_keys: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Pod:
    key: Key
    uid: str
    address: str
    ready: bool


class _TemplateMeta(msgspec.Struct):
    annotations: dict[str, str] | None = None


class _TemplatePart(msgspec.Struct):
    metadata: _TemplateMeta | None = None


class _SpecPart(msgspec.Struct, rename="camel"):
    replicas: int = 1
    pod_template: _TemplatePart | None = None

    @property
    def wakes(self) -> bool:
        metadata = self.pod_template.metadata if self.pod_template else None
        return ((metadata.annotations if metadata else None) or {}).get(ANNOTATION_WAKE_ON_REQUEST) == "true"


class Directory:
    """What the router knows of sandboxes. All methods must be called on the event loop."""

    def __init__(self) -> None:
        self._sandboxes: dict[Key, _Sandbox] = {}
        self._sandboxes_by_uid: dict[str, _Sandbox] = {}
        self._claims: dict[Key, _Claim] = {}
        self._claims_by_uid: dict[str, _Claim] = {}
        # By namespace and UID of the Sandbox that controls them; more than one while an old one terminates. A UID is no
        # secret, and whoever may create Pods in another namespace can name it.
        self._pods: dict[Key, dict[Key, _Pod]] = {}
        # Whoever waits for a change in a namespace. Callers choose these names: none stays longer than its waiters.
        self._waiters: dict[str, set[anyio.Event]] = {}

    def follow(self, cache: Informers) -> None:
        """Learn from the informers of a cache; somebody else runs them."""
        cache.informer(SANDBOXES).add_handler(self.observe_sandbox)
        cache.informer(SANDBOX_CLAIMS).add_handler(self.observe_claim)
        cache.informer(PODS, label_selector=LABEL_SANDBOX_NAME_HASH).add_handler(self.observe_pod)

    async def resolve(self, namespace: str, identifier: str, *, wait_unknown: float, wait_ready: float) -> Target:
        """The Pod of a sandbox, waiting for it within the bounds (seconds).

        Raises:
            NotFoundError: nothing of that name or UID is known in the namespace.
            SuspendedError: it is suspended; AsleepError if a request may wake it.
            NotReadyError: its Pod is not Ready.
        """
        began = anyio.current_time()
        while True:
            try:
                return self.lookup(namespace, identifier)
            except NotFoundError:
                left = began + wait_unknown - anyio.current_time()
                if left <= 0:
                    raise
            except NotReadyError:
                left = began + wait_ready - anyio.current_time()
                if left <= 0:
                    raise
            await self.wait_for_change(namespace, left)

    async def find(self, namespace: str, identifier: str, *, wait_unknown: float) -> Holder:
        """Whose sandbox that is, waiting for the name within the bound (seconds).

        Raises:
            NotFoundError: nothing of that name or UID is known in the namespace.
        """
        began = anyio.current_time()
        while True:
            try:
                return self.holder(namespace, identifier)
            except NotFoundError:
                left = began + wait_unknown - anyio.current_time()
                if left <= 0:
                    raise
            await self.wait_for_change(namespace, left)

    def holder(self, namespace: str, identifier: str) -> Holder:
        """Whose sandbox that is, as far as is known now; it need not be bound, running or Ready.

        Raises:
            NotFoundError: nothing of that name or UID is known in the namespace.
        """
        claim = self._find_claim(namespace, identifier)
        if claim is None:
            sandbox = self._find_sandbox(namespace, identifier)
            if sandbox.claim_uid is None:
                return Holder(namespace, sandbox.key[1], sandbox.uid, False, sandbox.access_keys)
            claim = self._claim_of(sandbox)
            if claim is None:
                raise _not_found(identifier, namespace)
        return Holder(namespace, claim.key[1], claim.uid, True, claim.access_keys)

    def lookup(self, namespace: str, identifier: str) -> Target:
        """The Pod of a sandbox as far as is known now.

        Raises:
            NotFoundError: nothing of that name or UID is known in the namespace.
            SuspendedError: it is suspended; AsleepError if a request may wake it.
            NotReadyError: its Pod is not Ready.
        """
        sandbox, claim = self._find(namespace, identifier)
        if sandbox.suspended:
            detail = f"Sandbox {identifier} in namespace {namespace} is suspended; resume it first."
            if sandbox.wakes and not sandbox.deleting:
                raise AsleepError(detail, Sleeper(namespace, sandbox.key[1], sandbox.version))
            raise SuspendedError(detail)
        pods = self._pods.get((namespace, sandbox.uid), {})
        for pod in pods.values():
            if pod.ready and not sandbox.deleting:
                return Target(
                    address=pod.address,
                    pod_uid=pod.uid,
                    namespace=namespace,
                    sandbox=sandbox.key[1],
                    claim=claim.key[1] if claim is not None else None,
                    holder_uid=claim.uid if claim is not None else sandbox.claim_uid or sandbox.uid,
                )
        raise _not_ready(identifier, namespace, sandbox.ready)

    def knows(self, namespace: str, name: str) -> bool:
        """Whether there is a claim or a Sandbox of that name."""
        return (namespace, name) in self._claims or (namespace, name) in self._sandboxes

    def observe_sandbox(self, change: Change[SandboxView]) -> None:
        """Take in a change of a Sandbox."""
        if change.old is not None and (known := self._sandboxes.pop(key_of(change.old), None)):
            self._sandboxes_by_uid.pop(known.uid, None)
        if change.new is not None:
            sandbox = _sandbox_from(change.new)
            self._sandboxes[sandbox.key] = self._sandboxes_by_uid[sandbox.uid] = sandbox
        self._tell(change.new or change.old)

    def observe_claim(self, change: Change[SandboxClaimView]) -> None:
        """Take in a change of a SandboxClaim."""
        if change.old is not None and (known := self._claims.pop(key_of(change.old), None)):
            self._claims_by_uid.pop(known.uid, None)
        if change.new is not None:
            claim = _claim_from(change.new)
            self._claims[claim.key] = self._claims_by_uid[claim.uid] = claim
        self._tell(change.new or change.old)

    def observe_pod(self, change: Change[PodView]) -> None:
        """Take in a change of a Pod."""
        if change.old is not None and (owner := _sandbox_owner(change.old.metadata)):
            pods = self._pods.get(owner, {})
            pods.pop(key_of(change.old), None)
            if not pods:
                self._pods.pop(owner, None)
        if change.new is not None and (owner := _sandbox_owner(change.new.metadata)):
            pod = _pod_from(change.new)
            self._pods.setdefault(owner, {})[pod.key] = pod
        self._tell(change.new or change.old)

    def is_current(self, target: Target) -> bool:
        """Whether the Pod of `target` still is that sandbox's and Ready."""
        sandbox = self._sandboxes.get((target.namespace, target.sandbox))
        pods = self._pods.get((target.namespace, sandbox.uid), {}) if sandbox else {}
        return any(pod.uid == target.pod_uid and pod.ready for pod in pods.values())

    async def wait_until_changed(self, sleeper: Sleeper, seconds: float) -> None:
        """Wait until another version of that Sandbox is known, or it is gone; at most so long."""
        with anyio.move_on_after(seconds):
            while True:
                sandbox = self._sandboxes.get((sleeper.namespace, sleeper.name))
                if sandbox is None or sandbox.version != sleeper.resource_version:
                    return
                await self.wait_for_change(sleeper.namespace, seconds)

    async def wait_for_change(self, namespace: str, seconds: float) -> None:
        """Wait until something in the namespace changes, at most so long."""
        changed = anyio.Event()
        waiters = self._waiters.setdefault(namespace, set())
        waiters.add(changed)
        try:
            with anyio.move_on_after(seconds):
                await changed.wait()
        finally:
            waiters.discard(changed)
            if not waiters:
                self._waiters.pop(namespace, None)

    def _find(self, namespace: str, identifier: str) -> tuple[_Sandbox, _Claim | None]:
        claim = self._find_claim(namespace, identifier)
        if claim is not None:
            return self._claimed(claim), claim
        sandbox = self._find_sandbox(namespace, identifier)
        return sandbox, self._claim_of(sandbox)

    def _claim_of(self, sandbox: _Sandbox) -> _Claim | None:
        return self._in(sandbox.key[0], self._claims_by_uid.get(sandbox.claim_uid or ""))

    def _find_claim(self, namespace: str, identifier: str) -> _Claim | None:
        return self._claims.get((namespace, identifier)) or self._in(namespace, self._claims_by_uid.get(identifier))

    def _find_sandbox(self, namespace: str, identifier: str) -> _Sandbox:
        sandbox = self._sandboxes.get((namespace, identifier)) or self._in(
            namespace, self._sandboxes_by_uid.get(identifier)
        )
        if sandbox is None or (sandbox.pooled and sandbox.claim_uid is None):
            raise _not_found(identifier, namespace)
        return sandbox

    def _claimed(self, claim: _Claim) -> _Sandbox:
        """The Sandbox that the claim's status names, if it is controlled by that very claim."""
        namespace, name = claim.key
        sandbox = self._sandboxes.get((namespace, claim.sandbox_name or ""))
        if sandbox is None or sandbox.claim_uid != claim.uid:
            raise _not_ready(name, namespace, claim.ready)
        return sandbox

    @staticmethod
    def _in(namespace: str, found: "_T | None") -> "_T | None":
        return found if found is not None and found.key[0] == namespace else None

    def _tell(self, view: View | None) -> None:
        if view is not None:
            for waiter in self._waiters.get(view.metadata.namespace, ()):
                waiter.set()


_T = TypeVar("_T", _Sandbox, _Claim)


def key_of(view: View) -> Key:
    """Namespace and name."""
    return view.metadata.namespace, view.metadata.name


def _sandbox_from(view: SandboxView) -> _Sandbox:
    owner = view.metadata.controller
    claim_uid = owner.uid if owner and owner.group == EXTENSIONS_GROUP and owner.kind == "SandboxClaim" else None
    by_pool = owner is not None and owner.group == EXTENSIONS_GROUP and owner.kind == "SandboxWarmPool"
    spec = msgspec.json.decode(view.spec, type=_SpecPart) if bytes(view.spec) else _SpecPart()
    return _Sandbox(
        key=key_of(view),
        uid=view.metadata.uid,
        version=view.metadata.resource_version,
        claim_uid=claim_uid,
        pooled=by_pool or LABEL_WARM_POOL in view.metadata.labels,
        # A wanted replica makes it one that resumes, whatever the condition still says.
        suspended=spec.replicas == 0,
        wakes=spec.wakes,
        deleting=view.metadata.deleting,
        ready=find_condition(view.status.conditions, CONDITION_READY),
        access_keys=access_keys_of(view.metadata.annotations),
    )


def _claim_from(view: SandboxClaimView) -> _Claim:
    status = view.status
    bound = status.sandbox.name if status.sandbox is not None else None
    ready = find_condition(status.conditions, CONDITION_READY)
    keys = access_keys_of(view.metadata.annotations)
    return _Claim(key_of(view), view.metadata.uid, bound or status.sandbox_name, ready, keys)


def _pod_from(view: PodView) -> _Pod:
    return _Pod(key_of(view), view.metadata.uid, view.ips[0] if view.ips else "", view.ready)


def _sandbox_owner(metadata: MetaView) -> Key | None:
    owner = metadata.controller
    is_sandbox = owner is not None and owner.group == AGENTS_GROUP and owner.kind == "Sandbox"
    return (metadata.namespace, owner.uid) if owner is not None and is_sandbox else None


def _not_found(name: str, namespace: str) -> NotFoundError:
    return NotFoundError(f"No sandbox {name} in namespace {namespace}: there is no claim, Sandbox or UID of that name.")


def _not_ready(name: str, namespace: str, ready: ConditionView | None) -> NotReadyError:
    why = f" ({ready.reason}: {ready.message})" if ready is not None and ready.status != "True" else ""
    return NotReadyError(f"Sandbox {name} in namespace {namespace} is not ready{why}.", retry_after=1)
