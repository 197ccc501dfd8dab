"""Which cluster, which way, which address: pure decisions."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent_sandbox.kube import KubeClient
from agent_sandbox.local.state import Endpoint, StackRecord
from agent_sandbox.sdk import SandboxConfigError, SandboxPortForwardError, cluster
from agent_sandbox.sdk.cluster import ClusterChoice, ConfiguredCluster, GivenClient, LocalStack, choose_cluster
from agent_sandbox.sdk.gateway import GatewayAddress, GatewayStatus, GatewayView, gateway_host
from agent_sandbox.sdk.options import ConnectionOptions
from agent_sandbox.sdk.routes import PodRoute, check_url, choose_mode
from agent_sandbox.sdk.tunnel import target_port
from agent_sandbox.sdk.wire import Target, encode_path
from agent_sandbox.testing.faults import FaultyTransport
from agent_sandbox_api.views import MetaView


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with nothing in it, outside any Pod."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cluster, "in_cluster", lambda: False)
    return tmp_path


def run_stack(directory: Path, kubeconfig: str = "kubeconfig") -> StackRecord:
    """Record a stack that runs: this process."""
    record = StackRecord.of_this_process(
        started=datetime.now(UTC),
        api=Endpoint("https://127.0.0.1:1"),
        router=Endpoint("http://127.0.0.1:2"),
        kubeconfig=directory / kubeconfig,
    )
    record.write(directory)
    return record


def default_directory(home: Path) -> Path:
    """Where a stack keeps its state by default."""
    return home / ".local/state/agent-sandbox/default"


def test_with_nothing_at_all_the_error_says_what_to_do(home: Path) -> None:
    with pytest.raises(SandboxConfigError, match="agent-sandbox local up"):
        choose_cluster(ConnectionOptions(), {})


def test_a_given_client_is_taken_before_everything(home: Path) -> None:
    kube = KubeClient(FaultyTransport(None))  # type: ignore[arg-type]

    assert choose_cluster(ConnectionOptions(kube=kube, kubeconfig="x"), {"KUBECONFIG": "y"}) == GivenClient(kube)


def test_a_running_stack_is_found_without_any_configuration(home: Path) -> None:
    record = run_stack(default_directory(home))

    assert choose_cluster(ConnectionOptions(), {}) == LocalStack(record)


def test_a_running_stack_gives_way_to_what_is_configured(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_stack(default_directory(home))

    assert choose_cluster(ConnectionOptions(kubeconfig="k"), {}) == ConfiguredCluster("k")
    assert choose_cluster(ConnectionOptions(context="c"), {}) == ConfiguredCluster(context="c")
    assert choose_cluster(ConnectionOptions(), {"KUBECONFIG": "k"}) == ConfiguredCluster()
    monkeypatch.setattr(cluster, "in_cluster", lambda: True)
    assert choose_cluster(ConnectionOptions(), {}) == ConfiguredCluster(inside=True)


def test_a_running_stack_comes_before_the_kubeconfig_that_lies_around(home: Path) -> None:
    (home / ".kube").mkdir()
    (home / ".kube/config").touch()
    assert choose_cluster(ConnectionOptions(), {}) == ConfiguredCluster()

    record = run_stack(default_directory(home))
    assert choose_cluster(ConnectionOptions(), {}) == LocalStack(record)
    assert choose_cluster(ConnectionOptions(local=False), {}) == ConfiguredCluster()


def test_the_kubeconfig_of_a_stack_of_another_name_means_that_stack_too(home: Path) -> None:
    """`export KUBECONFIG=$(agent-sandbox local kubeconfig --name other)` is enough."""
    run_stack(default_directory(home))
    other = run_stack(home / "other", "api/kubeconfig")

    assert choose_cluster(ConnectionOptions(kubeconfig=other.kubeconfig), {}) == LocalStack(other)
    assert choose_cluster(ConnectionOptions(), {"KUBECONFIG": str(other.kubeconfig)}) == LocalStack(other)
    (home / "copy").write_text("")
    assert choose_cluster(ConnectionOptions(kubeconfig=home / "copy"), {}) == ConfiguredCluster(home / "copy")


def test_the_kubeconfig_of_a_running_stack_means_that_stack(home: Path) -> None:
    record = run_stack(default_directory(home))

    assert choose_cluster(ConnectionOptions(), {"KUBECONFIG": str(record.kubeconfig)}) == LocalStack(record)


def test_insisting_on_the_local_stack_is_an_error_where_none_runs(home: Path, tmp_path: Path) -> None:
    for options, variables in (
        (ConnectionOptions(local=True), {}),
        (ConnectionOptions(mode="local"), {}),
        (ConnectionOptions(), {"AGENT_SANDBOX_LOCAL": "1"}),
    ):
        with pytest.raises(SandboxConfigError, match="no local stack runs under"):
            choose_cluster(options, variables)
    record = run_stack(tmp_path / "elsewhere")
    assert choose_cluster(ConnectionOptions(local=True, state_dir=tmp_path / "elsewhere"), {}) == LocalStack(record)
    assert choose_cluster(
        ConnectionOptions(), {"AGENT_SANDBOX_LOCAL": "1", "AGENT_SANDBOX_STATE_DIR": str(tmp_path / "elsewhere")}
    ) == LocalStack(record)


@pytest.mark.parametrize(
    ("options", "choice", "mode"),
    [
        ({"api_url": "http://x", "gateway_name": "g"}, ConfiguredCluster(), "direct"),
        ({"gateway_name": "g"}, ConfiguredCluster(), "gateway"),
        ({}, ConfiguredCluster(), "tunnel"),
        ({}, ConfiguredCluster(inside=True), "in-cluster"),
        ({"mode": "pod"}, ConfiguredCluster(inside=True), "pod"),
        ({"mode": "tunnel", "api_url": "http://x"}, ConfiguredCluster(), "tunnel"),
    ],
)
def test_the_way_follows_from_what_is_given(options: dict[str, Any], choice: ClusterChoice, mode: str) -> None:
    assert choose_mode(ConnectionOptions(**options), choice) == mode


def test_the_local_stack_has_its_own_router(home: Path) -> None:
    assert choose_mode(ConnectionOptions(), LocalStack(run_stack(home))) == "local"


@pytest.mark.parametrize("mode", ["direct", "gateway", "local"])
def test_a_way_that_lacks_what_it_needs_is_an_error(mode: Any) -> None:
    with pytest.raises(SandboxConfigError):
        choose_mode(ConnectionOptions(mode=mode), ConfiguredCluster())


@pytest.mark.parametrize(
    ("values", "host"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["2001:db8::1"], "[2001:db8::1]"),
        (["gw.example.com."], "gw.example.com"),
        (["2130706433", "0x7f.1", "10.0.0.1"], "10.0.0.1"),
        (["-bad-", "a..b", "", "exa mple"], None),
        (["a" * 64 + ".com"], None),
        (["http://evil"], None),
    ],
)
def test_the_first_usable_gateway_address_is_taken(values: list[str], host: str | None) -> None:
    addresses = tuple(GatewayAddress(value) for value in values)

    assert gateway_host(GatewayView(MetaView(), GatewayStatus(addresses))) == host


@pytest.mark.parametrize("url", ["", "router:8080", "ftp://x", "http://", "http://x:port"])
def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(SandboxConfigError, match="api_url"):
        check_url(url)


def test_trailing_slashes_of_a_router_are_dropped() -> None:
    assert check_url("https://router/prefix//") == "https://router/prefix"


@pytest.mark.parametrize(
    ("path", "encoded"),
    [
        ("a b", "a%20b"),
        ("/tmp/x", "%2Ftmp%2Fx"),
        ("../x", "..%2Fx"),
        ("..", "%2E%2E"),
        ("%41", "%2541"),
        ("é", "%C3%A9"),
        ("a?b#c", "a%3Fb%23c"),
    ],
)
def test_a_path_is_encoded_exactly_once(path: str, encoded: str) -> None:
    assert encode_path(path) == encoded


def test_a_pods_ipv4_address_is_preferred_and_ipv6_is_bracketed() -> None:
    route = PodRoute(None, {})  # type: ignore[arg-type]

    assert route.base_url(Target("n", "s", ("2001:db8::1", "10.0.0.1")), 80) == "http://10.0.0.1:80"
    assert route.base_url(Target("n", "s", ("2001:db8::1",)), 80) == "http://[2001:db8::1]:80"
    with pytest.raises(RuntimeError, match="no Pod address"):
        route.base_url(Target("n", "s"), 80)


@pytest.mark.parametrize(
    ("ports", "port"),
    [
        ([{"port": 8080, "targetPort": 9090}], 9090),
        ([{"port": 8080}], 8080),
        ([{"port": 1, "targetPort": 2}, {"port": 8080, "targetPort": "http"}], 7070),
        ([{"port": 80, "targetPort": "http"}], 7070),
        ([], 8080),
    ],
)
def test_the_tunnel_ends_at_the_services_target_port(ports: list[dict[str, Any]], port: int) -> None:
    pod = {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a"}, {"ports": [{"name": "http", "containerPort": 7070}]}]},
    }

    assert target_port({"spec": {"ports": ports}}, pod) == port


def test_a_target_port_that_no_container_has_is_an_error() -> None:
    pod: dict[str, Any] = {"metadata": {"name": "p"}, "spec": {"containers": []}}

    with pytest.raises(SandboxPortForwardError, match="'web'"):
        target_port({"spec": {"ports": [{"port": 8080, "targetPort": "web"}]}}, pod)
