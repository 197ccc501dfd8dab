"""Out of the stack: what policies allow, nothing else, and not for longer than they allow it."""

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.kube import MergePatch
from agent_sandbox.local.node import egress, gvisor_trial, names
from agent_sandbox.testing import outside_world as outside
from agent_sandbox_api.core import NETWORK_POLICIES
from agent_sandbox_api.views import find_condition

RunNode = Callable[..., Any]

pytestmark = [
    pytest.mark.skipif("os.geteuid() != 0", reason="networks that stand for the internet need root"),
    pytest.mark.skipif(shutil.which("slirp4netns") is None, reason=f"slirp4netns is not installed: {egress.INSTALL}"),
]

SLEEPER = {"name": "main", "image": "localhost/host", "command": ["sleep", "1000"]}
PRIVATE_RANGES = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]
INTERNET = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": PRIVATE_RANGES}}]}
DNS_ONLY = {"ports": [{"protocol": "UDP", "port": 53}]}

TRY = """
import socket, sys
kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
try:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as mine:
        mine.settimeout(float(sys.argv[4]))
        mine.connect((host, port))
        mine.send(b"ping")
        print(mine.recv(10).decode(errors="replace"))
except OSError as error:
    print(type(error).__name__)
"""

TALK = """
import socket, time
with socket.create_connection(("{host}", {port}), timeout=60) as mine:
    while True:
        mine.send(b"x")
        try:
            answer = mine.recv(10)
        except OSError as error:
            answer = b""
        if not answer:
            break
        print("heard", flush=True)
        time.sleep(0.05)
print("cut off", flush=True)
time.sleep(1000)
"""


def policy(name: str, *egress_rules: dict[str, Any], **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Egress"],
            "egress": list(egress_rules),
        },
    }


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[outside.Outside]:
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"search example.net\nnameserver {outside.NAME_SERVER}\n")
    monkeypatch.setattr(names, "_RESOLV_CONF", resolv)
    with outside.outside_world() as world:
        yield world


async def _try(stack: Any, pod: str, kind: str, host: str, port: int, *, patience: float = 1) -> str:
    """What a server out there answers, or the error; a datagram that is dropped is waited for in vain."""
    session = await stack.execute(pod, "main", ["python", "-c", TRY, kind, host, str(port), str(patience)])
    return str(session.out.decode().strip())


async def _reaches(stack: Any, pod: str, kind: str, host: str, port: int) -> bool:
    """Whether a server answers, however long a busy machine takes for it."""
    return await _try(stack, pod, kind, host, port, patience=60) == "ping"


async def _resolve(stack: Any, pod: str, name: str) -> str:
    script = "import socket, sys\ntry: print(socket.gethostbyname(sys.argv[1]))\nexcept OSError: print('unknown')"
    session = await stack.execute(pod, "main", ["timeout", "100", "python", "-c", script, name])
    return str(session.out.decode().strip())


@pytest.mark.slow
async def test_the_public_internet_is_open_to_whom_a_policy_lets_out_and_private_ranges_are_not(
    run_node: RunNode, world: outside.Outside
) -> None:
    with socket.socket() as on_the_host:
        on_the_host.bind((outside.HOST, 7777))
        on_the_host.listen()
        async with run_node() as stack:
            await stack.server.create(policy("out", INTERNET, DNS_ONLY, app="out"))
            await stack.create_pod("out", {"containers": [SLEEPER]}, labels={"app": "out"})
            await stack.create_pod("plain", {"containers": [SLEEPER]})
            await stack.until_ready("out")
            await stack.until_ready("plain")

            assert await _reaches(stack, "out", "tcp", outside.PUBLIC, outside.WEB)
            assert await _reaches(stack, "out", "udp", outside.PUBLIC, outside.ECHO)
            assert await _resolve(stack, "out", "example.com") == outside.PUBLIC
            assert await _resolve(stack, "out", "nowhere.example") == "unknown"
            for host, port in (
                (outside.PRIVATE, outside.WEB),
                (outside.METADATA, outside.WEB),
                (outside.HOST, 7777),
                ("198.18.255.2", 7777),
                ("127.0.0.1", 7777),
                ("169.254.1.1", 7777),
                ("10.88.200.200", 80),
            ):
                assert (await _try(stack, "out", "tcp", host, port)).endswith("Error"), (host, port)
            assert (await _try(stack, "plain", "tcp", outside.PUBLIC, outside.WEB)).endswith("Error")
            assert await _resolve(stack, "plain", "example.com") == "unknown"

    # A name is asked for again when the answer is slow to come.
    assert list(dict.fromkeys(world.questions)) == [b"\x07example\x03com\x00", b"\x07nowhere\x07example\x00"]


async def test_even_a_policy_without_exceptions_leads_neither_to_the_host_nor_to_cloud_metadata(
    run_node: RunNode, world: outside.Outside
) -> None:
    with socket.socket() as on_the_host:
        on_the_host.bind((outside.HOST, 7777))
        on_the_host.listen()
        async with run_node() as stack:
            await stack.server.create(policy("all", {}, app="all"))
            await stack.create_pod("all", {"containers": [SLEEPER]}, labels={"app": "all"})
            await stack.until_ready("all")

            assert await _reaches(stack, "all", "tcp", outside.PRIVATE, outside.WEB)
            for host, port in ((outside.METADATA, outside.WEB), (outside.HOST, 7777), ("198.18.255.2", 7777)):
                assert (await _try(stack, "all", "tcp", host, port)).endswith("Error"), (host, port)


@pytest.mark.slow
@pytest.mark.parametrize(
    "runtime",
    [
        "bubblewrap",
        pytest.param(
            "gvisor",
            marks=pytest.mark.skipif(
                gvisor_trial.find_program() is None, reason=f"runsc is not installed: {gvisor_trial.INSTALL}"
            ),
        ),
    ],
)
async def test_a_pod_that_may_use_dns_only_resolves_names_and_reaches_nothing(
    run_node: RunNode, world: outside.Outside, runtime: str
) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "mute", "namespace": "default"},
        "spec": {"clusterIP": "None", "selector": {"app": "mute"}},
    }
    async with run_node() as stack:
        await stack.server.create(service)
        await stack.server.create(policy("dns", DNS_ONLY, app="mute"))
        await stack.create_pod("mute", {"containers": [SLEEPER], "runtimeClassName": runtime}, labels={"app": "mute"})
        address = (await stack.until_ready("mute")).ips[0]

        assert await _resolve(stack, "mute", "example.com") == outside.PUBLIC
        with anyio.fail_after(60):
            while await _resolve(stack, "mute", "mute") != address:  # noqa: ASYNC110 - nobody tells us
                await anyio.sleep(0.01)
        for kind, host, port in (
            ("tcp", outside.PUBLIC, outside.WEB),
            ("udp", outside.PUBLIC, outside.ECHO),
            ("udp", outside.NAME_SERVER, 53),
            ("tcp", outside.NAME_SERVER, 53),
            ("tcp", outside.PRIVATE, outside.WEB),
            ("tcp", "169.254.1.1", 53),
        ):
            assert (await _try(stack, "mute", kind, host, port)).endswith("Error"), (kind, host, port)


@pytest.mark.slow
async def test_ports_ranges_and_exceptions_hold_and_change_while_pods_run(
    run_node: RunNode, world: outside.Outside
) -> None:
    block = {"cidr": "203.0.113.0/24", "except": [f"{outside.OTHER_PUBLIC}/32"]}
    rule = {"to": [{"ipBlock": block}], "ports": [{"port": 79, "endPort": 80}]}
    async with run_node() as stack:
        await stack.server.create(policy("some", rule, app="some"))
        talk = {
            "name": "talk",
            "image": "localhost/host",
            "command": ["python", "-c", TALK.format(host=outside.PUBLIC, port=outside.WEB)],
        }
        await stack.create_pod("some", {"containers": [SLEEPER, talk]}, labels={"app": "some"})
        await stack.until_printed("some", "talk", "heard")

        assert await _reaches(stack, "some", "tcp", outside.PUBLIC, outside.WEB)
        assert (await _try(stack, "some", "tcp", outside.PUBLIC, outside.NEIGHBOUR)).endswith("Error")
        assert (await _try(stack, "some", "tcp", outside.OTHER_PUBLIC, outside.WEB)).endswith("Error")
        assert (await _try(stack, "some", "udp", outside.PUBLIC, outside.ECHO)).endswith("Error")

        other = {"to": [{"ipBlock": {"cidr": f"{outside.OTHER_PUBLIC}/32"}}]}
        await stack.client.patch(NETWORK_POLICIES, "some", MergePatch({"spec": {"egress": [other]}}), "default")
        await stack.until_printed("some", "talk", "cut off")

        assert await _reaches(stack, "some", "tcp", outside.OTHER_PUBLIC, outside.NEIGHBOUR)
        assert (await _try(stack, "some", "tcp", outside.PUBLIC, outside.WEB)).endswith("Error")


async def test_where_the_machine_has_no_way_out_a_pod_says_so_and_gets_none(
    run_node: RunNode, world: outside.Outside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(egress, "_SEARCH", str(tmp_path))
    async with run_node(reconsider_period=0.05) as stack:
        await stack.server.create(policy("out", INTERNET, app="out"))
        await stack.create_pod("out", {"containers": [SLEEPER]}, labels={"app": "out"})
        pod = await stack.until_ready("out")
        before = await _try(stack, "out", "tcp", outside.PUBLIC, outside.WEB)

        (tmp_path / "slirp4netns").symlink_to(str(shutil.which("slirp4netns")))
        with anyio.fail_after(60):
            while await _try(stack, "out", "tcp", outside.PUBLIC, outside.WEB) != "ping":  # noqa: ASYNC110
                await anyio.sleep(0.01)

    condition = find_condition(pod.status.conditions, "EgressUnavailable")
    assert condition is not None
    assert "apt-get install slirp4netns" in condition.message
    assert before.endswith("Error")


def _ways_out(helper: int) -> list[int]:
    """Process ids of programs that serve one pod network."""
    place = f"/proc/{helper}/ns/net".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if place in path.read_bytes():
                found.append(int(path.parent.name))
    return found


async def test_the_way_out_comes_back_when_it_dies_and_goes_with_the_node(
    run_node: RunNode, world: outside.Outside
) -> None:
    async with run_node(reconsider_period=0.05) as stack:
        helper = stack.node.network.pid
        before = await anyio.to_thread.run_sync(_ways_out, helper)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        with anyio.fail_after(60):
            while not set(await anyio.to_thread.run_sync(_ways_out, helper)) - set(before):  # noqa: ASYNC110
                await anyio.sleep(0.01)
    with anyio.fail_after(60):  # it ends by itself, once it hears that the node has
        while await anyio.to_thread.run_sync(_ways_out, helper):  # noqa: ASYNC110 - nobody tells us
            await anyio.sleep(0.01)

    assert before
