"""A model: random users, a random kubelet, a slow and failing wire, a process that dies: what must hold.

hypothesis draws a script of steps. A witness stands at the server's store and looks at every committed change; its
rules are the invariants of docs/edge-cases.md (design, section 3). At the end all faults are taken away, and the
cluster must come to rest in a state that is right by its own objects alone. A failing script is printed and can be
replayed with ``@example``.

``AGENT_SANDBOX_MODEL_EXAMPLES`` sets how many scripts are tried: always the same 200 in ``make test``, 2,000 new
ones in ``make test-nightly``.
"""

import asyncio
import gc
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Unpack

import anyio
import hypothesis
import msgspec
import pytest
import structlog
from hypothesis import strategies as st

from agent_sandbox.kube import ApiError, Propagation, RawResponse, Transport
from agent_sandbox.kube.transport import RequestOptions, TransportDecorator
from agent_sandbox.testing import Fault, InMemoryApiServer, VirtualTimeLoop
from agent_sandbox_api.agents.v1alpha1 import SANDBOXES
from agent_sandbox_api.core import PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES
from agent_sandbox_api.extensions.v1alpha1 import SANDBOX_CLAIMS, SANDBOX_TEMPLATES, SANDBOX_WARM_POOLS
from agent_sandbox_controllers.object_names import template_id

EXAMPLES = int(os.environ.get("AGENT_SANDBOX_MODEL_EXAMPLES", "200"))
PHASES = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.shrink or "NO_SHRINK" not in os.environ]
TEMPLATE_ID = "agents.x-k8s.io/sandbox-template-id"
BY_USER = {"made-by": "user"}
BUCKETS = {
    "pods": "pods",
    "sandboxes": "sandboxes.agents.x-k8s.io",
    "claims": "sandboxclaims.extensions.agents.x-k8s.io",
    "pools": "sandboxwarmpools.extensions.agents.x-k8s.io",
    "templates": "sandboxtemplates.extensions.agents.x-k8s.io",
    "policies": "networkpolicies.networking.k8s.io",
}


def controller_of(thing: dict[str, Any] | None) -> dict[str, Any]:
    for reference in ((thing or {}).get("metadata") or {}).get("ownerReferences") or ():
        if reference.get("controller"):
            found: dict[str, Any] = reference
            return found
    return {}


def label(thing: dict[str, Any], key: str) -> str:
    return str((thing["metadata"].get("labels") or {}).get(key, ""))


def condition(thing: dict[str, Any], kind: str) -> dict[str, Any]:
    for each in (thing.get("status") or {}).get("conditions") or ():
        if each["type"] == kind:
            found: dict[str, Any] = each
            return found
    return {}


@dataclass
class Witness:
    """Looks at every committed change of the server and notes what must not have happened."""

    server: InMemoryApiServer
    violations: list[str] = field(default_factory=list)
    # UIDs whose deletion the manager has asked for.
    asked_to_delete: set[str] = field(default_factory=set)
    # Per pool UID: the largest size that it ever had, because a pool may act on a size that was just reduced.
    peak: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server.server._store.subscribe(self.see)

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [stored.value for stored in self.server.server._store.objects(BUCKETS[kind])]

    def see(self, change: Any) -> None:
        bucket = change.current.key.bucket
        before = change.previous.value if change.previous is not None else None
        now = change.current.value
        if bucket == BUCKETS["pods"] and before is None:
            self.pod_created(now)
        elif bucket == BUCKETS["sandboxes"]:
            self.sandbox_changed(before, now, deleted=change.deleted)
        elif bucket == BUCKETS["policies"] and change.deleted:
            self.policy_deleted(now)
        elif bucket == BUCKETS["pools"]:
            uid = now["metadata"]["uid"]
            self.peak[uid] = max(self.peak.get(uid, 0), now["spec"]["replicas"])
        going = change.deleted or (now["metadata"].get("deletionTimestamp") and before is not None)
        if bucket == BUCKETS["sandboxes"] and going and now["metadata"]["uid"] in self.asked_to_delete:
            self.sandbox_removed(before or now)

    def pod_created(self, pod: dict[str, Any]) -> None:
        if label(pod, "made-by"):
            return
        uid = controller_of(pod).get("uid")
        siblings = [
            each["metadata"]["name"]
            for each in self.all("pods")
            if controller_of(each).get("uid") == uid and not label(each, "made-by")
        ]
        self.rule(len(siblings) <= 1, f"1: Sandbox {uid} has the Pods {siblings}")
        identity = label(pod, TEMPLATE_ID)
        if identity:
            standing = [
                each
                for each in self.all("policies")
                if label(each, TEMPLATE_ID) == identity
                and each["metadata"]["namespace"] == pod["metadata"]["namespace"]
                and not each["metadata"].get("deletionTimestamp")
            ]
            self.rule(bool(standing), f"5: Pod {pod['metadata']['name']} was created before its NetworkPolicy")

    def sandbox_changed(self, before: dict[str, Any] | None, now: dict[str, Any], *, deleted: bool) -> None:
        old, new = controller_of(before), controller_of(now)
        name = now["metadata"]["name"]
        if old.get("kind") == "SandboxClaim":
            owned = [each["metadata"]["uid"] for each in self.all("claims")]
            let_go = not new and old["uid"] in owned and self.is_orphaning(old["uid"])
            self.rule(old.get("uid") == new.get("uid") or let_go, f"1: claimed Sandbox {name} changed hands")
        if deleted or label(now, "made-by") or old.get("uid") == new.get("uid"):
            return
        same = [each for each in self.all("sandboxes") if controller_of(each).get("uid") == new.get("uid")]
        ours = [each for each in same if not label(each, "made-by")]
        if new.get("kind") == "SandboxClaim":
            self.rule(len(ours) <= 1, f"1: claim {new['name']} has {[each['metadata']['name'] for each in ours]}")
        if new.get("kind") == "SandboxWarmPool":
            wanted = self.peak.get(new["uid"], 0)
            self.rule(len(ours) <= wanted, f"3: pool {new['name']} has {len(ours)} members and never wanted {wanted}")

    def is_orphaning(self, uid: str) -> bool:
        """Whether this claim is being deleted and leaves its Sandbox behind, which is the user's wish."""
        metas = [each["metadata"] for each in self.all("claims")]
        return any(meta["uid"] == uid and "orphan" in (meta.get("finalizers") or ()) for meta in metas)

    def sandbox_removed(self, sandbox: dict[str, Any]) -> None:
        owner = controller_of(sandbox)
        name = sandbox["metadata"]["name"]
        if owner.get("kind") == "SandboxWarmPool":
            return
        if owner.get("kind") == "SandboxClaim":
            reasons = [
                condition(each, "Ready").get("reason")
                for each in self.all("claims")
                if each["metadata"]["uid"] == owner["uid"]
            ]
            self.rule(reasons == ["ClaimExpired"], f"4: Sandbox {name} was deleted under its claim {reasons}")
            return
        self.rule(condition(sandbox, "Ready").get("reason") == "SandboxExpired", f"4: Sandbox {name} was deleted alive")

    def policy_deleted(self, policy: dict[str, Any]) -> None:
        identity = label(policy, TEMPLATE_ID)
        governed = [
            each["metadata"]["name"]
            for each in self.all("pods")
            if label(each, TEMPLATE_ID) == identity
            and each["metadata"]["namespace"] == policy["metadata"]["namespace"]
            and not label(each, "made-by")
        ]
        self.rule(not governed, f"5: the NetworkPolicy of {governed} was removed while they live")

    def rule(self, holds: bool, text: str) -> None:
        if not holds:
            self.violations.append(text)


class Wire(TransportDecorator):
    """The server as the manager reaches it: notes its deletes, and may lose the process after a write."""

    def __init__(self, inner: Transport, witness: Witness) -> None:
        super().__init__(inner)
        self.witness = witness
        self.countdown: int | None = None
        self.crash = anyio.Event()

    async def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> RawResponse:
        if method == "DELETE":
            delete_options = msgspec.json.decode(options.get("body") or b"")
            uid = (delete_options.get("preconditions") or {}).get("uid")
            self.witness.rule(bool(uid), f"4: DELETE {path} carries no UID")
            self.witness.asked_to_delete.add(str(uid))
        answer = await self._inner.request(method, path, **options)
        if method != "GET" and self.countdown is not None:
            self.countdown -= 1
            if self.countdown <= 0:
                self.countdown = None
                self.crash.set()
        return answer


names = st.sampled_from(["a", "b", "c"])
POD_NEWS = ["unready", "failed", "succeeded", "evicted", "image", "vanish"]
steps = st.one_of(
    st.tuples(st.just("claim"), names, st.sampled_from(["default", "none", "pool", "absent"])),
    st.tuples(st.just("burst")),
    st.tuples(st.just("unclaim"), names),
    st.tuples(st.just("orphan"), names),
    st.tuples(st.just("reclaim"), names),
    st.tuples(st.just("metadata"), names, st.sampled_from(["one", "two"])),
    st.tuples(st.just("ttl"), names, st.sampled_from([0, 5]), st.sampled_from(["Retain", "DeleteForeground"])),
    st.tuples(st.just("expire"), names, st.sampled_from(["Retain", "Delete"])),
    st.tuples(st.just("sandbox"), names, st.booleans()),
    st.tuples(st.just("unsandbox"), names),
    st.tuples(st.just("resandbox"), names),
    st.tuples(
        st.just("relabel"), st.sampled_from(["pods", "sandboxes"]), st.integers(0, 4), st.sampled_from([None, "x"])
    ),
    st.tuples(st.just("replicas"), names, st.integers(0, 1)),
    st.tuples(st.just("pool"), st.integers(0, 3), st.sampled_from(["OnReplenish", "Recreate", "Rolling"])),
    st.tuples(st.just("unpool")),
    st.tuples(st.just("template"), st.sampled_from(["one", "two"])),
    st.tuples(st.just("untemplate")),
    st.tuples(st.just("pod"), st.integers(0, 4), st.sampled_from(POD_NEWS)),
    st.tuples(st.just("remove"), st.sampled_from(["pods", "services", "sandboxes", "pvcs"]), st.integers(0, 4)),
    st.tuples(st.just("foreign"), st.sampled_from(["Pod", "Service"]), names),
    st.tuples(st.just("unforeign"), names),
    st.tuples(st.just("spoof"), names),
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 1.0, 5.0, 60.0, 400.0])),
    st.tuples(
        st.just("fault"),
        st.sampled_from(["conflict", "lost_answer", "lost_request", "unreachable", "error", "slow"]),
        st.sampled_from(["POST", "PATCH", "DELETE"]),
        st.sampled_from(["/pods", "/sandboxes", "/status", "claims", "/networkpolicies", ""]),
        st.integers(1, 3),
    ),
    st.tuples(st.just("lag"), st.sampled_from(["/pods", "/sandboxes", "claims", "pools"]), st.sampled_from([0.5, 5.0])),
    st.tuples(st.just("drop")),
    st.tuples(st.just("crash")),
    st.tuples(st.just("crash_after"), st.integers(1, 6)),
)
Script = list[tuple[Any, ...]]


@dataclass
class Play:
    """Carries out a script."""

    make: Any
    house: Any
    witness: Witness
    wires: list[Wire] = field(default_factory=list)

    POD_STATES: ClassVar[dict[str, dict[str, Any]]] = {
        "unready": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]},
        "failed": {"phase": "Failed", "reason": "Error", "conditions": [{"type": "Ready", "status": "False"}]},
        "succeeded": {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]},
        "evicted": {"phase": "Failed", "reason": "Evicted", "conditions": [{"type": "Ready", "status": "False"}]},
        "image": {
            "phase": "Pending",
            "containerStatuses": [
                {
                    "name": "main",
                    "image": "x",
                    "imageID": "",
                    "ready": False,
                    "restartCount": 0,
                    "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}},
                }
            ],
        },
    }

    async def step(self, step: tuple[Any, ...]) -> None:
        kind, *rest = step if isinstance(step, tuple) else (step,)
        try:
            await getattr(self, f"do_{kind}")(*rest)
        except (ApiError, AssertionError) as error:
            # The server refuses what a user tries: that is the user's problem, and no step.
            if isinstance(error, AssertionError) and "Status" not in str(error):
                raise
        await anyio.sleep(0.02)
        await self.after_crash()
        assert not self.witness.violations, self.witness.violations

    async def after_crash(self) -> None:
        if self.wires[-1].crash.is_set():
            await self.do_crash()

    # Users

    async def do_claim(self, name: str, warmpool: str) -> None:
        await self.house.make(self.make.claim(name, warmpool=warmpool))

    async def do_burst(self) -> None:
        """Three claims at the same moment."""
        async with anyio.create_task_group() as tasks:
            for name in ("x", "y", "z"):
                if await self.house.get(SANDBOX_CLAIMS, name) is None:
                    tasks.start_soon(self.house.make, self.make.claim(name))

    async def do_unclaim(self, name: str) -> None:
        await self.house.delete(SANDBOX_CLAIMS, name)

    async def do_orphan(self, name: str) -> None:
        """kubectl delete --cascade=orphan."""
        view = await self.house.api.get(SANDBOX_CLAIMS, name, "default")
        await self.house.api.delete(
            SANDBOX_CLAIMS, name, "default", uid=view.metadata.uid, propagation=Propagation.ORPHAN
        )

    async def do_reclaim(self, name: str) -> None:
        """Delete a claim and make it again at once."""
        await self.do_unclaim(name)
        await self.do_claim(name, "default")

    async def do_metadata(self, name: str, value: str) -> None:
        extra = {"labels": {"sandbox.users.io/model": value}}
        await self.house.edit(SANDBOX_CLAIMS, name, {"spec": {"additionalPodMetadata": extra}})

    async def do_ttl(self, name: str, seconds: int, policy: str) -> None:
        lifecycle = {"ttlSecondsAfterFinished": seconds, "shutdownPolicy": policy}
        await self.house.edit(SANDBOX_CLAIMS, name, {"spec": {"lifecycle": lifecycle}})

    async def do_expire(self, name: str, policy: str) -> None:
        lifecycle = {"shutdownTime": "2026-01-01T00:00:01Z", "shutdownPolicy": policy}
        await self.house.edit(SANDBOX_CLAIMS, name, {"spec": {"lifecycle": lifecycle}})

    async def do_sandbox(self, name: str, volume: bool) -> None:
        spec = {"volumeClaimTemplates": [*self.make.volumes]} if volume else {"service": False}
        await self.house.make(self.make.sandbox(name, **spec))

    async def do_unsandbox(self, name: str) -> None:
        await self.house.delete(SANDBOXES, name)

    async def do_resandbox(self, name: str) -> None:
        """Delete a Sandbox and make it again at once."""
        await self.do_unsandbox(name)
        await self.do_sandbox(name, True)

    async def do_relabel(self, kind: str, number: int, value: str | None) -> None:
        """Change what puts a Pod under its policy."""
        resource = {"pods": PODS, "sandboxes": SANDBOXES}[kind]
        there = await self.house.all(resource, "default")
        if there:
            name = there[number % len(there)].metadata.name
            await self.house.edit(resource, name, {"metadata": {"labels": {TEMPLATE_ID: value}}})

    async def do_replicas(self, name: str, replicas: int) -> None:
        await self.house.edit(SANDBOXES, name, {"spec": {"replicas": replicas}})

    async def do_pool(self, replicas: int, strategy: str) -> None:
        spec = {"replicas": replicas, "updateStrategy": {"type": strategy}}
        if await self.house.get(SANDBOX_WARM_POOLS, "pool") is None:
            await self.house.make(self.make.pool(**spec))
        else:
            await self.house.edit(SANDBOX_WARM_POOLS, "pool", {"spec": spec})

    async def do_unpool(self) -> None:
        await self.house.delete(SANDBOX_WARM_POOLS, "pool")

    async def do_template(self, image: str) -> None:
        spec = {"podTemplate": {"spec": {"containers": [{"name": "main", "image": image}]}}}
        if await self.house.get(SANDBOX_TEMPLATES, "python") is None:
            await self.house.make(self.make.template(**spec))
        else:
            await self.house.edit(SANDBOX_TEMPLATES, "python", {"spec": spec})

    async def do_untemplate(self) -> None:
        await self.house.delete(SANDBOX_TEMPLATES, "python")

    async def do_remove(self, kind: str, number: int) -> None:
        resource = {"pods": PODS, "services": SERVICES, "sandboxes": SANDBOXES, "pvcs": PERSISTENT_VOLUME_CLAIMS}[kind]
        there = await self.house.all(resource, "default")
        if there:
            await self.house.delete(resource, there[number % len(there)].metadata.name)

    async def do_foreign(self, kind: str, name: str) -> None:
        spec = {"containers": [{"name": "x", "image": "x"}]} if kind == "Pod" else {"clusterIP": "None"}
        metadata = {"name": name, "namespace": "default", "labels": BY_USER}
        await self.house.make({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec})

    async def do_unforeign(self, name: str) -> None:
        for resource in (PODS, SERVICES):
            view = await self.house.get(resource, name)
            if view is not None and view.metadata.labels.get("made-by"):
                await self.house.delete(resource, name)

    async def do_spoof(self, name: str) -> None:
        """A Sandbox that pretends to be a Ready member of the pool, with the UID of nobody."""
        manifest = self.make.sandbox(f"spoof-{name}", service=False)
        manifest["metadata"] |= {
            "labels": {**BY_USER, "agents.x-k8s.io/warm-pool-sandbox": "91dd7983"},
            "ownerReferences": [
                {
                    "apiVersion": "extensions.agents.x-k8s.io/v1alpha1",
                    "kind": "SandboxWarmPool",
                    "name": "pool",
                    "uid": "00000000-0000-0000-0000-000000000000",
                    "controller": True,
                }
            ],
        }
        await self.house.make(manifest)

    # Kubelet

    async def do_pod(self, number: int, state: str) -> None:
        there = await self.house.all(PODS, "default")
        if not there:
            return
        pod = there[number % len(there)]
        if state == "vanish":
            await self.house.api.delete(PODS, pod.metadata.name, "default", uid=pod.metadata.uid)
        else:
            await self.house.kubelet.report(pod, self.POD_STATES[state])

    # The world

    async def do_wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def do_fault(self, kind: str, method: str, path: str, times: int) -> None:
        arguments = {"error": (500,), "slow": (1.5,)}.get(kind, ())
        fault = getattr(Fault, kind)(*arguments)
        self.house.wire.inject(fault, method=method, path=path, times=times)

    async def do_lag(self, path: str, seconds: float) -> None:
        self.house.wire.inject(Fault.slow_stream(seconds), path=path, times=1)
        self.house.wire.drop_watches()

    async def do_drop(self) -> None:
        self.house.wire.drop_watches()

    async def do_crash(self) -> None:
        await self.house.kill_manager()
        await self.house.start_manager()

    async def do_crash_after(self, writes: int) -> None:
        self.wires[-1].countdown = writes

    # The end

    async def settle(self) -> None:
        """Take all faults away, let the kubelet heal Pods that are not Ready, and give the cluster time."""
        self.wires[-1].countdown = None
        self.house.wire.heal()
        for _ in range(6):
            for pod in await self.house.all(PODS, "default"):
                if pod.status.phase not in ("Failed", "Succeeded") and not pod.ready:
                    await self.house.kubelet.report(pod, self.make.ready_status("10.1.1.1") | {"containerStatuses": []})
            await anyio.sleep(200)
        assert not self.witness.violations, self.witness.violations

    def check_rest(self) -> None:
        """Everything is as its own objects say it should be."""
        problems = [*self._sandboxes(), *self._pools(), *self._claims()]
        assert not problems, problems

    def _sandboxes(self) -> Iterator[str]:
        pods = self.witness.all("pods")
        for sandbox in self.witness.all("sandboxes"):
            meta = sandbox["metadata"]
            own = [pod for pod in pods if controller_of(pod).get("uid") == meta["uid"]]
            running = [pod for pod in own if condition(pod, "Ready").get("status") == "True"]
            ready = condition(sandbox, "Ready")
            strangers = [pod for pod in pods if pod["metadata"]["name"] == meta["name"] and pod not in own]
            yield from self._governed(sandbox, own)
            if sandbox["spec"].get("replicas") == 0:
                if own or ready.get("reason") not in ("SandboxSuspended", "ReconcilerError"):
                    yield f"Sandbox {meta['name']} is not suspended: {ready}"
            elif (ready.get("status") == "True") != bool(running) and ready.get("reason") != "ReconcilerError":
                yield f"Sandbox {meta['name']} says {ready}, its Pods are {[pod.get('status') for pod in own]}"
            elif (
                not own and not strangers and ready.get("reason") in ("DependenciesReady", "DependenciesNotReady", None)
            ):
                yield f"Sandbox {meta['name']} has no Pod and does not say why: {ready}"

    def _governed(self, sandbox: dict[str, Any], pods: list[dict[str, Any]]) -> Iterator[str]:
        """Its Pods are under the policy of the template that it was made from."""
        identity = template_id("default", "python")
        if "agents.x-k8s.io/sandbox-template-ref" not in (sandbox["metadata"].get("annotations") or {}):
            return
        if label(sandbox, TEMPLATE_ID) != identity:
            return  # somebody changed it: its Pods stay as they are
        for pod in pods:
            if label(pod, TEMPLATE_ID) != identity and controller_of(sandbox):
                yield f"Pod {pod['metadata']['name']} is under no policy"
        if pods and not any(label(each, TEMPLATE_ID) == identity for each in self.witness.all("policies")):
            yield f"no policy stands for {[pod['metadata']['name'] for pod in pods]}"

    def _pools(self) -> Iterator[str]:
        templates = self.witness.all("templates")
        for pool in self.witness.all("pools"):
            uid, wanted = pool["metadata"]["uid"], pool["spec"]["replicas"]
            members = [each for each in self.witness.all("sandboxes") if controller_of(each).get("uid") == uid]
            status = pool.get("status") or {}
            if templates and len(members) != wanted:
                yield f"the pool has {len(members)} members and wants {wanted}"
            if templates and status.get("replicas", 0) != len(members):
                yield f"the pool says {status} and has {len(members)} members"
            if not templates and condition(pool, "Progressing").get("reason") != "TemplateNotFound":
                yield f"the pool does not miss its template: {status}"

    def _claims(self) -> Iterator[str]:
        sandboxes = self.witness.all("sandboxes")
        for claim in self.witness.all("claims"):
            meta, ready = claim["metadata"], condition(claim, "Ready")
            own = [each for each in sandboxes if controller_of(each).get("uid") == meta["uid"]]
            if len(own) > 1:
                yield f"claim {meta['name']} has {len(own)} Sandboxes"
            elif own:
                theirs = condition(own[0], "Ready")
                if (ready.get("status"), ready.get("reason")) != (theirs.get("status"), theirs.get("reason")):
                    yield f"claim {meta['name']} says {ready}, its Sandbox {theirs}"
            elif ready.get("reason") not in (
                "TemplateNotFound",
                "WarmPoolNotFound",
                "SandboxMissing",
                "SandboxNameConflict",
                "ClaimExpired",
            ):
                yield f"claim {meta['name']} has no Sandbox and does not say why: {ready}"


async def play(make: Any, script: Script) -> None:
    witnesses: list[Witness] = []
    wires: list[Wire] = []

    def wrap(server: InMemoryApiServer) -> Transport:
        if not witnesses:
            witnesses.append(Witness(server))
        wires.append(Wire(server.transport(), witnesses[0]))
        return wires[-1]

    async with make.house(wrap=wrap) as house:
        acted = Play(make, house, witnesses[0], wires)
        await house.make(make.template(), make.pool(replicas=2))
        for step in script:
            await acted.step(step)
        await acted.settle()
        acted.check_rest()
        house.wire.seen.clear()
        await anyio.sleep(1200)
        assert house.writes() == [], "a cluster at rest is written to"


@pytest.fixture
def quiet() -> Iterator[None]:
    """Thousands of expected warnings would bury the one line that matters."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def rare_collections() -> Iterator[None]:
    """A script makes many objects and few cycles."""
    before = gc.get_threshold()
    gc.set_threshold(20_000, 10, 10)
    yield
    gc.set_threshold(*before)


@pytest.mark.timeout(0)
@pytest.mark.embedded
@pytest.mark.usefixtures("quiet", "rare_collections")
def test_whatever_users_nodes_and_networks_do_the_invariants_hold_and_the_cluster_comes_to_rest(make: Any) -> None:
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        derandomize=EXAMPLES <= 200,
        phases=PHASES,
    )
    @hypothesis.given(st.lists(steps, max_size=25))
    def run(script: Script) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(play(make, script))

    run()
