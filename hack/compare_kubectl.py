"""Types the same kubectl commands at the embedded server and at a real kube-apiserver, and compares what they say.

    KUBEBUILDER_ASSETS=$(hack/kube/build.sh) python hack/compare_kubectl.py [--show all|different|none] [--only TEXT]

Flow: two fresh servers with our CRDs -> every command on both, in order -> a verdict each. What no two servers have in
common (ages, UIDs, resource versions, ports, times, temporary files) is made the same first. A difference is listed if
its step names a row of the table in docs/embedded-server.md. Exit status: 0 all the same or listed, 1 otherwise.
"""

import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import anyio
import click

from agent_sandbox.local.apiserver import ApiServer, ObjectStore, SqliteJournal
from agent_sandbox.local.apiserver.site import ApiServerSite
from agent_sandbox.testing.envtest import EnvtestError, KubeAssets, kubernetes

ROOT: Final = Path(__file__).resolve().parents[1]
TABLE: Final = ROOT / "docs" / "embedded-server.md"
PATIENCE_SECONDS: Final = 60.0
WIDTH: Final = 78

POD_SPEC: Final[dict[str, Any]] = {"containers": [{"name": "main", "image": "registry.example/app:1"}]}


def _ours(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    group = "agents.x-k8s.io" if kind == "Sandbox" else "extensions.agents.x-k8s.io"
    return {"apiVersion": f"{group}/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _sandbox(**changes: Any) -> dict[str, Any]:
    return _ours("Sandbox", "one", {"podTemplate": {"spec": POD_SPEC}, **changes})


def _config_map(colour: str, name: str = "settings", **metadata: Any) -> dict[str, Any]:
    about = {"name": name, **metadata}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"colour": colour, "size": "1"}}


TEMPLATE: Final = _ours("SandboxTemplate", "basic", {"podTemplate": {"spec": POD_SPEC}})
POOL: Final = _ours("SandboxWarmPool", "pool", {"replicas": 1, "sandboxTemplateRef": {"name": "basic"}})
CLAIM: Final = _ours("SandboxClaim", "claim", {"sandboxTemplateRef": {"name": "basic"}})
POD: Final[dict[str, Any]] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": POD_SPEC}
READY: Final = json.dumps(
    {
        "status": {
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True",
                    "reason": "DependenciesReady",
                    "message": "ready",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ]
        }
    }
)


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        command: what is typed after ``kubectl``.
        objects: go to its standard input, as JSON documents.
        listed: the first cell of the row in the documents' table that explains a difference; empty for none.
        owner_uid: put the UID of ConfigMap ``owner`` in place of ``OWNER-UID`` in the objects.
    """

    command: str
    objects: Sequence[dict[str, Any]] = ()
    listed: str = ""
    owner_uid: bool = False


OWNED: Final = _config_map(
    "red",
    "owned",
    ownerReferences=[
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "OWNER-UID", "blockOwnerDeletion": True}
    ],
)
APPLY: Final = "apply -f -"
SERVER_SIDE: Final = "apply --server-side -f -"
STEPS: Final = (
    # what is there
    Step("api-resources --api-group=agents.x-k8s.io"),
    Step("api-resources --api-group=extensions.agents.x-k8s.io -o wide"),
    Step("api-resources --categories=agent-sandbox -o name"),
    Step("auth can-i create sandboxes.agents.x-k8s.io"),
    Step("auth can-i delete pods --all-namespaces"),
    Step("explain sandbox"),
    Step("explain sandbox.spec.podTemplate.spec.containers"),
    Step("explain sandbox.spec.replicas"),
    Step("explain sandboxtemplate.spec --recursive"),
    Step("explain sandboxclaim.spec"),
    Step("explain swp.spec"),
    Step("explain sandbox.spec.nothing"),
    Step("explain configmap.data"),
    # create
    Step("create namespace team"),
    Step("create namespace team"),
    Step("create configmap made --from-literal=colour=red"),
    Step("create secret generic made --from-literal=a=b"),
    Step("create serviceaccount made"),
    Step("create configmap dry --from-literal=a=b --dry-run=server -o name"),
    Step("create role reader --verb=get --resource=pods"),
    Step("create rolebinding reads --role=reader --user=somebody"),
    Step("get configmap,secret made"),
    Step("get namespace team"),
    Step("get namespace team -o jsonpath={.status.phase}:{.spec.finalizers}:{.metadata.labels}"),
    Step("get secret made -o yaml"),
    # apply on the client's side
    Step(APPLY, [_sandbox()]),
    Step(APPLY, [_sandbox()]),
    Step(APPLY, [_sandbox(shutdownTime="2030-01-01T00:00:00Z")]),
    Step(APPLY, [TEMPLATE, POOL, CLAIM]),
    Step(APPLY, [POD]),
    Step(f"{APPLY} --dry-run=server", [_sandbox(replicas=0)]),
    Step(APPLY, [_sandbox(replicas=2)]),
    Step(APPLY, [_sandbox(nothing=True)], listed="Refused fields of a patch under strict validation"),
    Step(APPLY, [_sandbox(podTemplate=7)]),
    Step(APPLY, [_ours("SandboxClaim", "wrong", {})]),
    Step(APPLY, [_ours("Sandbox", "Not_A_Name", {"podTemplate": {"spec": POD_SPEC}})]),
    Step("get sandbox one -o yaml"),
    Step("get sandboxtemplate basic -o jsonpath={.spec}"),
    # read
    Step("get sandboxes"),
    Step("get sandboxes -o wide"),
    Step("get sandboxclaims,sandboxtemplates,swp -o wide"),
    Step("get agent-sandbox --all-namespaces"),
    Step("get pods -o wide"),
    Step("get pod one --show-labels"),
    Step("get sandbox one -o name"),
    Step("get sandbox missing"),
    Step("get sandboxes -n nowhere"),
    Step("get sandboxes --field-selector=metadata.name=one -o name"),
    Step("get sandboxes -l app=x"),
    Step("get nothing"),
    Step("describe configmap settings"),
    # wait
    Step("wait --for=condition=Ready sandbox/one --timeout=1s"),
    Step(f"patch sandbox one --subresource=status --type=merge -p {READY}"),
    Step("wait --for=condition=Ready sandbox/one --timeout=20s"),
    Step("wait --for=jsonpath={.spec.replicas}=1 sandbox/one --timeout=20s"),
    Step("get sandboxes"),
    Step("describe sandbox one"),
    # apply on the server's side
    Step(SERVER_SIDE, [_config_map("red")]),
    Step(f"{SERVER_SIDE} --field-manager=other", [_config_map("blue")]),
    Step(f"{SERVER_SIDE} --field-manager=other --force-conflicts", [_config_map("blue")]),
    Step(SERVER_SIDE, [_config_map("red")]),
    Step("get configmap settings --show-managed-fields -o yaml"),
    Step(f"{SERVER_SIDE} --field-manager=other", [_sandbox(replicas=0)]),
    Step("describe configmap settings"),
    # scale, diff, patch, label
    Step("scale sandbox one --replicas=0"),
    Step("get sandbox one -o jsonpath={.spec.replicas}"),
    Step("scale sandbox one --replicas=5"),
    Step("scale swp pool --replicas=3"),
    Step("scale swp pool --replicas=4 --current-replicas=1"),
    Step("scale sandbox missing --replicas=1"),
    Step("diff -f -", [_config_map("blue")]),
    Step("diff -f -", [_config_map("green")]),
    Step("diff --server-side --force-conflicts -f -", [_config_map("green")]),
    Step("diff -f -", [_sandbox(replicas=1)]),
    Step('patch configmap settings --type=json -p [{"op":"test","path":"/data/colour","value":"no"}]'),
    Step('patch sandbox one -p {"spec":{"replicas":1}}'),
    Step('patch sandbox one --type=merge -p {"spec":{"replicas":1}}'),
    Step("label sandbox one app=x"),
    Step("label sandbox one app=y"),
    Step("annotate sandbox one note=x"),
    Step("replace -f -", [_config_map("white")]),
    # delete
    Step(APPLY, [_config_map("red", "owner")]),
    Step(APPLY, [OWNED], owner_uid=True),
    Step("delete configmap owner --cascade=foreground --timeout=40s"),
    Step("get configmap owner owned"),
    Step("delete sandbox one --cascade=foreground --timeout=40s"),
    Step("delete sandbox one"),
    Step("delete sandboxclaim,sandboxtemplate,swp --all"),
    Step("delete pod one --grace-period=0 --force"),
    Step("delete namespace team --timeout=40s"),
    Step("get namespace team"),
)


@dataclass(frozen=True)
class Outcome:
    """What one server made of a command, with everything accidental replaced."""

    code: int
    out: str
    err: str

    def lines(self) -> list[str]:
        """For people."""
        return [f"[{self.code}]", *self.out.splitlines(), *(f"! {line}" for line in self.err.splitlines())]


_SAME: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uid>"),
        (r"(127\.0\.0\.1|localhost):\d+", "<address>"),
        (r"(/\S+)?/(LIVE|MERGED)-\d+/", r"<tmp>/\2/"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| [+-]\d{4}( \w+)?)?", "<time>"),
        (r'(resourceVersion: |Resource Version: +)"?\d+"?', r"\1<version>"),
        (r"(?m)(?<=\s)\d+[smhd](\d+[smhd])?(?=\s|$)", "<age>"),
        (r"(?m)(?<=\S) {2,}", "  "),
        (r"(?m) +$", ""),
    )
)


def normalise(text: str) -> str:
    """Text without what differs between any two servers."""
    for pattern, replacement in _SAME:
        text = pattern.sub(replacement, text)
    return text


@dataclass(frozen=True)
class Server:
    """A server and the kubectl that talks to it."""

    kubectl: Path
    kubeconfig: Path

    async def run(self, *arguments: str, stdin: str = "") -> Outcome:
        """Run kubectl to its end."""
        environment = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.kubeconfig.parent), "PATH": "/usr/bin:/bin"}
        with anyio.fail_after(PATIENCE_SECONDS):
            done = await anyio.run_process(
                [str(self.kubectl), *arguments], input=stdin.encode(), check=False, env=environment
            )
        return Outcome(done.returncode, normalise(done.stdout.decode()), normalise(done.stderr.decode()))

    async def prepare(self) -> None:
        """Install our CRDs.

        Raises:
            EnvtestError: the server refuses them.
        """
        applied = await self.run("apply", "--server-side", "-k", str(ROOT / "config" / "crd"))
        waited = await self.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        if applied.code or waited.code:
            raise EnvtestError(f"our CRDs were not accepted: {applied.err}{waited.err}")

    async def do(self, step: Step) -> Outcome:
        """Run one step."""
        stdin = "\n---\n".join(json.dumps(value) for value in step.objects)
        if step.owner_uid:
            command = [str(self.kubectl), "get", "cm", "owner", "-o", "jsonpath={.metadata.uid}"]
            found = await anyio.run_process(command, env={"KUBECONFIG": str(self.kubeconfig), "HOME": "/nonexistent"})
            stdin = stdin.replace("OWNER-UID", found.stdout.decode())
        return await self.run(*_words(step.command), stdin=stdin)


def _words(command: str) -> list[str]:
    """Words are split at spaces; what follows ``-p`` is one word."""
    head, separator, patch = command.partition(" -p ")
    return [*head.split(), *(["-p", patch] if separator else [])]


@asynccontextmanager
async def embedded(folder: Path, kubectl: Path) -> AsyncIterator[Server]:
    """A fresh embedded server."""
    server = ApiServer(ObjectStore(SqliteJournal(folder / "objects.db")))
    await server.open()
    async with anyio.create_task_group() as group:
        await group.start(server.run)
        async with await ApiServerSite.prepare(server, folder / "api") as site:
            yield Server(kubectl, site.credentials.kubeconfig_file)
        group.cancel_scope.cancel()
    await server.aclose()


def listed_differences() -> frozenset[str]:
    """The first cells of the documents' table."""
    rows = [line.split("|")[1].strip() for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    return frozenset(rows[2:])


async def compare(folder: Path, assets: KubeAssets, show: str, only: str) -> int:
    """Run all steps; gives the number of differences that are not listed."""
    listed = listed_differences()
    counts = {"same": 0, "listed": 0, "DIFFERENT": 0}
    with kubernetes(folder / "kubernetes", assets=assets, controller_manager=True) as cluster:
        real = Server(assets.kubectl, cluster.kubeconfig)
        async with embedded(folder, assets.kubectl) as ours:
            await real.prepare()
            await ours.prepare()
            for step in STEPS:
                left, right = await ours.do(step), await real.do(step)
                verdict = "same" if left == right else "listed" if step.listed in listed else "DIFFERENT"
                counts[verdict] += 1
                if only in step.command:
                    report(step, verdict, left, right, show)
    click.echo(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    return counts["DIFFERENT"]


def report(step: Step, verdict: str, left: Outcome, right: Outcome, show: str) -> None:
    """Print a verdict and, if wanted, both outputs side by side: the embedded server's on the left."""
    reason = f" ({step.listed})" if verdict == "listed" else ""
    click.echo(f"{verdict:9} kubectl {step.command}{reason}")
    if show == "none" or (show == "different" and left == right):
        return
    for mine, theirs in zip_longest(left.lines(), right.lines(), fillvalue=""):
        mark = " " if mine == theirs else "|"
        for start in range(0, max(len(mine), len(theirs), 1), WIDTH):
            click.echo(f"  {mine[start : start + WIDTH]:{WIDTH}} {mark} {theirs[start : start + WIDTH]}")


@click.command()
@click.option("--show", type=click.Choice(["all", "different", "none"]), default="different", help="Whose outputs.")
@click.option("--only", default="", help="Print only commands that contain this text; all of them run.")
def main(show: str, only: str) -> None:
    """Compare the embedded server with a real kube-apiserver, as kubectl sees them."""
    os.environ.pop("KUBECONFIG", None)
    try:
        assets = KubeAssets.find()
        with tempfile.TemporaryDirectory(prefix="compare-kubectl-") as name:
            different = anyio.run(compare, Path(name), assets, show, only)
    except EnvtestError as error:
        raise click.ClickException(str(error)) from error
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
