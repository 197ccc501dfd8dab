"""Runs inside a sandbox: tries to get out in many ways and prints, as JSON, how each attempt ended.

``refused: why`` is good; anything else is an escape. It is started by ``test_walls.py`` and needs nothing but Python.
"""

# ruff: noqa: PTH110, PTH115, PTH208, T201
# (a script that runs alone in a sandbox and prints its result)

import ctypes
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

FACTS = json.loads(sys.argv[1])
LIBC = ctypes.CDLL(None, use_errno=True)
ATTEMPTS: dict[str, Callable[[], object]] = {}


class RefusedError(Exception):
    """The wall held."""


def attempt(function: Callable[[], object]) -> Callable[[], object]:
    ATTEMPTS[function.__name__] = function
    return function


def call(number: int, *arguments: object) -> int:
    ctypes.set_errno(0)
    result = LIBC.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def refuse_unless(escaped: object, why: str) -> object:
    if not escaped:
        raise RefusedError(why)
    return escaped


# Files


@attempt
def read_the_hosts_home() -> object:
    return os.listdir(FACTS["home"])


@attempt
def read_the_hosts_root_home() -> object:
    return os.listdir("/root")


@attempt
def find_any_home() -> object:
    return refuse_unless(os.listdir("/home"), "/home is empty")


@attempt
def read_the_state_directory() -> object:
    return os.listdir(FACTS["state"])


@attempt
def read_the_other_pods_file_by_its_host_path() -> object:
    return Path(FACTS["other_file"]).read_text()


@attempt
def find_the_other_pods_file_anywhere() -> object:
    for top in ("/workspace", "/tmp", "/run", "/var", "/opt", "/srv", "/home", "/mnt", "/media"):
        for directory, _, files in os.walk(top):
            if FACTS["other_name"] in files:
                return directory
    raise RefusedError("not found")


@attempt
def read_the_hosts_shadow() -> object:
    return Path("/etc/shadow").read_text()


@attempt
def read_the_hosts_own_passwd() -> object:
    text = Path("/etc/passwd").read_text()
    return refuse_unless(text.count("\n") > 5, "it is the sandbox's own")


@attempt
def see_sysfs() -> object:
    return os.listdir("/sys")


@attempt
def see_the_helpers_tree() -> object:
    return os.listdir("/mnt")


@attempt
def write_to_usr() -> object:
    return Path("/usr/x").write_text("x")


@attempt
def write_to_etc() -> object:
    return Path("/etc/x").write_text("x")


@attempt
def write_to_the_root() -> object:
    return Path("/x").write_text("x")


@attempt
def write_to_opt() -> object:
    return Path("/opt/agent-sandbox/lib/x").write_text("x")


@attempt
def write_into_the_interpreter() -> object:
    return Path(os.__file__).write_text("x")


@attempt
def write_to_dev() -> object:
    return Path("/dev/x").write_text("x")


@attempt
def replace_resolv_conf() -> object:
    return Path("/etc/resolv.conf").write_text("nameserver 1.1.1.1")


@attempt
def make_a_device() -> object:
    os.mknod("/tmp/mem", 0o600 | 0o020000, os.makedev(1, 1))
    return "done"


@attempt
def open_a_disk() -> object:
    names = [name for name in os.listdir("/dev") if name.startswith(("sd", "vd", "nvme", "dm", "loop", "kvm", "mem"))]
    return refuse_unless(names, "no such device here")


@attempt
def read_kernel_memory() -> object:
    return Path("/proc/kcore").open("rb").read(16)


@attempt
def read_keyrings() -> object:
    return refuse_unless(Path("/proc/keys").read_text(), "empty")


@attempt
def change_a_sysctl() -> object:
    return Path("/proc/sys/kernel/core_pattern").write_text("|/tmp/x")


@attempt
def change_the_address_forwarding() -> object:
    return Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


@attempt
def pull_sysrq() -> object:
    return Path("/proc/sysrq-trigger").write_text("h")


@attempt
def leave_by_the_root_of_process_one() -> object:
    return refuse_unless(os.path.exists("/proc/1/root" + FACTS["home"]), "its root is the sandbox's")


# Processes


@attempt
def see_a_host_process() -> object:
    names = [Path(f"/proc/{pid}/cmdline").read_text() for pid in os.listdir("/proc") if pid.isdigit()]
    foreign = [name for name in names if "attempts" not in name and str(FACTS["marker"]) not in name and name]
    return refuse_unless(foreign, "only its own")


@attempt
def signal_the_helper() -> object:
    os.kill(FACTS["helper"], 0)
    return "done"


@attempt
def signal_everything() -> object:
    # Our own are spared: the kernel does not let a process signal process 1 of its own namespace this way.
    found = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in {1, os.getpid()}]
    return refuse_unless(found, "there is nobody else")


@attempt
def trace_process_one() -> object:
    return refuse_unless(LIBC.ptrace(16, 1, 0, 0) == 0 and os.getpid() != 1, "no such process to trace")


@attempt
def have_capabilities() -> object:
    fields = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(fields[name], 16)]
    return refuse_unless(held, "none")


@attempt
def gain_privileges_by_a_setuid_program() -> object:
    status = Path("/proc/self/status").read_text()
    return refuse_unless("NoNewPrivs:\t1" not in status, "no_new_privs is set")


@attempt
def become_root() -> object:
    os.setuid(0)
    return "done"


@attempt
def raise_a_hard_limit() -> object:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))
    return "done"


@attempt
def inherit_a_descriptor_of_the_host() -> object:
    allowed = {0, 1, 2}
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
        if int(name) not in allowed and not target.startswith("/proc/"):
            found.append(f"{name}={target}")
    return refuse_unless(found, "none")


@attempt
def find_the_hosts_environment() -> object:
    return refuse_unless(FACTS["marker_variable"] in os.environ or "SUDO_USER" in os.environ, "not there")


# Namespaces and the kernel's wider surface


def _syscall(name: str, *arguments: object) -> Callable[[], object]:
    def run() -> object:
        return call(FACTS["syscalls"][name], *arguments) + 1

    return run


for _name, _arguments in {
    "unshare": (0x10000000,),
    "setns": (0, 0),
    "mount": (b"tmpfs", b"/tmp", b"tmpfs", 0, None),
    "umount2": (b"/tmp", 2),
    "pivot_root": (b"/", b"/tmp"),
    "bpf": (0, None, 0),
    "keyctl": (0, -3, 1),
    "add_key": (b"user", b"x", b"y", 1, -3),
    "perf_event_open": (None, 0, -1, -1, 0),
    "userfaultfd": (1,),
    "io_uring_setup": (8, ctypes.create_string_buffer(120)),
    "open_by_handle_at": (-1, None, 0),
    "init_module": (None, 0, b""),
    "kexec_load": (0, 0, None, 0),
    "reboot": (0, 0, 0, None),
    "fsopen": (b"tmpfs", 0),
    "open_tree": (-100, b"/", 1),
    "syslog": (2, None, 0),
    "settimeofday": (None, None),
    "swapon": (b"/tmp/x", 0),
    "sethostname": (b"x", 1),
    "quotactl": (0, None, 0, None),
    "fanotify_init": (0, 0),
    "acct": (None,),
}.items():
    ATTEMPTS[f"call_{_name}"] = _syscall(_name, *_arguments)


@attempt
def clone_into_a_new_user_namespace() -> object:
    pid = call(FACTS["syscalls"]["clone"], 0x10000000 | signal.SIGCHLD, None, None, None, None)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return "cloned"


@attempt
def reach_the_hypervisor_by_vsock() -> object:
    return socket.socket(40, socket.SOCK_STREAM).fileno()


@attempt
def open_a_packet_socket() -> object:
    return socket.socket(17, socket.SOCK_RAW).fileno()


@attempt
def open_a_raw_socket() -> object:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno()


@attempt
def open_a_kernel_crypto_socket() -> object:
    return socket.socket(38, socket.SOCK_SEQPACKET).fileno()


# Network


def _connect(host: str, port: int) -> object:
    with socket.socket() as mine:
        mine.settimeout(0.5)
        mine.connect((host, port))
        return "connected"


@attempt
def connect_to_the_hosts_loopback() -> object:
    return _connect("127.0.0.1", FACTS["host_port"])


@attempt
def connect_to_the_host_by_the_gateway() -> object:
    return _connect("169.254.1.1", FACTS["host_port"])


@attempt
def connect_to_the_hosts_address() -> object:
    return _connect(FACTS["host_address"], FACTS["host_port"])


@attempt
def connect_to_the_other_pod() -> object:
    return _connect(FACTS["other_address"], 8888)


@attempt
def connect_to_the_cloud_metadata() -> object:
    return _connect("169.254.169.254", 80)


@attempt
def connect_to_the_internet() -> object:
    return _connect("1.1.1.1", 443)


@attempt
def send_udp_to_the_other_pod() -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.settimeout(0.5)
        mine.connect((FACTS["other_address"], 9999))
        mine.send(b"hello")
        return mine.recv(10)


@attempt
def take_the_other_pods_address() -> object:
    with socket.socket() as mine:
        mine.bind((FACTS["other_address"], 0))
        return "bound"


@attempt
def connect_to_an_abstract_socket_of_the_host() -> object:
    with socket.socket(socket.AF_UNIX) as mine:
        mine.connect("\0" + FACTS["abstract"])
        return "connected"


@attempt
def see_an_interface_of_the_host() -> object:
    return refuse_unless({name for _, name in socket.if_nameindex()} - {"lo", "eth0"}, "only its own")


@attempt
def push_input_into_a_terminal() -> object:
    import fcntl

    return fcntl.ioctl(0, 0x5412, b"x") or True


def main() -> None:
    results = {}
    for name, function in ATTEMPTS.items():
        try:
            results[name] = f"ESCAPED: {function()}"
        except (OSError, ValueError, RefusedError) as error:
            results[name] = f"refused: {error}"
    print(json.dumps(results), flush=True)


main()
