"""Every attempt of ``attempts.py`` to leave a sandbox fails; and each is seen to succeed with its wall taken away.

The second half is what makes the first worth something: an attempt that fails for a reason of its own proves nothing.
"""

import ctypes
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from agent_sandbox.local.node import bubblewrap, bubblewrap_runtime, gvisor_trial, seccomp
from agent_sandbox.local.node.network import PodNetwork, Started
from agent_sandbox.testing import outside_world as outside

RunNode = Callable[..., Any]

HAS_WORLD = os.geteuid() == 0 and shutil.which("slirp4netns") is not None
"""Whether there is an internet that a prisoner could reach if no policy stood before it."""

ATTEMPTS = Path(__file__).with_name("attempts.py")
MACHINE = platform.machine()
MORE_CALLS = {
    "clone": {"x86_64": 56, "aarch64": 220},
    "process_vm_readv": {"x86_64": 310, "aarch64": 270},
    "shmget": {"x86_64": 29, "aarch64": 194},
}
SHARED_MEMORY_KEY = 0x5A9D
CAP_SYS_RESOURCE = 24
CGROUPS = Path("/sys/fs/cgroup")

NEIGHBOUR = """
import socket, threading
page, ear = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
page.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
page.bind(("", 8888)); page.listen(); ear.bind(("", 9999))
heard = ["nothing"]
def listen():
    while True:
        data, sender = ear.recvfrom(100)
        heard.append(data.decode(errors="replace"))
        ear.sendto(b"answer", sender)
threading.Thread(target=listen, daemon=True).start()
print("listening", flush=True)
while True:
    connection, _ = page.accept()
    connection.sendall(" ".join(heard).encode())
    connection.close()
"""

# Which walls to take away for which attempts. An attempt may stand before several.
WITHOUT_FILTER = [
    "clone_into_a_new_user_namespace", "call_unshare", "call_setns", "call_keyctl", "call_add_key", "call_userfaultfd",
    "call_io_uring_setup",
    "push_input_into_a_terminal", "open_a_kernel_crypto_socket",
    "reach_the_hypervisor_by_vsock",
]  # fmt: skip
WITHOUT_FILTER_AND_WITH_CAPABILITIES = [
    "have_capabilities", "call_mount", "call_umount2", "call_pivot_root", "call_fsopen", "call_open_tree",
    "call_sethostname",
]  # fmt: skip
WITHOUT_USER_NAMESPACE_TOO = [
    "call_bpf", "call_perf_event_open", "call_open_by_handle_at", "call_init_module", "call_kexec_load", "call_reboot",
    "call_syslog", "call_settimeofday", "call_swapon", "call_quotactl", "call_fanotify_init", "call_acct",
    "make_a_device", "become_root", "open_a_raw_socket", "open_a_packet_socket", "change_the_firewall_by_netlink",
    "add_an_address_by_netlink",
]  # fmt: skip
WITHOUT_PROCESS_NAMESPACE = ["see_a_host_process", "signal_everything"]
WITHOUT_RULES = [
    "connect_to_the_other_pod", "send_udp_to_the_other_pod", "connect_to_the_host_by_the_gateway",
    "connect_to_the_cloud_metadata", "connect_to_the_internet",
]  # fmt: skip
WITHOUT_REVERSE_PATH_FILTER = ["send_under_the_other_pods_address"]
OPTIONS_WITH_VALUES = {
    "--bind": 2, "--ro-bind": 2, "--ro-bind-try": 2, "--dev-bind": 2, "--symlink": 2, "--setenv": 2, "--dir": 1,
    "--tmpfs": 1, "--proc": 1, "--dev": 1, "--perms": 1, "--size": 1, "--remount-ro": 1, "--chdir": 1, "--uid": 1,
    "--gid": 1, "--hostname": 1, "--cap-drop": 1, "--seccomp": 1, "--info-fd": 1,
}  # fmt: skip


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, ...]]:
    words = list(arguments)
    while words:
        count = OPTIONS_WITH_VALUES.get(words[0], 0) + 1
        yield tuple(words[:count])
        words = words[count:]


def _without(arguments: Sequence[str], *names: str) -> list[str]:
    return [word for option in _options(arguments) if option[0] not in names for word in option]


def _no_filter(arguments: Sequence[str]) -> list[str]:
    return _without(arguments, "--seccomp", "--disable-userns")


def _capabilities(arguments: Sequence[str]) -> list[str]:
    kept = _without(_no_filter(arguments), "--cap-drop", "--uid", "--gid")
    return [*kept, "--cap-add", "ALL", "--uid", "0", "--gid", "0"]


def _real_root(arguments: Sequence[str]) -> list[str]:
    return _without(_capabilities(arguments), "--unshare-user", "--uid", "--gid")


def _no_process_namespace(arguments: Sequence[str]) -> list[str]:
    return _without(arguments, "--unshare-pid", "--as-pid-1")


VARIANTS: dict[str, tuple[Callable[[Sequence[str]], list[str]], list[str]]] = {
    "no-filter": (_no_filter, WITHOUT_FILTER),
    "capabilities": (_capabilities, WITHOUT_FILTER_AND_WITH_CAPABILITIES),
    "real-root": (_real_root, WITHOUT_USER_NAMESPACE_TOO),
    "host-processes": (_no_process_namespace, WITHOUT_PROCESS_NAMESPACE),
}


@pytest.fixture
def taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods named after a variant stand without its walls."""
    box_arguments, spawn = bubblewrap.box_arguments, PodNetwork.spawn
    as_root: list[bool] = []

    def arguments_without(walls: Any, box: Any, *rest: Any) -> list[str]:
        arguments = box_arguments(walls, box, *rest)
        variant = next((name for name in VARIANTS if box.hostname.startswith(name)), None)
        as_root.append(variant == "real-root")
        return VARIANTS[variant][0](arguments) if variant is not None else arguments

    async def spawn_as(network: PodNetwork, *values: Any, **named: Any) -> Started:
        if as_root and as_root.pop():
            named["uid"] = None
        return await spawn(network, *values, **named)

    monkeypatch.setattr(bubblewrap_runtime, "box_arguments", arguments_without)
    monkeypatch.setattr(PodNetwork, "spawn", spawn_as)


@contextmanager
def _shared_memory() -> Iterator[None]:
    """A segment of the host that everybody may read."""
    libc = ctypes.CDLL(None)
    segment = libc.shmget(SHARED_MEMORY_KEY, 4096, 0o1666)
    try:
        yield
    finally:
        libc.shmctl(segment, 0, None)


@contextmanager
def _things_of_the_host(state: Path) -> Iterator[dict[str, Any]]:
    """What a prisoner may look for on the host."""
    with ExitStack() as exits:
        listener = exits.enter_context(socket.socket())
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        six = exits.enter_context(socket.socket(socket.AF_INET6))
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::1", 0))
        six.listen()
        abstract = exits.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0agent-sandbox-test-{os.getpid()}")
        abstract.listen()
        exits.enter_context(_shared_memory())
        (state / "key").write_text("the API server's")
        calls = seccomp.denied_calls(MACHINE) | {name: numbers[MACHINE] for name, numbers in MORE_CALLS.items()}
        groups = next(path for path in (CGROUPS / "memory", CGROUPS) if (path / "cgroup.procs").exists())
        agent = next(path for path in (groups / "release_agent", groups / "cgroup.subtree_control") if path.exists())
        yield {
            "patience": 0.5,
            "home": str(Path.home()),
            "state": str(state),
            "key": str(state / "key"),
            "control_group": str(groups / "cgroup.procs"),
            "release_agent": str(agent),
            "node": os.getpid(),
            "host_port": listener.getsockname()[1],
            "host_port6": six.getsockname()[1],
            "host_address": outside.HOST if HAS_WORLD else _an_address_of_this_machine(),
            "metadata": outside.METADATA,
            "internet": outside.PUBLIC,
            "abstract": abstract.getsockname()[1:].decode(),
            "hostname": os.uname().nodename,
            "shared_memory": SHARED_MEMORY_KEY,
            "interface": "eth0",
            "marker_variable": "PYTEST_CURRENT_TEST",
            "syscalls": calls,
        }


def _an_address_of_this_machine() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))
        except OSError:
            return "127.0.0.2"
        return str(probe.getsockname()[0])


def _allow(name: str, target: str, source: Mapping[str, Any], port: int, protocol: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"app": target}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": source}], "ports": [{"port": port, "protocol": protocol}]}],
        },
    }


SILENT = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "silent", "namespace": "default"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "prisoner"}},
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "third"}}}], "ports": [{"port": 8888}]}],
    },
}


@asynccontextmanager
async def _prison(run_node: RunNode, state: Path) -> AsyncIterator[tuple[Any, dict[str, Any]]]:
    """A node with two neighbours of the prisoner, and what the prisoner knows."""
    with outside.outside_world() if HAS_WORLD else nullcontext(), _things_of_the_host(state) as facts:
        async with run_node(max_processes=64) as stack:
            await stack.server.create(SILENT)
            await stack.server.create(_allow("udp", "third", {"matchLabels": {"app": "other"}}, 9999, "UDP"))
            await stack.server.create(_allow("page", "third", {}, 8888, "TCP"))
            for name in ("other", "third"):
                container = {"name": "main", "image": "localhost/host", "command": ["python", "-c", NEIGHBOUR]}
                await stack.create_pod(name, {"containers": [container]}, labels={"app": name})
                await stack.until_printed(name, "main", "listening")
            await stack.execute("other", "main", ["sh", "-c", "echo secret > /workspace/other-secret"])
            other, third = await stack.until_ready("other"), await stack.until_ready("third")
            facts |= {
                "other_file": f"{state}/pods/{other.metadata.uid}/files/containers/main/workspace/other-secret",
                "other_name": "other-secret",
                "other_address": other.ips[0],
                "third_address": third.ips[0],
                "helper": stack.node.network.pid,
                "helper_address": _an_address_in(stack.node.network.pid),
                "marker": "attempts",
            }
            yield stack, facts


def _an_address_in(pid: int) -> int:
    return int(Path(f"/proc/{pid}/maps").read_text().partition("-")[0], 16)


async def _imprison(
    stack: Any, name: str, facts: Mapping[str, Any], only: Sequence[str] = (), **spec: Any
) -> dict[str, str]:
    """Run attempts in a Pod; how each ended."""
    source = await anyio.Path(ATTEMPTS).read_text()
    command = ["python", "-c", source, json.dumps({**facts, "only": list(only)}), "attempts"]
    container = {"name": "main", "image": "localhost/host", "command": command}
    labels = {"app": "prisoner"}
    await stack.create_pod(name, {"containers": [container], "restartPolicy": "Never", **spec}, labels=labels)
    await stack.until(name, lambda pod: pod.status.phase in {"Succeeded", "Failed"})
    return _results(await stack.log(name, "main"))


def _results(output: str) -> dict[str, str]:
    lines = [line for line in output.splitlines() if line.startswith("{")]
    assert lines, output
    results: dict[str, str] = json.loads(lines[0])
    return results


def _not_refused(results: Mapping[str, str]) -> dict[str, str]:
    return {name: how for name, how in results.items() if not how.startswith("refused")}


def _not_escaped(results: Mapping[str, str]) -> dict[str, str]:
    return {name: how for name, how in results.items() if not how.startswith("ESCAPED")}


async def _in_the_router(helper: int, script: str) -> None:
    await anyio.run_process(["nsenter", "--target", str(helper), "--net", "sh", "-c", script])


def _without_any_wall(facts: Mapping[str, Any], only: Sequence[str]) -> dict[str, str]:
    """Run attempts as an ordinary program of this machine, with a descriptor of ours."""
    mine = os.open("/etc/hostname", os.O_RDONLY)
    try:
        command = [sys.executable, str(ATTEMPTS), json.dumps({**facts, "only": list(only), "interface": "up0"})]
        done = subprocess.run(command, pass_fds=[mine], capture_output=True, text=True, check=True, timeout=180)
    finally:
        os.close(mine)
    return _results(done.stdout)


async def test_every_attempt_to_leave_a_sandbox_fails(run_node: RunNode, state_dir: Path) -> None:
    async with _prison(run_node, state_dir) as (stack, facts):
        results = await _imprison(stack, "prisoner", facts)

    assert len(results) >= 80
    assert _not_refused(results) == {}
    assert {how for name, how in results.items() if name.startswith("call_")} == {
        "refused: [Errno 1] Operation not permitted"
    }


@pytest.mark.slow
@pytest.mark.skipif(not HAS_WORLD, reason="taking walls away, and a world beyond them, need root and slirp4netns")
async def test_every_attempt_succeeds_with_its_wall_taken_away(
    run_node: RunNode, state_dir: Path, taken_away: None
) -> None:
    async with _prison(run_node, state_dir) as (stack, facts):
        behind_walls = await _imprison(stack, "prisoner", facts)
        facts["patience"] = 60  # what comes through is waited for; what is refused was waited for long enough before
        variants = {name: await _imprison(stack, name, facts, only) for name, (_, only) in VARIANTS.items()}
        impatient = {**facts, "patience": 0.5}
        spoofing_root = await _imprison(stack, "real-root-spoofing", impatient, WITHOUT_REVERSE_PATH_FILTER)
        helper, nft = stack.node.network.pid, stack.node.machine.nft
        await _in_the_router(helper, "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done")
        unfiltered = await _imprison(stack, "real-root-unfiltered", facts, WITHOUT_REVERSE_PATH_FILTER)
        await _in_the_router(helper, f"for c in forward input; do {nft} insert rule inet pods $c accept; done")
        unruled = await _imprison(stack, "unruled", facts, WITHOUT_RULES)
        of_their_own = {name for names in (*variants.values(), unfiltered, unruled) for name in names}
        rest = [name for name in behind_walls if name not in of_their_own]
        bare = await anyio.to_thread.run_sync(_without_any_wall, facts, rest)

    escaped = {**bare, **unfiltered, **unruled}
    for results in variants.values():
        escaped |= results
    assert _not_refused(behind_walls) == {}
    assert _not_refused(spoofing_root) == {}  # the filter of the router holds alone, whatever a Pod may send
    assert escaped.keys() == behind_walls.keys()
    assert set(_not_escaped(escaped)) <= _not_here()


async def _names(facts: Mapping[str, Any]) -> list[str]:
    """All attempts, in their order."""
    command = [sys.executable, str(ATTEMPTS), json.dumps({**facts, "list": True})]
    done = await anyio.run_process(command)
    names: list[str] = json.loads(done.stdout)
    return names


@pytest.mark.slow
@pytest.mark.skipif(not HAS_WORLD, reason="gVisor needs root")
@pytest.mark.skipif(gvisor_trial.find_program() is None, reason=f"runsc is not installed: {gvisor_trial.INSTALL}")
async def test_every_attempt_to_leave_gvisor_fails_or_reaches_only_its_own_kernel(
    run_node: RunNode, state_dir: Path
) -> None:
    async with _prison(run_node, state_dir) as (stack, facts):
        names = await _names(facts)
        calls = [name for name in names if name.startswith(("call_", "clone_"))]  # last, since some change the root
        others = [name for name in names if name not in calls]
        reached = await _imprison(stack, "caller", facts, calls, runtimeClassName="gvisor")
        results = await _imprison(stack, "prisoner", facts, others, runtimeClassName="gvisor")

    assert len(results) + len(reached) >= 80
    # What these reach is gVisor's own: its file system of the kernel, a node for a device that it does not have.
    assert _not_refused(results).keys() <= {"see_sysfs", "make_a_device"}, _not_refused(results)


def _not_here() -> set[str]:
    """Attempts whose aim this machine does not have, so that there is nothing to succeed at."""
    absent = set()
    if not any(Path("/home").iterdir()):
        absent.add("find_any_home")
    for path, name in (("/proc/kcore", "read_kernel_memory"), ("/proc/sysrq-trigger", "pull_sysrq")):
        if not Path(path).exists():
            absent.add(name)
    for family, name in ((38, "open_a_kernel_crypto_socket"), (40, "reach_the_hypervisor_by_vsock")):
        try:
            socket.socket(family, socket.SOCK_SEQPACKET if family == 38 else socket.SOCK_STREAM).close()
        except OSError:
            absent.add(name)
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    if not int(status["CapEff"], 16) & (1 << CAP_SYS_RESOURCE):
        absent.add("raise_a_hard_limit")
    return absent
