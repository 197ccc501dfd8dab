"""A real Kubernetes API server for tests: etcd and kube-apiserver on loopback, optionally the controller manager.

In: a folder with the programs (``KUBEBUILDER_ASSETS``, which ``make test-envtest`` sets). Out: a running server with
an authority of its own, RBAC on, kubeconfigs for any user and group, and the matching kubectl. It is ready in about
five seconds and keeps everything, logs included, in the folder it was given.

There is no kubelet: Pods stay Pending until a test writes their status. Without the controller manager nothing is
garbage-collected and namespaces do not finish, as in envtest of controller-runtime.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent_sandbox.testing.certificates import CertificateAuthority

ASSETS_VARIABLE: Final = "KUBEBUILDER_ASSETS"
START_TIMEOUT: Final = 120.0
"""Seconds that each program may take to answer; a loaded machine of two cores needs about ten."""
PATIENCE: Final = 60.0
"""Seconds that the server may take to act on what it has stored: to serve a kind, to grant a right."""
STOP_TIMEOUT: Final = 15.0
_POLL: Final = 0.05
_SERVICE_RANGE: Final = "10.0.0.0/24"
_ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
_CONTROLLERS: Final = (
    "clusterrole-aggregation-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
)


class EnvtestError(Exception):
    """The programs are missing or did not start; the message says which, and what they said last."""


@dataclass(frozen=True)
class KubeAssets:
    """The programs of one Kubernetes version; the controller manager may be missing."""

    etcd: Path
    kube_apiserver: Path
    kubectl: Path
    kube_controller_manager: Path | None = None

    @classmethod
    def find(cls, folder: str | Path | None = None) -> "KubeAssets":
        """The programs in the folder, or where ``KUBEBUILDER_ASSETS`` says.

        Raises:
            EnvtestError: no folder is known, or it lacks a program.
        """
        where = folder or os.environ.get(ASSETS_VARIABLE)
        if not where:
            raise EnvtestError(f"{ASSETS_VARIABLE} is not set: run `make test-envtest`, which builds and finds them")
        paths = {name: Path(where) / name for name in ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager")}
        missing = [name for name, path in paths.items() if not path.exists() and name != "kube-controller-manager"]
        if missing:
            raise EnvtestError(f"{where} has no {', '.join(missing)}: run `make kube-assets`")
        manager = paths["kube-controller-manager"]
        return cls(paths["etcd"], paths["kube-apiserver"], paths["kubectl"], manager if manager.exists() else None)


class _Program:
    """One program of the cluster, with its log in the cluster's folder."""

    def __init__(self, name: str, command: list[str], folder: Path) -> None:
        self._name = name
        self._folder = folder
        guard = shutil.which("setpriv")
        self._command = [*([guard, "--pdeathsig", "KILL"] if guard else []), *command]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, answers: Callable[[], bool]) -> None:
        """Start it and wait until it answers; it ends with this process if that is killed.

        Raises:
            EnvtestError: it ended first, or took too long.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"{self._name}.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT
        pause = threading.Event()
        while not answers():
            status = self._process.poll()
            if status is not None:
                raise EnvtestError(f"{self._name} ended with status {status}; its last words: {self._tail()}")
            if time.monotonic() > deadline:
                raise EnvtestError(f"{self._name} was not ready after {START_TIMEOUT:.0f} s; its log: {self._tail()}")
            pause.wait(_POLL)

    def stop(self) -> None:
        """Ask it to end, and kill it if it does not."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _tail(self) -> str:
        lines = (self._folder / f"{self._name}.log").read_text(errors="replace").splitlines()
        return "\n" + "\n".join(lines[-15:])


@dataclass
class Kubernetes:
    """A running API server.

    Attributes:
        url: where it listens.
        folder: holds its data, its logs and the kubeconfigs.
        kubeconfig: a member of system:masters.
    """

    url: str
    folder: Path
    assets: KubeAssets
    authority: CertificateAuthority
    restart_api_server: Callable[[], None]
    """Kills the API server, as a crash does, and starts it again at the same address over the same data.

    To be called by the thread that started the cluster: Linux ends the program with the thread that made it.
    """
    kubeconfig: Path = field(init=False)

    def __post_init__(self) -> None:
        self.kubeconfig = self.kubeconfig_for("admin", ["system:masters"])

    @property
    def ca_file(self) -> Path:
        """Whom clients must trust."""
        return self.authority.certificate_file

    def kubeconfig_for(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for that user, who may do what RBAC lets the user and the groups do."""
        pair = self.authority.user(user, groups)
        return self._write_kubeconfig(
            pair.certificate.stem, {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}
        )

    def kubeconfig_for_service_account(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a token of that service account, which must exist."""
        token = self.kubectl("create", "token", name, "-n", namespace, "--duration=24h").stdout.strip()
        return self._write_kubeconfig(f"{namespace}.{name}", {"token": token})

    def kubectl(
        self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run the kubectl of the same version; with ``check`` a failure raises, with kubectl's own words.

        Raises:
            EnvtestError: it failed.
        """
        command = [str(self.assets.kubectl), "--kubeconfig", str(kubeconfig or self.kubeconfig), *arguments]
        home = {"HOME": str(self.folder), "PATH": os.environ.get("PATH", "")}
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False, env=home)  # noqa: S603
        if check and done.returncode != 0:
            raise EnvtestError(f"kubectl {' '.join(arguments)} failed: {done.stderr or done.stdout}")
        return done

    def define(self, definitions: Sequence[Mapping[str, Any]]) -> None:
        """Have these CustomResourceDefinitions, served.

        Raises:
            EnvtestError: the server refuses one.
        """
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(definitions)})
        self.kubectl("apply", "--server-side", "-f", "-", stdin=document)
        self.wait_until_served()

    def wait_until_served(self) -> None:
        """Return once kubectl finds and can explain the kind of every CustomResourceDefinition.

        That a definition is established says less: discovery and OpenAPI follow, each in its own time.

        Raises:
            EnvtestError: that took too long.
        """
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", f"--timeout={PATIENCE:.0f}s")
        specs = [item["spec"] for item in json.loads(self.kubectl("get", "crd", "-o", "json").stdout)["items"]]
        names = {f"{spec['names']['plural']}.{spec['group']}" for spec in specs}
        documents = {f"apis/{spec['group']}/{spec['versions'][0]['name']}" for spec in specs}

        def served() -> bool:
            found = self.kubectl("api-resources", "--cached=false", "-o", "name", check=False).stdout.split()
            described = json.loads(self.kubectl("get", "--raw", "/openapi/v3").stdout)["paths"]
            return names <= set(found) and documents <= described.keys()

        until(served, f"the kinds {', '.join(sorted(names))} are served")

    def wait_until_allowed(self, user: str, verb: str, resource: str, *flags: str) -> None:
        """Return once RBAC lets that user do this; a Role is stored some time before the server goes by it.

        Args:
            user: his name, as in ``system:serviceaccount:default:me``.
            verb: such as ``create``.
            resource: as ``kubectl auth can-i`` takes it, with a name or without.
            flags: more of that command, such as ``--as-group`` and ``--subresource``.

        Raises:
            EnvtestError: he may not, and that did not change.
        """
        question = ["auth", "can-i", verb, resource, f"--as={user}", *flags]
        until(lambda: self.kubectl(*question, check=False).stdout.strip() == "yes", f"{user} may {verb} {resource}")

    def _write_kubeconfig(self, name: str, user: dict[str, str]) -> Path:
        """kubectl reads JSON as it reads YAML."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [
                {"name": "envtest", "cluster": {"server": self.url, "certificate-authority": str(self.ca_file)}}
            ],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": "envtest", "user": name, "namespace": "default"}}],
        }
        path = self.folder / f"{name}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(json.dumps(config))
        return path


@contextlib.contextmanager
def kubernetes(
    folder: Path,
    *,
    assets: KubeAssets | None = None,
    controller_manager: bool = False,
    api_server_arguments: Sequence[str] = (),
) -> Iterator[Kubernetes]:
    """Run a Kubernetes in ``folder`` until the block is left; the folder itself is the caller's to remove.

    Args:
        folder: for data, logs, keys and kubeconfigs.
        assets: the programs; by default where ``KUBEBUILDER_ASSETS`` says.
        controller_manager: also run garbage collection, namespace deletion and service accounts. With it, Pods need
            the service account of their namespace, as in a cluster.
        api_server_arguments: further flags of kube-apiserver, for example for an audit log.

    Raises:
        EnvtestError: a program is missing or did not start.
    """
    found = assets or KubeAssets.find()
    if controller_manager and found.kube_controller_manager is None:
        raise EnvtestError(f"{found.etcd.parent} has no kube-controller-manager: run `make kube-assets`")
    authority = CertificateAuthority(folder / "pki")
    with contextlib.ExitStack() as stack:
        etcd_url = _start_etcd(stack, folder, found)
        signing_key = authority.signing_key("service-accounts")
        url, restart = _start_api_server(
            stack,
            folder,
            found,
            authority,
            etcd_url,
            signing_key,
            admit_accounts=controller_manager,
            further=api_server_arguments,
        )
        server = Kubernetes(url, folder, found, authority, restart)
        if found.kube_controller_manager is not None and controller_manager:
            _start_controller_manager(stack, folder, found.kube_controller_manager, server, signing_key)
        yield server


def _start_etcd(stack: contextlib.ExitStack, folder: Path, assets: KubeAssets) -> str:
    port, peer_port = _free_port(), _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        str(assets.etcd),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]
    etcd = _Program("etcd", command, folder)
    stack.callback(etcd.stop)
    etcd.start(lambda: _answers(port, "/health"))
    return url


def _start_api_server(
    stack: contextlib.ExitStack,
    folder: Path,
    assets: KubeAssets,
    authority: CertificateAuthority,
    etcd_url: str,
    signing_key: Path,
    *,
    admit_accounts: bool,
    further: Sequence[str],
) -> tuple[str, Callable[[], None]]:
    port = _free_port()
    serving = authority.server("kube-apiserver", ["127.0.0.1", "localhost", "kubernetes.default.svc", "10.0.0.1"])
    command = [
        str(assets.kube_apiserver),
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'pki'}",
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={authority.certificate_file}",
        "--authorization-mode=RBAC",
        "--endpoint-reconciler-type=none",  # it refuses to advertise loopback
        f"--service-cluster-ip-range={_SERVICE_RANGE}",
        f"--service-account-issuer={_ISSUER}",
        f"--service-account-key-file={signing_key}",
        f"--service-account-signing-key-file={signing_key}",
        "--allow-privileged=true",
        "--profiling=false",
        *further,
    ]
    if not admit_accounts:
        command.append("--disable-admission-plugins=ServiceAccount")  # nobody makes the default accounts
    server = _Program("kube-apiserver", command, folder)
    stack.callback(server.stop)
    trust = ssl.create_default_context(cafile=authority.certificate_file)

    def is_ready() -> bool:
        return _answers(port, "/readyz", trust)

    def restart() -> None:
        server.kill()
        server.start(is_ready)

    server.start(is_ready)
    return f"https://127.0.0.1:{port}", restart


def _start_controller_manager(
    stack: contextlib.ExitStack, folder: Path, program: Path, server: Kubernetes, signing_key: Path
) -> None:
    port = _free_port()
    kubeconfig = server.kubeconfig_for("system:kube-controller-manager", ["system:masters"])
    command = [
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--controllers={','.join(_CONTROLLERS)}",
        f"--service-account-private-key-file={signing_key}",
        f"--root-ca-file={server.ca_file}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'controller-manager'}",
        "--profiling=false",
    ]
    manager = _Program("kube-controller-manager", command, folder)
    stack.callback(manager.stop)
    unverified = ssl.create_default_context()
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE  # it signs its own certificate, and /healthz is no secret
    manager.start(
        lambda: (
            _answers(port, "/healthz", unverified)
            and server.kubectl("get", "serviceaccount", "default", check=False).returncode == 0
        )
    )


def _answers(port: int, path: str, trust: ssl.SSLContext | None = None) -> bool:
    """True if a GET there says 200."""
    connection: Any
    if trust is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=trust)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return bool(connection.getresponse().status == http.HTTPStatus.OK)
        except (OSError, http.client.HTTPException):
            return False


def until(true: Callable[[], bool], what: str) -> None:
    """Ask again and again: another program tells nobody when it has got there.

    Raises:
        EnvtestError: that took too long; the message says what did not come about.
    """
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not true():
        if time.monotonic() > deadline:
            raise EnvtestError(f"it did not come about in {PATIENCE:.0f} s that {what}")
        pause.wait(_POLL)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
