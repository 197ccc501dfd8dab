"""The command: help that helps, mistakes that are named, flags that arrive."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from agent_sandbox.cli import main
from agent_sandbox.cli.manager_flags import controller_options, manager_flags, manager_options
from agent_sandbox.cli.manifests import read_manifests

SANDBOX_VERBS = [
    "create",
    "ls",
    "run",
    "exec",
    "cp",
    "sync",
    "logs",
    "port",
    "url",
    "suspend",
    "resume",
    "rm",
    "doctor",
]
VERBS = [
    "apply", "local", "manager", "router", "local up", "local down", "local status", "local kubeconfig", "completion",
    *SANDBOX_VERBS,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _logging_of_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb configures the logging of its process; here that is everybody's."""
    for module in ("local", "manager", "router"):
        monkeypatch.setattr(f"agent_sandbox.cli.{module}.configure_logging", lambda *_: None)


def invoke(*arguments: str) -> Any:
    """Run the command in this process."""
    return CliRunner().invoke(main, arguments, prog_name="agent-sandbox")


def flags_of(*arguments: str) -> dict[str, Any]:
    """The flags of `manager` as click reads them."""
    read: dict[str, Any] = {}

    @click.command()
    @manager_flags
    def probe(**flags: Any) -> None:
        read.update(flags)

    result = CliRunner().invoke(probe, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return read


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_each_of_its_options(verb: str) -> None:
    """`--help` answers with a sentence, and no option stands without one."""
    command: Any = main
    context = click.Context(main)
    for word in verb.split():
        command = command.get_command(context, word)

    assert invoke(*verb.split(), "--help").exit_code == 0
    assert command.help
    assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []


@pytest.mark.parametrize("verb", [*SANDBOX_VERBS, "completion"])
def test_every_verb_for_sandboxes_shows_an_example(verb: str) -> None:
    """A line to paste, with this very verb."""
    assert f"agent-sandbox {verb}" in invoke(verb, "--help").output.replace("Usage: agent-sandbox", "")


def test_the_overview_lists_the_verbs_without_loading_them() -> None:
    """The first page names every verb and says what it is for."""
    overview = invoke("--help").output

    assert all(verb in overview for verb in ("apply", "local", "manager", "router", "sandboxd", *SANDBOX_VERBS))


def test_help_of_a_verb_loads_neither_the_sdk_nor_a_client_of_kubernetes() -> None:
    """What answers at once stays so: none of what is heavy is imported for a page of text."""
    program = (
        "import sys\n"
        "from agent_sandbox.cli import main\n"
        "for verb in sys.argv[1:]:\n"
        "    main([verb, '--help'], standalone_mode=False)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} | set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *SANDBOX_VERBS], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {
        "aiohttp",
        "kubernetes_asyncio",
        "pydantic",
        "msgspec",
        "agent_sandbox.sdk.sandboxes",
        "agent_sandbox.kube",
    }
    assert not [name for name in heavy if f"'{name}'" in done.stderr]


def test_flags_of_the_manager_reach_the_controllers_and_the_process() -> None:
    """What an operator types is what the parts are told."""
    flags = flags_of(
        "--watch-namespaces", "a, b", "--leader-elect", "--lease-duration", "30", "--extra-egress-except",
        "10.9.0.0/16", "--sandbox-claim-concurrent-workers", "7", "--metrics-bind-address", ":9999",
        "--disable-claim-events", "--no-enable-warm-pool-eviction", "--warm-claim-patience", "0.5",
        "--sandbox-warm-pool-unschedulable-recheck-interval", "90",
    )  # fmt: skip

    controllers, process = controller_options(flags), manager_options(flags)

    assert controllers.watch_namespaces == process.namespaces == ("a", "b")
    assert controllers.extra_egress_excepts == ("10.9.0.0/16",)
    assert controllers.claim_workers == 7
    assert not controllers.claim_events
    assert not controllers.pool_eviction
    assert (controllers.claim_patience, controllers.pool_recheck_interval) == (0.5, 90)
    assert process.metrics_address == ":9999"
    assert process.leader_election is not None
    assert process.leader_election.lease_duration == 30


def test_defect_14_nothing_listens_beyond_loopback_unless_told() -> None:
    """The defaults of all addresses are on 127.0.0.1, and no election runs outside a cluster."""
    process = manager_options(flags_of())

    assert process.metrics_address.startswith("127.0.0.1:")
    assert process.health_address.startswith("127.0.0.1:")
    assert process.leader_election is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("manager", "--sandbox-concurrent-workers", "0"), "at least 1"),
        (("manager", "--leader-elect", "--lease-duration", "5"), "lease_duration"),
        (("manager", "--metrics-certificate", __file__), "go together"),
        (("manager", "--metrics-bind-address", "nowhere"), "host:port"),
        (("manager", "--health-probe-bind-address", ":70000"), "host:port"),
        (("manager", "--watch-namespaces", "Bad NS"), "cannot be a namespace"),
        (("manager", "--watch-namespaces", ","), "leave the option out"),
        (("manager", "--leader-election-namespace", "a.b"), "cannot be a namespace"),
        (("manager", "--router-namespace", "Bad"), "a DNS label"),
        (("manager", "--cluster-domain", "Bad domain"), "cluster_domain"),
        (("manager", "--allowed-label-domain", "no domain!"), "allowed_label_domains"),
        (("manager", "--extra-egress-except", "999.0.0.1/33"), "a CIDR"),
        (("manager", "--extra-egress-except", "10.0.0.1/8"), "has host bits set"),
        (("router", "--watch-namespaces", ","), "leave the option out"),
        (("router", "--domain", "no domain!"), "a DNS name"),
        (("router", "--port", "70000"), "port must be from 0 to 65535"),
        (("router", "--idle-timeout", "nan"), "idle_timeout must be more than 0"),
        (("router", "--max-timeout", "0"), "max_timeout must be more than 0"),
        (("router", "--wait-ready", "-1"), "wait_ready must be 0 or more"),
        (("router", "--drain-timeout", "inf"), "drain_timeout must be 0 or more, and finite"),
        (("router", "--host", "0.0.0.0", "--unsafe-allow-all"), "loopback"),
        (("router", "--authz-mode", "allow-all"), "--unsafe-allow-all"),
        (("router", "--authz-mode", "scoped-token"), "key file"),
        (("router", "--max-rate", "0"), "max_rate must be more than 0"),
        (("apply", "-f", "/no/such/file"), "no such file"),
        (("local", "kubeconfig", "--state-dir", "/no/such/stack"), "agent-sandbox local up"),
        (("local", "up", "--name", "../x"), "cannot be a stack's name"),
        (("local", "up", "--api-port", "99999"), "0<=x<=65535"),
        (("ls", "-n", "Bad NS"), "cannot be a namespace"),
        (("apply", "-n", "Bad NS", "-f", "-"), "cannot be a namespace"),
        (("url", "box", "80", "--seconds", "-1"), "no duration"),
        (("create", "--template", "t", "--ttl", "99999999999d"), "a hundred years"),
        (("local", "kubeconfig", "--state-dir", "/no/such/stack"), "local up --background --state-dir /no/such/stack"),
        (("rum",), "Did you mean 'rm' or 'run'?"),
        (("create",), "--template or --pool"),
        (("create", "--cold", "--pool", "p"), "contradict"),
        (("create", "Bad_Name", "--template", "t"), "agent-sandbox ls"),
        (("create", "--template", "t", "--ttl", "soon"), "1h30m"),
        (("create", "--template", "t", "-l", "nothing"), "KEY=VALUE"),
        (("ls", "box", "-w"), "leave one out"),
        (("cp", "a", "b"), "NAME:PATH"),
        (("cp", "a:b", "c:d"), "one side must be here"),
        (("cp", "-", "box:"), "name of a file"),
        (("sync", ".", "here"), "NAME:PATH"),
        (("logs", "box", "--process", "x", "--tail", "3"), "do not go together"),
        (("port", "box", "99999"), "8080:8000"),
        (("port", "box"), "Missing argument"),
        (("rm",), "--all"),
        (("rm", "box", "--all"), "--all"),
    ],
)
def test_a_mistake_is_named_together_with_the_way_out(arguments: tuple[str, ...], words: str) -> None:
    """Exit status 1 or 2, one message, no traceback."""
    result = invoke(*arguments)

    assert result.exit_code in {1, 2}
    assert isinstance(result.exception, SystemExit)
    assert words in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run",), "--template"),
        (("run", "box"), "which command"),
        (("run", "--template", "t"), "which command"),
        (("run", "--keep", "box", "true"), "--keep goes with"),
        (("run", "-d", "--template", "t", "true"), "--keep"),
        (("run", "-t", "box", "sh"), "needs a terminal"),
        (("run", "-d", "-i", "box", "sh"), "neither terminal nor input"),
        (("run", "--no-such-option", "box"), "--no-such-option"),
        (("run", "Bad_Name", "true"), "no name"),
        (("exec",), "NAME"),
        (("exec", "box"), "-it"),
        (("exec", "box", "--timeout"), "which"),
    ],
)
def test_a_mistake_around_a_command_has_a_status_of_its_own(
    arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """125, so that a script can tell it from the command's own 1 and 2."""
    if arguments[-1] == "--timeout":
        arguments = (arguments[0], "--timeout", "5", arguments[1])
    result = invoke(*arguments)

    assert result.exit_code == 125
    assert words in result.output


def test_a_folder_is_read_in_order_without_its_kustomization(tmp_path: Path) -> None:
    """Manifests come file by file, documents and lists flattened."""
    (tmp_path / "b.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: two}\n")
    (tmp_path / "a.yaml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: one}}\n---\n"
    )
    (tmp_path / "kustomization.yaml").write_text("resources: [a.yaml]\n")

    assert [manifest["metadata"]["name"] for manifest in read_manifests([str(tmp_path)])] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no object"),
        ("a: [", "is not YAML"),
        ("just: data", "no Kubernetes object"),
        ("apiVersion: v1\nkind: Pod", "no metadata.name"),
    ],
)
def test_what_is_no_manifest_is_refused_before_anything_is_sent(tmp_path: Path, text: str, words: str) -> None:
    """The message names the file and what is wrong with it."""
    file = tmp_path / "broken.yaml"
    file.write_text(text)

    with pytest.raises(click.ClickException, match=words) as refused:
        read_manifests([str(file)])

    assert "broken.yaml" in refused.value.message


@pytest.mark.parametrize("option", ["--metrics-port", "--router-metrics-port"])
def test_a_taken_port_of_the_metrics_is_named_before_anything_starts(tmp_path: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = invoke("local", "up", "--state-dir", str(tmp_path), option, port)

    assert result.exit_code == 1
    assert f"port {port} of 127.0.0.1" in result.output
    assert option in result.output
