"""What `make test-envtest` is made of, as far as it can be seen without a Kubernetes."""

import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent_sandbox.testing.certificates import CertificateAuthority
from agent_sandbox.testing.envtest import EnvtestError, KubeAssets, kubernetes
from agent_sandbox.testing.run_with_kubernetes import main

BUILD = Path(__file__).resolve().parents[3] / "hack" / "kube" / "build.sh"


def test_missing_assets_are_named_together_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "etcd").touch()
    with pytest.raises(EnvtestError, match="has no kube-apiserver, kubectl: run `make kube-assets`"):
        KubeAssets.find(tmp_path)


def test_without_a_folder_the_message_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    with pytest.raises(EnvtestError, match="make test-envtest"):
        KubeAssets.find()


def test_a_command_is_not_run_when_there_is_no_kubernetes_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    done = CliRunner().invoke(main, ["touch", "/nowhere/at/all"])
    assert done.exit_code == 1
    assert "KUBEBUILDER_ASSETS is not set" in done.output


def test_a_machine_without_go_is_told_why_nothing_runs_on_a_real_server(tmp_path: Path) -> None:
    """What .ci/run asks first, on a machine that has neither Go nor a Kubernetes."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "awk", "dirname"):
        (programs / name).symlink_to(str(shutil.which(name)))
    done = subprocess.run(
        [programs / "bash", BUILD, "--possible"],
        env={"PATH": str(programs), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "skipped: the tests on a real Kubernetes; this machine has no Go" in done.stderr


def test_a_program_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    script = tmp_path / "etcd"
    script.write_text("#!/bin/sh\necho no space left >&2\nexit 7\n")
    script.chmod(0o755)
    with (
        pytest.raises(EnvtestError, match=r"(?s)etcd ended with status 7.*no space left"),
        kubernetes(tmp_path / "run", assets=KubeAssets(script, script, script)),
    ):
        pytest.fail("it cannot have started")


def test_a_server_and_a_user_of_one_authority_trust_each_other(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    server_pair = authority.server("server", ["127.0.0.1", "localhost"])
    user_pair = authority.user("system:node:alice", ["readers", "writers"])
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.certificate_file)
    server.load_cert_chain(server_pair.certificate, server_pair.key)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=authority.certificate_file)
    client.load_cert_chain(user_pair.certificate, user_pair.key)
    seen: list[object] = []

    def serve(end: socket.socket) -> None:
        with server.wrap_socket(end, server_side=True) as secure:
            seen.append((secure.getpeercert() or {}).get("subject"))
            secure.sendall(b"hello")

    near, far = socket.socketpair()
    thread = threading.Thread(target=serve, args=(far,))
    thread.start()
    with client.wrap_socket(near, server_hostname="127.0.0.1") as secure:
        assert secure.recv(5) == b"hello"
    thread.join()
    assert seen == [
        (
            (("organizationName", "readers"),),
            (("organizationName", "writers"),),
            (("commonName", "system:node:alice"),),
        )
    ]


def test_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    key = CertificateAuthority(tmp_path).signing_key("accounts")
    assert key.stat().st_mode & 0o077 == 0
