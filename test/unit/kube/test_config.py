"""Finding the server: kubeconfigs, a Pod's account, and what is told when neither can be used."""

import sys
from pathlib import Path

import pytest
import yaml

from agent_sandbox.kube import ConfigError, connect, connect_to, in_cluster
from agent_sandbox.kube import config as config_module
from agent_sandbox.kube.http import AiohttpTransport


def write_kubeconfig(path: Path, user: dict[str, object]) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "first", "user": "me"}},
            {"name": "two", "context": {"cluster": "second", "user": "me"}},
        ],
        "clusters": [
            {"name": "first", "cluster": {"server": "http://127.0.0.1:1001"}},
            {"name": "second", "cluster": {"server": "http://127.0.0.1:1002"}},
        ],
        "users": [{"name": "me", "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


async def authorization(transport: object) -> str | None:
    assert isinstance(transport, AiohttpTransport)
    return await transport._credentials.authorization()


async def test_a_kubeconfig_gives_server_and_token_of_the_chosen_context(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "config", {"token": "secret"})
    first, second = await connect(path), await connect(path, "two")

    assert (first.transport.host, second.transport.host) == ("127.0.0.1:1001", "127.0.0.1:1002")
    assert await authorization(first.transport) == "Bearer secret"


async def test_an_exec_plugin_is_asked_for_the_token_and_again_after_401(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\n"
        f"echo x >> {counter}\n"
        f"n=$(wc -l < {counter} | tr -d ' ')\n"
        'echo "{\\"apiVersion\\":\\"client.authentication.k8s.io/v1\\",\\"kind\\":\\"ExecCredential\\",'
        '\\"status\\":{\\"token\\":\\"token-$n\\"}}"\n'
    )
    plugin.chmod(0o755)
    execute = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    client = await connect(write_kubeconfig(tmp_path / "config", {"exec": execute}))
    assert isinstance(client.transport, AiohttpTransport)
    assert await authorization(client.transport) == "Bearer token-1"

    assert await client.transport._credentials.refresh()
    assert await authorization(client.transport) == "Bearer token-2"


async def test_an_exec_plugin_that_fails_later_is_an_error_of_ours_which_watchers_and_controllers_retry(
    tmp_path: Path,
) -> None:
    plugin = tmp_path / "plugin"
    status = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"one"}}'
    plugin.write_text(f"#!/bin/sh\necho '{status}'\n")
    plugin.chmod(0o755)
    execute = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin), "interactiveMode": "Never"}
    client = await connect(write_kubeconfig(tmp_path / "config", {"exec": execute}))
    assert isinstance(client.transport, AiohttpTransport)
    assert await authorization(client.transport) == "Bearer one"

    plugin.write_text("#!/bin/sh\necho 'log in again' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match=r"credentials of .*config cannot be renewed"):
        await client.transport._credentials.refresh()
    plugin.unlink()
    with pytest.raises(ConfigError, match=r"credentials of .*config cannot be renewed"):
        await client.transport._credentials.refresh()


async def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        await connect(tmp_path / "nowhere")
    path = write_kubeconfig(tmp_path / "config", {})
    with pytest.raises(ConfigError, match="context three"):
        await connect(path, "three")


def test_an_environment_variable_alone_makes_no_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")

    assert not in_cluster()


async def test_connecting_to_a_known_server_does_not_load_kubernetes_asyncio(tmp_path: Path) -> None:
    import subprocess

    program = (
        "import asyncio, sys\n"
        "from agent_sandbox.kube import connect_to\n"
        "client = asyncio.run(connect_to('http://127.0.0.1:1', token='t'))\n"
        "assert 'kubernetes_asyncio' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)  # noqa: ASYNC221 - its own process


async def test_files_that_do_not_exist_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca\.crt"):
        await connect_to("https://127.0.0.1:1", ca_file=tmp_path / "ca.crt")


async def test_the_token_of_a_pod_comes_from_its_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    (tmp_path / "token").write_text("of the pod")
    (tmp_path / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())  # noqa: ASYNC240 - a test's files
    monkeypatch.setattr(config_module, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")

    client = await connect()
    assert client.transport.host == "[fd00::1]:6443"
    assert await authorization(client.transport) == "Bearer of the pod"


@pytest.mark.parametrize("content", ["just a word", "- a list", "a: [", "contexts: 7", "current-context: one"])
async def test_a_file_that_is_no_kubeconfig_is_named_and_not_a_crash(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)

    with pytest.raises(ConfigError, match=str(path)):
        await connect(path)


async def test_a_kubeconfig_that_does_not_exist_is_named_and_nothing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    with pytest.raises(ConfigError, match=r"~/\.kube/config"):
        await connect(context="one")
    assert caplog.records == []
