"""The examples for agents: what their READMEs tell people to type works as written, on one stack that they share."""

import importlib.util
import os
import re
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from agent_sandbox import AsyncSandboxes, ConnectionOptions, SandboxClient
from agent_sandbox.local.node import gvisor_trial
from agent_sandbox.testing.commands import run_command
from agent_sandbox.testing.pages import applied_on_a_cluster, lines_of_example

pytestmark = [
    pytest.mark.slow,
    pytest.mark.node,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on PATH"),
]

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
SERVER = str(EXAMPLES / "mcp-server" / "server.py")
NEEDS_A_REAL_SERVER = {"hpa"}
"""The local stack has no HorizontalPodAutoscaler; test/envtest/test_examples_on_a_real_server.py applies it."""

Type = Callable[..., subprocess.CompletedProcess[str]]
needs_gvisor = pytest.mark.skipif(
    gvisor_trial.find_program() is None or os.geteuid() != 0, reason=f"needs root and runsc: {gvisor_trial.INSTALL}"
)

needs_mcp = pytest.mark.skipif(
    importlib.util.find_spec("mcp") is None, reason="the package mcp is not installed: `make tools` brings it"
)
needs_langchain = pytest.mark.skipif(
    importlib.util.find_spec("langchain_core") is None,
    reason="the package langchain-core is not installed: `make tools` brings it",
)


def commands(example: str, heading: str) -> list[str]:
    """The lines of the shell blocks below a heading of an example's README."""
    return lines_of_example(EXAMPLES / example, heading)


@pytest.fixture(scope="module")
def metrics_port() -> str:
    """Where the stack shows its metrics."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, metrics_port: str) -> Iterator[Path]:
    """The running stack; gives its state directory."""
    state = tmp_path_factory.mktemp("stack") / "state"
    program = str(Path(sys.executable).with_name("agent-sandbox"))
    ports = ["--api-port", "0", "--router-port", "0", "--metrics-port", metrics_port]
    where = ["--state-dir", str(state), "--quiet"]
    up = run_command(program, "local", "up", "--background", *ports, *where, timeout=180)
    assert up.returncode == 0, up.stderr
    yield state
    down = run_command(program, "local", "down", "--purge", *where, timeout=180)
    assert down.returncode == 0, down.stderr


@pytest.fixture
def type_(stack: Path, environment: dict[str, str]) -> Type:
    """Type lines into one shell, beside the stack that runs already."""
    environment["AGENT_SANDBOX_STATE_DIR"] = str(stack)

    def type_lines(lines: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        script = "\n".join(line for line in lines if not line.startswith("agent-sandbox local up"))
        done = run_command("bash", "-euo", "pipefail", "-c", script, timeout=400, cwd=REPOSITORY, env=environment)
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done

    return type_lines


@pytest.fixture
def check_cluster(type_: Type) -> Callable[[str], None]:
    """What a README says of a cluster is at least valid: files exist, and an API server accepts each manifest."""

    def check(example: str) -> None:
        for words in applied_on_a_cluster(EXAMPLES / example):
            if example not in NEEDS_A_REAL_SERVER:
                kubeconfig = "export KUBECONFIG=$(agent-sandbox local kubeconfig)"
                type_([kubeconfig, shlex.join([*words, "--dry-run=server", "--validate=strict"])])

    return check


@needs_gvisor
def test_secure_template(type_: Type, check_cluster: Callable[[str], None]) -> None:
    said = type_(commands("secure-template", "On this machine")).stdout

    assert said.endswith(
        "kernel:           Linux version 4.4.0\n"
        "user:             1000\n"
        "writes to:        /workspace /tmp\n"
        "asks for names:   yes\n"
        "the internet:     no (ConnectionRefusedError)\n"
        "the metadata API: no (ConnectionRefusedError)\n"
    )
    check_cluster("secure-template")
    sample = REPOSITORY / "config/samples/needs-a-cluster/secure-sandboxtemplate.yaml"
    assert (EXAMPLES / "secure-template/sandboxtemplate.yaml").read_text() == sample.read_text()


@needs_gvisor
def test_secure_template_on_a_machine_without_gvisor(tmp_path: Path, environment: dict[str, str]) -> None:
    """In a mount namespace where runsc cannot be executed: the sandbox waits, and says what to install."""
    environment |= {"AGENT_SANDBOX_API_PORT": "0", "AGENT_SANDBOX_ROUTER_PORT": "0"}
    setup = commands("secure-template", "On this machine")[:-1]
    script = "\n".join(
        [
            f"mount --bind /dev/null {gvisor_trial.find_program()}",
            "trap 'agent-sandbox local down --purge --quiet' EXIT",
            *setup,
            *commands("secure-template", "Without gVisor"),
        ]
    )

    in_bash = ["bash", "-euo", "pipefail", "-c", script]
    done = run_command("unshare", "--mount", *in_bash, timeout=400, cwd=REPOSITORY, env=environment)

    assert done.returncode == 1, done.stderr
    assert "runtimeClassName 'gvisor': runsc is not installed" in done.stderr
    assert "It is not replaced by a weaker runtime; the Pod starts by itself once runsc is there." in done.stderr


@needs_mcp
def test_mcp_server(type_: Type, check_cluster: Callable[[str], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    over_http = [line.replace("8900", str(port)) for line in commands("mcp-server", "Over HTTP")]
    said = type_(commands("mcp-server", "On this machine") + over_http).stdout

    shown = re.search(
        r"^```\n(tools: .*?)^```", (EXAMPLES / "mcp-server/README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert shown is not None
    assert said.count(shown.group(1)) == 2
    check_cluster("mcp-server")


@pytest.fixture
async def claims(stack: Path, type_: Type) -> AsyncIterator[Callable[[], Any]]:
    """Ask for the claims that the MCP server holds."""
    type_(["export KUBECONFIG=$(agent-sandbox local kubeconfig)", "kubectl apply -k examples/mcp-server/base"])
    async with AsyncSandboxes(options=ConnectionOptions(local=True, state_dir=stack)) as sandboxes:

        async def ask() -> list[Any]:
            return [info async for info in sandboxes.list(labels={"app.kubernetes.io/managed-by": "mcp-server"})]

        yield ask


async def until(claims: Callable[[], Any], count: int) -> None:
    """Wait until the server, another process, holds so many claims."""
    with anyio.fail_after(120):
        while len(await claims()) != count:  # noqa: ASYNC110
            await anyio.sleep(0.05)


@asynccontextmanager
async def serving(environment: dict[str, str], tmp_path: Path, *options: str) -> AsyncIterator[tuple[Any, str]]:
    """The server over HTTP, as a process, and its URL."""
    tokens = tmp_path / "tokens"
    tokens.write_text("# who may come in\nme aaaaaaaaaaaaaaaaaaaaaaaa\nother bbbbbbbbbbbbbbbbbbbbbbbb\n")
    command = [sys.executable, SERVER, "--http", "0", "--tokens", str(tokens), *options]
    async with await anyio.open_process(command, env=environment, stdin=None, stdout=None) as process:
        try:
            assert process.stderr is not None
            yield process, (await process.stderr.receive()).decode().strip()
        finally:
            if process.returncode is None:
                process.kill()


@asynccontextmanager
async def session(url: str, token: str = "a" * 24) -> AsyncIterator[Any]:
    """A client's session over HTTP."""
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        yield client


@needs_mcp
async def test_mcp_sessions_over_http_have_sandboxes_of_their_own_until_they_end(
    claims: Callable[[], Any], environment: dict[str, str], tmp_path: Path
) -> None:
    import httpx2

    async with serving(environment, tmp_path) as (process, url):
        async with session(url) as one, session(url, "b" * 24) as two:
            assert await claims() == []  # nothing is made before a tool needs it
            async with anyio.create_task_group() as tasks:  # calls at the same time share one
                for _ in range(3):
                    tasks.start_soon(one.call_tool, "run", {"command": "echo mine >> file"})
            assert (await two.call_tool("list_files", {})).structured_content == {"result": []}
            read = await one.call_tool("read_file", {"path": "file"})
            held = await claims()
            data = {"path": "x", "content": "/w==", "encoding": "base64"}
            await two.call_tool("write_file", data)
            binary = await two.call_tool("read_file", {"path": "x"})
            slow = await two.call_tool("run", {"command": "echo before; sleep 60", "timeout": 3})
        await until(claims, 0)  # both clients said goodbye

        async with httpx2.AsyncClient() as http:
            unknown = await http.post(url, json={}, headers={"Authorization": "Bearer " + "c" * 24})
        async with session(url) as three:
            await three.call_tool("run", {"command": "true"})
            assert len(await claims()) == 1
            process.send_signal(signal.SIGTERM)
            await until(claims, 0)
            await process.wait()

    assert read.structured_content == {"content": "mine\n" * 3, "encoding": "utf-8"}
    assert len(held) == 2
    assert all(info.status.expires is not None for info in held)  # whatever becomes of the server
    assert binary.structured_content == {"content": "/w==", "encoding": "base64"}
    assert slow.is_error
    assert "before" in slow.content[0].text
    assert unknown.status_code == 401


@needs_mcp
async def test_an_mcp_session_ends_by_silence_and_belongs_to_who_opened_it(
    claims: Callable[[], Any], environment: dict[str, str], tmp_path: Path
) -> None:
    import httpx2

    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    call = {"name": "run", "arguments": {"command": "true"}}
    accept = {"Accept": "application/json, text/event-stream"}
    async with serving(environment, tmp_path, "--idle", "5") as (_, url), httpx2.AsyncClient(timeout=60) as http:
        mine = accept | {"Authorization": "Bearer " + "a" * 24}
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        mine["Mcp-Session-Id"] = (await http.post(url, json=body, headers=mine)).headers["Mcp-Session-Id"]
        await http.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=mine)
        body = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
        allowed = await http.post(url, json=body, headers=mine)
        held = await claims()
        stolen = await http.post(url, json=body, headers=mine | {"Authorization": "Bearer " + "b" * 24})
        await until(claims, 0)

    assert '"exit_code":0' in allowed.text.replace(" ", "").replace("\\", "")
    assert len(held) == 1
    assert stolen.status_code == 404


@needs_mcp
async def test_over_stdio_the_mcp_sandbox_goes_before_the_signal_ends_the_server(
    claims: Callable[[], Any], environment: dict[str, str]
) -> None:
    """SIGTERM while the client still holds the pipe, and a command runs."""
    hello = (
        '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18",'
        ' "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}\n'
        '{"jsonrpc": "2.0", "method": "notifications/initialized"}\n'
        '{"jsonrpc": "2.0", "id": 2, "method": "tools/call",'
        ' "params": {"name": "run", "arguments": {"command": "sleep 60"}}}\n'
    )
    async with await anyio.open_process([sys.executable, SERVER], env=environment, stderr=None) as process:
        assert process.stdin is not None
        await process.stdin.send(hello.encode())
        await until(claims, 1)
        process.send_signal(signal.SIGTERM)
        with anyio.fail_after(120):
            status = await process.wait()
        left = await claims()

    assert status == -signal.SIGTERM
    assert left == []


@needs_mcp
@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (None, "--http needs --tokens"),
        ("me secret\n", "tokens:1: expected a name and a token of at least 20 characters"),
        ("\n# nobody\n", "holds no token"),
    ],
)
def test_over_http_the_mcp_server_does_not_start_without_tokens(
    tokens: str | None,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "tokens"
    file.write_text(tokens or "")
    monkeypatch.setattr(sys, "argv", [SERVER, "--http", "0", *(["--tokens", str(file)] if tokens else [])])

    with pytest.raises(SystemExit) as ended:
        runpy.run_path(SERVER, run_name="__main__")

    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert words in said
    assert "secret" not in said


@needs_langchain
def test_langchain_tool(type_: Type, check_cluster: Callable[[str], None]) -> None:
    said = type_(commands("langchain-tool", "On this machine")).stdout

    shown = re.search(
        r"^The last lines:\n\n```\n(.*?)^```",
        (EXAMPLES / "langchain-tool/README.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert shown is not None
    assert said.endswith(shown.group(1))
    assert "SyntaxError: '(' was never closed\n\nexit code: 1\n" in said
    check_cluster("langchain-tool")


@needs_langchain
def test_langchain_gets_failures_as_messages_and_everything_as_artifact(
    stack: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    type_(["export KUBECONFIG=$(agent-sandbox local kubeconfig)", "kubectl apply -k examples/langchain-tool/base"])
    monkeypatch.syspath_prepend(str(EXAMPLES / "langchain-tool"))
    sandbox_tools: Any = importlib.import_module("sandbox_tools").sandbox_tools

    def call(name: str, **arguments: Any) -> dict[str, Any]:
        return {"type": "tool_call", "id": "1", "name": name, "args": arguments}

    with SandboxClient(template_name="langchain-template", local=True, state_dir=stack) as sandbox:
        tools = {tool.name: tool for tool in sandbox_tools(sandbox)}
        calls = [
            call("run_command", command="seq 10000; echo oops >&2; exit 7"),
            call("run_command", command="echo before; sleep 60", timeout=3),
            call("read_file", path="nothing"),
            call("list_files"),
        ]
        failed, slow, missing, empty = [tools[each["name"]].invoke(each) for each in calls]
        asynchronous = anyio.run(tools["run_command"].ainvoke, call("run_command", command="echo async"))

    assert failed.status == "success"
    assert failed.content.startswith("1\n2\n3\n")
    assert failed.content.endswith(" characters more]\nstderr:\noops\n\nexit code: 7")
    assert failed.artifact.stdout.endswith("\n10000\n")
    assert slow.status == "error"
    assert "before" in slow.content
    assert (missing.status, "nothing" in missing.content) == ("error", True)
    assert (empty.status, empty.content) == ("success", "")
    assert asynchronous.content == "async\n"


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed: `make tools` brings it")
def test_hpa(type_: Type, metrics_port: str, check_cluster: Callable[[str], None]) -> None:
    said = type_([line.replace("9101", metrics_port) for line in commands("hpa", "On this machine")]).stdout

    shown = (EXAMPLES / "hpa" / "README.md").read_text()
    query = next(line for line in said.splitlines() if line.startswith("query: "))
    assert query in shown.splitlines()
    step = re.search(r"(\d+) claims; the metric says ([\d.]+) per second; the pool gets (\d+) replicas", said)
    assert step is not None
    assert float(step[2]) > 0
    assert re.search(rf"^hpa-pool +{step[3]} +{step[3]} ", said, re.MULTILINE)
    check_cluster("hpa")
