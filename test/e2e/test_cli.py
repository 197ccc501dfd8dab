"""The verbs for sandboxes, typed as a user types them, on a real stack with real sandboxes."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_sandbox.cli import main
from agent_sandbox.testing.terminal import Screen

pytestmark = [
    pytest.mark.node,
    pytest.mark.timeout(300),
    # The loop of a verb in this process ends while a TLS connection waits for the server's farewell; a process of its
    # own takes such sockets with it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PROGRAM = str(Path(sys.executable).with_name("agent-sandbox"))
TEMPLATE = ("--template", "python-sandbox-template")


@dataclass
class Said:
    """How a verb ended and what it wrote."""

    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()


Type = Callable[..., Said]


@pytest.fixture
def type_(stack: Path, monkeypatch: pytest.MonkeyPatch) -> Type:
    """Run the command in this process, with the descriptors 0 to 2 of its own: as fast as a test needs it."""
    monkeypatch.setenv("AGENT_SANDBOX_STATE_DIR", str(stack))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    def run(*arguments: str, stdin: bytes = b"") -> Said:
        with ExitStack() as cleanup:
            files = [cleanup.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            files[0].write(stdin)
            files[0].seek(0)
            for number, file in enumerate(files):
                kept = os.dup(number)
                cleanup.callback(os.close, kept)
                cleanup.callback(os.dup2, kept, number)
                os.dup2(file.fileno(), number)
            for name, number in (("stdout", 1), ("stderr", 2)):
                stream = cleanup.enter_context(os.fdopen(os.dup(number), "w"))
                cleanup.callback(setattr, sys, name, getattr(sys, name))
                setattr(sys, name, stream)
            with pytest.raises(SystemExit) as ended:
                main.main(list(arguments), prog_name="agent-sandbox")
            sys.stdout.flush()
            sys.stderr.flush()
            for file in files:
                file.seek(0)
            return Said(int(ended.value.code or 0), files[1].read(), files[2].read())

    return run


@pytest.fixture(scope="module")
def box(stack: Path) -> Iterator[str]:
    """A sandbox that the tests share; each keeps to files of its own."""
    environment = {**os.environ, "AGENT_SANDBOX_STATE_DIR": str(stack)}
    command = [PROGRAM, "create", "box", *TEMPLATE, "-l", "team=a"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "box\n"
    yield "box"
    subprocess.run([PROGRAM, "rm", "box"], env=environment, capture_output=True, check=True)


# Commands


def test_a_command_in_a_fresh_sandbox_leaves_no_sandbox(type_: Type, box: str) -> None:
    said = type_("run", *TEMPLATE, "--", "python", "-c", "print(42)")

    assert said == Said(0, b"42\n", b"")
    assert type_("ls", "-o", "name").text.split() == ["sandboxclaim.extensions.agents.x-k8s.io/box"]


def test_output_errors_and_status_are_those_of_the_command(type_: Type, box: str) -> None:
    said = type_(
        "run", "-e", "A=b c", "-w", "/tmp", box, "sh", "-c", "echo $A; pwd; printf '\\377\\000'; echo no >&2; exit 7"
    )

    assert said == Said(7, b"b c\n/tmp\n\xff\x00", b"no\n")


def test_standard_input_goes_through_byte_for_byte(type_: Type, box: str) -> None:
    data = os.urandom(1_000_000)

    assert type_("exec", box, "cat", stdin=data) == Said(0, data, b"")
    assert type_("run", "--no-stdin", box, "cat", stdin=data) == Said(0, b"", b"")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("run", "box", "no-such-program"), 127, "no-such-program cannot be started: No such file"),
        (("run", "box", "/etc/passwd"), 126, "Permission denied"),
        (("run", "-w", "nowhere", "box", "true"), 126, "nowhere"),
        (("run", "--timeout", "0.2", "box", "sleep", "9"), 124, "--timeout"),
        (("run", "box", "sh", "-c", "kill -9 $$"), 137, ""),
        (("run", "nobody", "true"), 125, "agent-sandbox ls"),
        (("run", "--template", "nothing", "true"), 125, "agent-sandbox apply"),
        (("run", "--pool", "nothing", "true"), 125, "agent-sandbox doctor"),
        (("cp", "box:nothing", "/tmp"), 1, "'nothing' does not exist"),
        (("cp", "/no/such/file", "box:"), 1, "No such file or directory: /no/such/file"),
        (("cp", "box:/etc/passwd", "/tmp/never"), 1, "/etc/passwd"),
        (("logs", "box", "--process", "nothing"), 1, "nothing"),
        (("suspend", "nobody"), 1, "agent-sandbox ls"),
        (("create", "box", "--template", "python-sandbox-template"), 1, "already exists"),
        (("ls", "--context", "nowhere", "--kubeconfig", __file__), 1, "cannot be used"),
    ],
)
def test_what_goes_wrong_is_one_line_with_a_status_of_its_own(
    type_: Type, box: str, arguments: tuple[str, ...], status: int, words: str
) -> None:
    said = type_(*arguments)

    assert said.status == status, said
    assert words in said.err.decode()
    assert said.err.count(b"\n") == (1 if words else 0)


def test_a_detached_command_is_found_again_in_the_logs(type_: Type, box: str) -> None:
    number = type_("run", "-d", box, "sh", "-c", "echo one; echo two >&2; sleep 0.3; echo three").text.strip()

    said = type_("logs", box, "--process", number, "-f")
    assert (said.out, said.err) == (b"one\nthree\n", b"two\n")
    assert type_("logs", box, "--process", number).out == b"one\nthree\n"
    assert b"sandboxd" in type_("logs", box, "--tail", "20").out


@dataclass
class Running:
    """A verb in a process of its own."""

    process: subprocess.Popen[bytes]

    def line(self) -> str:
        """The next line of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def ended_by(self, number: signal.Signals) -> int:
        """Send it a signal and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def start(stack: Path) -> Iterator[Callable[..., Running]]:
    """Start the command in a process of its own."""
    with ExitStack() as cleanup:

        def begin(*arguments: str) -> Running:
            process = cleanup.enter_context(
                subprocess.Popen(
                    [PROGRAM, *arguments],
                    env={**os.environ, "AGENT_SANDBOX_STATE_DIR": str(stack)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    # A shell that runs tests in the background makes its children deaf to Ctrl-C.
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
                )
            )
            cleanup.callback(process.kill)
            return Running(process)

        yield begin


def test_ctrl_c_reaches_the_command_and_its_answer_is_ours(start: Callable[..., Running], box: str) -> None:
    """A command that handles SIGINT ends as it likes."""
    running = start("run", box, "sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done")
    assert running.line() == "ready"

    assert running.ended_by(signal.SIGINT) == 5
    assert running.line() == "caught"


@pytest.mark.slow
def test_a_terminated_run_removes_its_fresh_sandbox(start: Callable[..., Running], type_: Type, box: str) -> None:
    running = start("run", *TEMPLATE, "sh", "-c", "echo ready; exec sleep 60")
    assert running.line() == "ready"

    assert running.ended_by(signal.SIGTERM) == 143
    assert type_("ls", "-o", "name").text.split() == ["sandboxclaim.extensions.agents.x-k8s.io/box"]


# Files


def test_files_and_directories_are_copied_both_ways(type_: Type, box: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "grüße").write_bytes(os.urandom(100_000))
    (source / "tool").write_text("#!/bin/sh\necho tool\n")
    (source / "tool").chmod(0o755)

    up = type_("cp", str(source), f"{box}:copied")
    assert up.err == b"2 files, 97.7 KiB to copied\n"
    assert type_("run", box, "copied/tool").out == b"tool\n"
    assert type_("cp", f"{box}:copied", str(tmp_path / "back")).status == 0
    assert (tmp_path / "back/deep/grüße").read_bytes() == (source / "deep/grüße").read_bytes()
    assert (tmp_path / "back/tool").stat().st_mode & 0o777 == 0o755
    assert type_("cp", "-q", "-", f"{box}:piped", stdin=b"\x00\xff") == Said(0, b"", b"")
    assert type_("cp", f"{box}:piped", "-").out == b"\x00\xff"


def test_directories_are_kept_equal_and_conflicts_are_left_alone(type_: Type, box: str, tmp_path: Path) -> None:
    (tmp_path / ".sandboxignore").write_text("*.log\n")
    (tmp_path / "a.log").touch()
    (tmp_path / "a").write_text("one")

    assert sorted(type_("sync", str(tmp_path), f"{box}:synced").text.split("\n")) == [
        "", "uploaded: .sandboxignore", "uploaded: a",
    ]  # fmt: skip
    type_("run", box, "sh", "-c", "echo two > synced/b; echo theirs > synced/a")
    (tmp_path / "a").write_text("ours, longer")
    conflict = type_("sync", str(tmp_path), f"{box}:synced")
    assert (conflict.status, conflict.out) == (1, b"downloaded: b\n")
    assert b"conflict: a" in conflict.err
    assert type_("sync", str(tmp_path), f"{box}:synced", "--prefer", "local").out == b"uploaded: a\n"
    assert type_("sync", str(tmp_path), f"{box}:synced").err == b"nothing to do: both sides are equal\n"


# Looking, and the life of sandboxes


def test_listing_speaks_to_people_and_to_programs(type_: Type, box: str) -> None:
    header, row = type_("ls", "-l", "team=a", "--show-labels").text.splitlines()
    (item,) = json.loads(type_("ls", "-o", "json").text)["items"]

    assert header.split() == ["NAME", "STATUS", "SANDBOX", "TEMPLATE", "AGE", "EXPIRES", "LABELS"]
    assert row.startswith("box    Ready")
    assert (item["name"], item["state"], item["template"]) == ("box", "Ready", "python-sandbox-template")
    assert "state: Ready" in type_("ls", "sandboxclaim/box", "-o", "yaml").text
    assert b"create --template" in type_("ls", "-n", "elsewhere").err
    assert type_("ls", "-A", "-o", "wide").text.split()[0] == "NAMESPACE"


def test_a_suspended_sandbox_says_how_to_wake_it_and_keeps_nothing_running(type_: Type, box: str) -> None:
    assert type_("suspend", box).out == b"box suspended\n"
    asleep = type_("run", box, "true")
    assert (asleep.status, b"agent-sandbox resume" in asleep.err) == (125, True)
    assert type_("resume", box).out == b"box resumed\n"
    assert type_("run", box, "true").status == 0


@pytest.mark.slow
def test_several_are_removed_and_what_is_missing_is_told(type_: Type, box: str) -> None:
    for name in ("one", "two", "three"):
        assert type_("create", name, *TEMPLATE, "-l", "short=yes", "--ttl", "1h").status == 0

    said = type_("rm", "one", "nobody")
    assert (said.status, said.out) == (1, b"one removed\n")
    assert b"nobody" in said.err
    assert type_("rm", "nobody", "--ignore-not-found") == Said(0, b"", b"")
    assert sorted(type_("rm", "-l", "short=yes").text.split("\n")) == ["", "three removed", "two removed"]
    assert type_("rm", "-l", "short=yes").err == b"nothing to remove\n"


@pytest.mark.slow
def test_changes_are_listed_until_ctrl_c(start: Callable[..., Running], type_: Type, box: str) -> None:
    watching = start("ls", "-w", "-l", "watched=yes")
    assert watching.line().split()[-1] == "CHANGE"
    type_("create", "seen", *TEMPLATE, "-l", "watched=yes")
    assert watching.line().split()[0] == "seen"
    type_("rm", "seen")
    while not watching.line().endswith("deleted"):
        pass

    assert watching.ended_by(signal.SIGINT) == 0


@pytest.mark.slow
def test_a_port_is_forwarded_until_ctrl_c(start: Callable[..., Running], type_: Type, box: str) -> None:
    type_("run", "-d", box, "python", "-m", "http.server", "8123", "--directory", "/etc")
    forward = start("port", box, ":8123")
    url = forward.line()

    deadline = time.monotonic() + 60
    answered = b""
    while not answered and time.monotonic() < deadline:  # the program in the sandbox needs a moment to listen
        with suppress(OSError), urllib.request.urlopen(f"{url}/hostname", timeout=60) as answer:
            answered = answer.read().strip()
        time.sleep(0.05)
    assert answered
    assert forward.ended_by(signal.SIGINT) == 0


def test_a_local_port_in_use_is_named_with_the_way_out(type_: Type, box: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = type_("port", box, f"{taken.getsockname()[1]}:8888")

    assert said.status == 1
    assert b"Take a free one: :8888" in said.err


def test_the_doctor_finds_a_healthy_stack_healthy(type_: Type, box: str, stack: Path) -> None:
    """By itself, and by the stack's kubeconfig as on a cluster."""
    said = type_("doctor")
    assert said.status == 0
    assert {line.split()[0] for line in said.text.splitlines()} == {"ok"}

    report = json.loads(
        type_("doctor", "--kubeconfig", str(stack / "api" / "kubeconfig"), "-n", "elsewhere", "-o", "json").text
    )
    verdicts = {check["check"]: check["verdict"] for check in report["checks"]}
    assert report["ok"]
    assert verdicts["templates"] == "warn"
    assert verdicts["definitions"] == verdicts["credential"] == verdicts["router"] == "ok"


def test_names_are_completed_from_the_cluster(type_: Type, box: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_sandbox.cli.sandboxes.values.COMPLETION_SECONDS", 60)
    monkeypatch.setenv("_AGENT_SANDBOX_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_CWORD", "2")
    for line, answers in {
        "agent-sandbox exec b": ["plain,box"],
        "agent-sandbox rm": ["plain,box"],
        "agent-sandbox cp bo": ["file,bo", "plain,box:"],
    }.items():
        monkeypatch.setenv("COMP_WORDS", line)
        assert type_().text.split() == answers
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("COMP_WORDS", "agent-sandbox do")
    assert type_().text.split() == ["plain,doctor"]


# On a terminal


@pytest.fixture
def open_screen(stack: Path) -> Iterator[Callable[..., Screen]]:
    """Start the command on a terminal of its own."""
    with ExitStack() as cleanup:

        def begin(*arguments: str) -> Screen:
            # The shell around it tells what the terminal is like before and afterwards.
            around = ["sh", "-c", 'stty -g; "$@"; echo "status=$?"; stty -g', "sh", PROGRAM]
            screen = Screen(*around, *arguments, env={**os.environ, "AGENT_SANDBOX_STATE_DIR": str(stack)})
            cleanup.callback(screen.close)
            return screen

        yield begin


def test_a_shell_on_the_terminal_has_its_size_takes_ctrl_c_and_leaves_the_terminal_as_it_was(
    open_screen: Callable[..., Screen], box: str
) -> None:
    screen = open_screen("exec", "-it", box, "--", "sh")
    before = screen.wait_for(r"[0-9a-f]+(:[0-9a-f]+){10,}")
    screen.wait_for(r"[$#] ")
    screen.type("stty size; tty\r")
    screen.wait_for("30 100\r\n/dev/pts/")
    screen.resize(120, 40)
    screen.type("until stty size | grep -q 4''0; do sleep 0.05; done; stty size\r")
    screen.wait_for("40 120")
    screen.type("echo sl''eeping; sleep 60\r")
    screen.wait_for("sleeping")
    screen.type("\x03")
    screen.wait_for(r"(?s)\^C.*[$#] ")
    screen.type("exit 3\r")
    screen.wait_for("status=3")

    assert screen.wait_for(r"[0-9a-f]+(:[0-9a-f]+){10,}") == before
    assert screen.status() == 0


def until_not_listed(type_: Type, box: str, word: bytes) -> bool:
    """Wait until no process of the sandbox has this word in its command line; False if one goes on and on."""
    deadline = time.monotonic() + 60
    while word in type_("run", box, "ps", "ax").out:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.slow
def test_enter_tilde_dot_leaves_and_ends_the_command(open_screen: Callable[..., Screen], type_: Type, box: str) -> None:
    screen = open_screen("exec", "-it", box, "--", "sh", "-c", "printf '\\033[?1049h'; echo in''side; sleep 4321")
    before = screen.wait_for(r"[0-9a-f]+(:[0-9a-f]+){10,}")
    screen.wait_for("inside")
    screen.type("\r~.")
    screen.wait_for(r"\x1b\[\?1049l")
    screen.wait_for("status=129")

    assert screen.wait_for(r"[0-9a-f]+(:[0-9a-f]+){10,}") == before
    assert until_not_listed(type_, box, b"4321")


@pytest.mark.slow
def test_a_closed_window_ends_the_command(open_screen: Callable[..., Screen], type_: Type, box: str) -> None:
    screen = open_screen("exec", "-it", box, "--", "sh", "-c", "echo in''side; sleep 1234")
    screen.wait_for("inside")

    screen.hang_up()
    assert until_not_listed(type_, box, b"1234")


@pytest.mark.slow
def test_vi_fills_the_window_follows_its_size_and_saves(
    open_screen: Callable[..., Screen], type_: Type, box: str
) -> None:
    if type_("run", box, "sh", "-c", "command -v vi").status:
        pytest.skip("the sandboxes of this machine have no vi: apt-get install vim-tiny")
    screen = open_screen("exec", "-it", box, "--", "vi", "-u", "NONE", "-N", "notes.txt")
    screen.wait_for(r"\x1b\[30;1H")
    screen.type("ihello from vi")
    screen.wait_for("vi")
    screen.resize(120, 40)
    screen.wait_for(r"\x1b\[40;1H")
    screen.type("\x1b:wq\r")
    screen.wait_for("status=0")

    assert type_("cp", f"{box}:notes.txt", "-").out == b"hello from vi\n"


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_verbs_and_names(shell: str, stack: Path, box: str, tmp_path: Path) -> None:
    """Typed with the Tab key in the real shell, as docs/cli.md says to set it up."""
    import shutil

    if shutil.which(shell) is None:
        pytest.skip(f"this machine has no {shell}: apt-get install {shell}")
    environment = {
        **os.environ, "AGENT_SANDBOX_STATE_DIR": str(stack), "HOME": str(tmp_path), "PS1": "> ", "TERM": "dumb",
        "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    options = ["--norc", "--noprofile", "-i"] if shell == "bash" else ["-f", "-i"]
    screen = Screen(shell, *options, env=environment, columns=200, rows=50)
    try:
        if shell == "zsh":
            screen.type("autoload -Uz compinit && compinit -u\n")
        screen.type(f'eval "$(agent-sandbox completion {shell})"; echo re""ady\n')
        screen.wait_for(r"(?s)ready.*> $" if shell == "bash" else "ready")
        screen.type("agent-sandbox doct\t")
        screen.wait_for("agent-sandbox doctor")
        screen.type("\x15agent-sandbox exec bo\t")
        while screen.look_for("exec box", 10) is None:  # the command gives the cluster two seconds to name names
            screen.type("\t")
        screen.type("\x15exit\n")
        assert screen.status() == 0
    finally:
        screen.close()
