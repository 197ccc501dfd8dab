"""What an agent inside a sandbox of the local stack can see and reach: each wall is tried from inside."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_sandbox import SandboxClient

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def sandbox(stack: Path) -> Iterator[SandboxClient]:
    """A claimed sandbox of the sample template."""
    with SandboxClient(template_name="python-sandbox-template", state_dir=stack) as claimed:
        yield claimed


def test_no_process_of_the_host_is_seen(sandbox: SandboxClient) -> None:
    """`ps` lists the daemon, the command, and nothing that runs outside."""
    seen = sandbox.run("ps -A -o pid=,args=").stdout.splitlines()

    assert seen[0].split()[0] == "1"
    assert len(seen) <= 4
    assert not any("pytest" in line for line in seen)


def test_no_home_directory_of_the_host_is_there(sandbox: SandboxClient) -> None:
    """Neither root's nor the caller's home exists inside, nor the state directory."""
    inside = sandbox.run(f"sh -c 'ls -A /home; ls -A {Path.home()} 2>&1; ls /root 2>&1'").stdout

    assert "No such file or directory" in inside
    assert str(Path.home() / ".bashrc") not in inside


def test_the_files_of_another_sandbox_are_not_there(sandbox: SandboxClient, stack: Path) -> None:
    """What one sandbox writes, the other does not see, under the same path."""
    sandbox.write("/tmp/secret.txt", "mine")
    sandbox.write("notes.txt", "mine")
    with SandboxClient(template_name="python-sandbox-template", state_dir=stack) as other:
        seen = other.run("sh -c 'cat /tmp/secret.txt /workspace/notes.txt; ls -A /tmp /workspace'")

    assert "mine" not in seen.stdout
    assert "secret" not in seen.stdout
    assert "notes" not in seen.stdout


@pytest.mark.parametrize(
    "path", ["/usr/bin/x", "/etc/x", "/x", "/opt/agent-sandbox/lib/x", "/proc/sys/kernel/hostname"]
)
def test_writing_outside_the_workspace_fails(sandbox: SandboxClient, path: str) -> None:
    """The system, the daemon's own files and kernel settings are read-only."""
    written = sandbox.run(f"sh -c 'echo x > {path}'")

    assert written.exit_code != 0
    assert "ead-only file system" in written.stderr or "ermission denied" in written.stderr


def test_a_port_of_the_hosts_loopback_cannot_be_reached(sandbox: SandboxClient) -> None:
    """A server of the host on 127.0.0.1 answers the host and nobody inside."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        threading.Thread(target=_accept_once, args=(server,), daemon=True).start()
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            pass  # the wall is tried against a door that is really open
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)"
        tried = sandbox.run(f'python -c "{code}"')

    assert tried.exit_code != 0
    assert "Error" in tried.stderr


def _accept_once(server: socket.socket) -> None:
    connection, _ = server.accept()
    connection.close()


def test_no_private_address_beyond_the_sandbox_can_be_reached(sandbox: SandboxClient) -> None:
    """The secure default opens the public internet, and neither the host, nor a cloud's metadata, nor private nets."""
    with socket.create_server((_address_of_this_host(), 0)) as server:
        address, port = server.getsockname()
        threading.Thread(target=_accept_once, args=(server,), daemon=True).start()
        with socket.create_connection((address, port), timeout=60):
            pass  # the wall is tried against a door that is really open
        code = (
            "import socket\n"
            f"for address in ({(address, port)}, ('169.254.169.254', 80), ('10.88.0.1', 53)):\n"
            "    try:\n"
            "        socket.create_connection(address, timeout=0.5)\n"
            "        print('reached', address)\n"
            "    except OSError as error:\n"
            "        print('refused', address)\n"
        )
        sandbox.write("/tmp/reach.py", code)
        told = sandbox.run("python /tmp/reach.py").stdout

    assert told.count("refused") == 3, told


def _address_of_this_host() -> str:
    """The address that others know the host by; loopback if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: connecting a datagram socket only chooses a route
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def test_the_user_inside_is_nobody_special(sandbox: SandboxClient) -> None:
    """uid 1000, no capability, no way to new privileges, a filter of system calls."""
    status = sandbox.run("cat /proc/self/status").stdout
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    assert facts["Uid"].split() == ["1000"] * 4
    assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
    assert facts["NoNewPrivs"].strip() == "1"
    assert facts["Seccomp"].strip() == "2"


def test_the_environment_of_the_stack_does_not_leak(sandbox: SandboxClient) -> None:
    """Commands see a small environment of their own, none of the stack's variables."""
    inside = {line.partition("=")[0] for line in sandbox.run("env").stdout.splitlines()}

    assert inside <= {"HOME", "HOSTNAME", "LANG", "LD_LIBRARY_PATH", "PATH", "PWD", "SHLVL", "USER", "_"}
    assert not inside & ({name for name in os.environ if name.startswith("AGENT_SANDBOX")})
