"""What people type, against the embedded server on a socket, with the kubectl that the machine has."""

import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from agent_sandbox.local.apiserver import ApiServer, ExecCall, ExecSession, LogCall, ObjectStore, SqliteJournal
from agent_sandbox.local.apiserver.site import ApiServerSite
from agent_sandbox_api.crds import load_crds

PROGRAM = os.environ.get("KUBECTL") or shutil.which("kubectl")
"""``KUBECTL`` names another one, for example that of ``make kube-assets``."""
pytestmark = [
    pytest.mark.kubectl,
    pytest.mark.skipif(PROGRAM is None, reason="kubectl is not installed: install 1.32 or newer to run these tests"),
]
PATIENCE_SECONDS = 40.0

SANDBOX = """
apiVersion: agents.x-k8s.io/v1alpha1
kind: Sandbox
metadata: {name: one}
spec:
  podTemplate:
    spec:
      containers: [{name: main, image: "registry.example/app:1"}]
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: x}}
spec:
  nodeName: local
  containers: [{name: main, image: "registry.example/app:1"}]
"""
CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: red, size: "1"}
"""


@dataclass
class Result:
    """What kubectl said."""

    code: int
    out: str
    err: str


@dataclass
class Kubectl:
    """A kubectl with its kubeconfig, and the server behind it."""

    kubeconfig: Path
    server: ApiServer

    async def run(self, *arguments: str, stdin: str = "") -> Result:
        """Run it to its end."""
        assert PROGRAM is not None
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent), "PATH": "/usr/bin:/bin"}
        with anyio.fail_after(PATIENCE_SECONDS):
            done = await anyio.run_process([PROGRAM, *arguments], input=stdin.encode(), check=False, env=environment)
        return Result(done.returncode, done.stdout.decode(), done.stderr.decode())

    async def ok(self, *arguments: str, stdin: str = "") -> str:
        """Run it; the test fails unless it succeeds."""
        result = await self.run(*arguments, stdin=stdin)
        assert result.code == 0, result.err
        return result.out


async def _say_hello(call: LogCall) -> AsyncIterator[bytes]:
    yield f"hello from {call.container}\n".encode()


async def _echo(call: ExecCall, session: ExecSession) -> None:
    await session.send_stdout(" ".join(call.command).encode() + b"\n")
    await session.send_stderr(b"oops\n")
    await session.finish(3)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Kubectl]:
    """A server on a free port with our CRDs."""
    server = ApiServer(ObjectStore(SqliteJournal(folder / "objects.db")))
    server.providers.log = _say_hello
    server.providers.exec = _echo
    await server.open()
    async with anyio.create_task_group() as group:
        await group.start(server.run)
        async with await ApiServerSite.prepare(server, folder / "api") as site:
            kubectl = Kubectl(site.credentials.kubeconfig_file, server)
            definitions = {"apiVersion": "v1", "kind": "List", "items": list(load_crds())}
            await kubectl.ok("create", "--validate=false", "-f", "-", stdin=json.dumps(definitions))
            yield kubectl
        group.cancel_scope.cancel()
    await server.aclose()


async def test_apply_creates_configures_and_leaves_alone(tmp_path: Path) -> None:
    """Client-side apply: POST, then patches, then nothing."""
    async with running(tmp_path) as kubectl:
        first = await kubectl.ok("apply", "-f", "-", stdin=SANDBOX)
        second = await kubectl.ok("apply", "-f", "-", stdin=SANDBOX)
        third = await kubectl.ok("apply", "-f", "-", stdin=SANDBOX.replace("app:1", "app:2"))

    assert first.strip() == "sandbox.agents.x-k8s.io/one created"
    assert second.strip() == "sandbox.agents.x-k8s.io/one unchanged"
    assert third.strip() == "sandbox.agents.x-k8s.io/one configured"


async def test_apply_patches_a_pod_strategically(tmp_path: Path) -> None:
    """Built-in kinds merge lists by key."""
    async with running(tmp_path) as kubectl:
        await kubectl.ok("apply", "-f", "-", stdin=POD)
        await kubectl.ok("apply", "-f", "-", stdin=POD.replace("app:1", "app:2"))
        image = await kubectl.ok("get", "pod", "one", "-o", "jsonpath={.spec.containers[*].image}")

    assert image == "registry.example/app:2"


async def test_wrong_input_is_refused_with_the_field(tmp_path: Path) -> None:
    """By the schema, and for unknown fields by strict validation."""
    async with running(tmp_path) as kubectl:
        wrong = await kubectl.run(
            "apply", "-f", "-", stdin=SANDBOX.replace("spec:\n  pod", "spec:\n  replicas: 2\n  pod")
        )
        unknown = await kubectl.run(
            "apply", "-f", "-", stdin=SANDBOX.replace("spec:\n  pod", "spec:\n  nope: 2\n  pod")
        )

    assert wrong.code == 1
    assert "spec.replicas: Invalid value: 2" in wrong.err
    assert unknown.code == 1
    assert 'unknown field "spec.nope"' in unknown.err


async def test_explain_describes_our_fields_and_kubernetes_own(tmp_path: Path) -> None:
    """From OpenAPI v3."""
    async with running(tmp_path) as kubectl:
        ours = await kubectl.ok("explain", "sandbox.spec.podTemplate.spec.containers")
        theirs = await kubectl.ok("explain", "pod.spec.restartPolicy")

    assert "List of containers belonging to the pod" in ours
    assert "FIELD: restartPolicy <string>" in theirs


async def test_get_shows_tables(tmp_path: Path) -> None:
    """Columns of the kind, more of them with -o wide; short names and categories work."""
    async with running(tmp_path) as kubectl:
        await kubectl.ok("apply", "-f", "-", stdin=SANDBOX + "---" + POD)
        await kubectl.ok("patch", "pod", "one", "--subresource=status", "-p", '{"status":{"podIP":"10.0.0.9"}}')
        wide = await kubectl.ok("get", "pods", "-o", "wide")
        sandboxes = await kubectl.ok("get", "agent-sandbox", "-A")

    heading, row = wide.splitlines()
    assert heading.split() == "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES".split()  # noqa: SIM905
    assert row.split()[:4] == ["one", "0/1", "Pending", "0"]
    assert "10.0.0.9" in row
    assert sandboxes.splitlines()[0].split() == ["NAMESPACE", "NAME", "READY", "REASON", "AGE"]


async def test_describe_and_logs_and_exec(tmp_path: Path) -> None:
    """describe reads Events, logs and exec go to the node."""
    async with running(tmp_path) as kubectl:
        await kubectl.ok("apply", "-f", "-", stdin=POD)
        described = await kubectl.ok("describe", "pod", "one")
        logs = await kubectl.ok("logs", "one")
        run = await kubectl.run("exec", "one", "--", "say", "hi")

    assert "registry.example/app:1" in described
    assert logs == "hello from main\n"
    assert (run.code, run.out) == (3, "say hi\n")
    assert "oops" in run.err


async def test_wait_sees_a_condition(tmp_path: Path) -> None:
    """kubectl wait watches until the condition holds."""
    status = '{"status":{"conditions":[{"type":"Ready","status":"True"}]}}'
    async with running(tmp_path) as kubectl, anyio.create_task_group() as group:
        await kubectl.ok("apply", "-f", "-", stdin=POD)
        group.start_soon(kubectl.ok, "patch", "pod", "one", "--subresource=status", "-p", status)
        waited = await kubectl.ok("wait", "--for=condition=Ready", "pod/one", "--timeout=120s")

    assert waited.strip() == "pod/one condition met"


async def test_server_side_apply_conflicts_and_takes_over(tmp_path: Path) -> None:
    """The second manager is told, and may force."""
    changed = CONFIG_MAP.replace("red", "blue")
    other = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    async with running(tmp_path) as kubectl:
        await kubectl.ok("apply", "--server-side", "-f", "-", stdin=CONFIG_MAP)
        refused = await kubectl.run(*other, stdin=changed)
        taken = await kubectl.ok(*other, "--force-conflicts", stdin=changed)

    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.colour' in refused.err
    assert taken.strip() == "configmap/settings serverside-applied"


async def test_client_side_apply_can_move_to_the_server_side(tmp_path: Path) -> None:
    """kubectl hands the ownership of its last-applied fields over."""
    async with running(tmp_path) as kubectl:
        await kubectl.ok("apply", "-f", "-", stdin=CONFIG_MAP)
        await kubectl.ok("apply", "--server-side", "-f", "-", stdin=CONFIG_MAP.replace("red", "blue"))
        colour = await kubectl.ok("get", "cm", "settings", "-o", "jsonpath={.data.colour}")

    assert colour == "blue"


async def test_scale_changes_replicas(tmp_path: Path) -> None:
    """Through the scale subresource of a custom kind."""
    async with running(tmp_path) as kubectl:
        await kubectl.ok("apply", "-f", "-", stdin=SANDBOX)
        said = await kubectl.ok("scale", "sandbox", "one", "--replicas=0")
        replicas = await kubectl.ok("get", "sandbox", "one", "-o", "jsonpath={.spec.replicas}")

    assert said.strip() == "sandbox.agents.x-k8s.io/one scaled"
    assert replicas == "0"


async def test_diff_shows_what_apply_would_change(tmp_path: Path) -> None:
    """Exit code 1 and a diff, by a dry run."""
    async with running(tmp_path) as kubectl:
        await kubectl.ok("apply", "-f", "-", stdin=CONFIG_MAP)
        same = await kubectl.run("diff", "-f", "-", stdin=CONFIG_MAP)
        other = await kubectl.run("diff", "-f", "-", stdin=CONFIG_MAP.replace("red", "blue"))

    assert same.code == 0
    assert other.code == 1
    assert "-  colour: red" in other.out
    assert "+  colour: blue" in other.out


async def test_delete_in_the_foreground_takes_dependents_along(tmp_path: Path) -> None:
    """kubectl waits until the owner is gone."""
    async with running(tmp_path) as kubectl:
        await kubectl.ok("apply", "-f", "-", stdin=CONFIG_MAP)
        uid = await kubectl.ok("get", "cm", "settings", "-o", "jsonpath={.metadata.uid}")
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "settings", "uid": uid, "blockOwnerDeletion": True}
        child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "child", "ownerReferences": [owner]}}
        await kubectl.ok("create", "-f", "-", stdin=json.dumps(child))
        await kubectl.ok("delete", "cm", "settings", "--cascade=foreground", "--timeout=120s")
        left = await kubectl.ok("get", "cm", "-o", "name")

    assert "settings" not in left
    assert "child" not in left


async def test_auth_and_api_resources(tmp_path: Path) -> None:
    """whoami, can-i and the list of kinds."""
    async with running(tmp_path) as kubectl:
        who = await kubectl.ok("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
        may = await kubectl.ok("auth", "can-i", "delete", "pods")
        kinds = await kubectl.ok("api-resources", "-o", "name")

    assert who == "agent-sandbox-admin"
    assert may.strip() == "yes"
    assert {"pods", "sandboxes.agents.x-k8s.io", "leases.coordination.k8s.io"} <= set(kinds.split())


async def test_a_wrong_token_is_unauthorized(tmp_path: Path) -> None:
    """And nothing is said about anything."""
    async with running(tmp_path) as kubectl:
        refused = await kubectl.run("get", "pods", "--token=wrong")

    assert refused.code == 1
    assert "must be logged in" in refused.err or "Unauthorized" in refused.err


async def test_an_unknown_kind_is_named(tmp_path: Path) -> None:
    """As kubectl says it everywhere."""
    async with running(tmp_path) as kubectl:
        body = "apiVersion: nobody.example/v1\nkind: Unicorn\nmetadata: {name: x}\n"
        refused = await kubectl.run("apply", "-f", "-", stdin=body)

    assert refused.code == 1
    assert 'no matches for kind "Unicorn" in version "nobody.example/v1"' in refused.err


@pytest.mark.parametrize(
    ("arguments", "path", "found"),
    [
        (("namespace", "team"), "{.status.phase}", "Active"),
        (("configmap", "c", "--from-literal=colour=red"), "{.data.colour}", "red"),
        (("secret", "generic", "s", "--from-literal=a=b"), "{.type} {.data.a}", "Opaque Yg=="),
        (("serviceaccount", "robot"), "{.metadata.namespace}", "default"),
        (("role", "reader", "--verb=get", "--resource=pods"), "{.rules[0].resources}", '["pods"]'),
        (("rolebinding", "b", "--role=reader", "--user=u"), "{.roleRef.name} {.subjects[0].name}", "reader u"),
        (
            ("clusterrole", "r", "--aggregation-rule=a=b"),
            "{.aggregationRule.clusterRoleSelectors[0].matchLabels.a}",
            "b",
        ),
        (("clusterrolebinding", "b", "--clusterrole=r", "--group=g"), "{.subjects[0].kind}", "Group"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
async def test_typed_create_commands_are_understood(
    tmp_path: Path, arguments: tuple[str, ...], path: str, found: str
) -> None:
    """kubectl writes these objects in protobuf since 1.33, and reads the answer in JSON."""
    name = next(argument for argument in arguments[1:] if argument != "generic")
    async with running(tmp_path) as kubectl:
        said = await kubectl.ok("create", *arguments)
        value = await kubectl.ok("get", arguments[0], name, "-o", f"jsonpath={path}")
        again = await kubectl.run("create", *arguments)

    assert said.strip().endswith("created")
    assert value == found
    assert "already exists" in again.err


async def test_evictions_are_understood(tmp_path: Path) -> None:
    """kubectl drain evicts every Pod of a node, with its delete options in the same message."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "local"}}
    async with running(tmp_path) as kubectl:
        await kubectl.ok("apply", "-f", "-", stdin=json.dumps(node))
        await kubectl.ok("apply", "-f", "-", stdin=POD)
        drained = await kubectl.run("drain", "local", "--force", "--grace-period=0", "--timeout=120s")

    assert drained.code == 0, drained.err
    assert "pod/one evicted" in drained.out
