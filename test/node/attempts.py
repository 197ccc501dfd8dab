"""Runs inside a sandbox: tries to get out in many ways and prints, as JSON, how each attempt ended.

``refused: why`` is good; anything else is an escape. It is started by ``test_escapes.py``, behind walls and without
them, and needs nothing but Python. No attempt does harm where it succeeds.
"""

# ruff: noqa: PTH110, PTH115, PTH208, T201
# (a script that runs alone in a sandbox and prints its result)

import ctypes
import errno
import fcntl
import json
import os
import pty
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
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


def _write_and_remove(path: str) -> str:
    Path(path).write_text("x")
    Path(path).unlink()
    return "written"


def _open_for_writing(path: str) -> str:
    os.close(os.open(path, os.O_WRONLY))
    return "open"


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
def read_the_api_servers_key() -> object:
    return Path(FACTS["key"]).read_text()


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
    return _write_and_remove("/usr/agent-sandbox-attempt")


@attempt
def write_to_etc() -> object:
    return _write_and_remove("/etc/agent-sandbox-attempt")


@attempt
def write_to_the_root() -> object:
    return _write_and_remove("/agent-sandbox-attempt")


@attempt
def write_to_opt() -> object:
    return _write_and_remove("/opt/agent-sandbox-attempt")


@attempt
def write_into_the_interpreter() -> object:
    return _open_for_writing(os.__file__)


@attempt
def write_to_dev() -> object:
    return _write_and_remove("/dev/agent-sandbox-attempt")


@attempt
def replace_resolv_conf() -> object:
    return _open_for_writing("/etc/resolv.conf")


@attempt
def make_a_device() -> object:
    os.mknod("/tmp/agent-sandbox-attempt", 0o600 | 0o020000, os.makedev(1, 1))
    Path("/tmp/agent-sandbox-attempt").unlink()
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
    return _open_for_writing("/proc/sys/kernel/core_pattern")


@attempt
def change_the_address_forwarding() -> object:
    return _open_for_writing("/proc/sys/net/ipv4/ip_forward")


@attempt
def pull_sysrq() -> object:
    return _open_for_writing("/proc/sysrq-trigger")


@attempt
def leave_by_the_root_of_a_process_of_the_host() -> object:
    return refuse_unless(os.path.exists(f"/proc/{FACTS['node']}/root{FACTS['home']}"), "no such process")


@attempt
def set_a_program_for_the_end_of_control_groups() -> object:
    return _open_for_writing(FACTS["release_agent"])


@attempt
def leave_the_control_group() -> object:
    return _open_for_writing(FACTS["control_group"])


@attempt
def read_the_environment_of_the_node() -> object:
    return Path(f"/proc/{FACTS['node']}/environ").read_bytes()


@attempt
def open_the_memory_of_the_node() -> object:
    return _open_for_writing(f"/proc/{FACTS['node']}/mem")


@attempt
def read_the_kernels_log_by_its_device() -> object:
    os.close(os.open("/dev/kmsg", os.O_RDONLY))
    return "open"


# Processes


@attempt
def see_a_host_process() -> object:
    names = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
            names.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
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
def trace_a_process_of_the_host() -> object:
    seize = 0x4206  # it does not stop the process, and ends with us
    if LIBC.ptrace(seize, FACTS["helper"], 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    LIBC.ptrace(17, FACTS["helper"], 0, 0)
    return "traced"


@attempt
def read_the_memory_of_a_process_of_the_host() -> object:
    buffer = ctypes.create_string_buffer(8)
    mine = (ctypes.c_void_p * 2)(ctypes.cast(buffer, ctypes.c_void_p), 8)
    theirs = (ctypes.c_void_p * 2)(FACTS["helper_address"], 8)
    return call(FACTS["syscalls"]["process_vm_readv"], FACTS["helper"], mine, 1, theirs, 1, 0)


@attempt
def have_capabilities() -> object:
    fields = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    held = [name for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb") if int(fields.get(name, "0"), 16)]
    return refuse_unless(held, "none")


@attempt
def gain_privileges_by_a_setuid_program() -> object:
    return refuse_unless(LIBC.prctl(39, 0, 0, 0, 0) != 1, "no_new_privs is set")


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
    """Make a call that does no harm; an error other than EPERM means that it got past the walls to its own checks."""

    def run() -> object:
        try:
            return f"returned {call(FACTS['syscalls'][name], *arguments)}"
        except OSError as error:
            if error.errno in {errno.EPERM, errno.EACCES}:
                raise
            return f"reached: {error}"

    return run


for _name, _arguments in {
    "unshare": (0x10000000,),
    "setns": (0, 0),
    "mount": (b"tmpfs", b"/tmp", b"tmpfs", 0, None),
    "umount2": (b"/tmp", 2),
    "pivot_root": (b"/tmp", b"/tmp"),
    "bpf": (-1, None, 0),
    "keyctl": (0, -3, 1),
    "add_key": (b"user", b"x", b"y", 1, -3),
    "perf_event_open": (None, 0, -1, -1, 0),
    "userfaultfd": (1,),
    "io_uring_setup": (8, ctypes.create_string_buffer(120)),
    "open_by_handle_at": (-1, None, 0),
    "init_module": (None, 0, b""),
    "kexec_load": (0, 0, None, 0xFF),
    "reboot": (0, 0, 0, None),
    "fsopen": (b"tmpfs", 0),
    "open_tree": (-100, b"/", 1),
    "syslog": (2, None, 0),
    "settimeofday": (None, None),
    "swapon": (b"/nowhere", 0),
    "sethostname": (None, 65),
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


def _open_socket(*kind: int) -> str:
    with socket.socket(*kind):
        return "open"


@attempt
def reach_the_hypervisor_by_vsock() -> object:
    return _open_socket(40, socket.SOCK_STREAM)


@attempt
def open_a_packet_socket() -> object:
    return _open_socket(17, socket.SOCK_RAW)


@attempt
def open_a_raw_socket() -> object:
    return _open_socket(socket.AF_INET, socket.SOCK_RAW, 1)


@attempt
def open_a_kernel_crypto_socket() -> object:
    return _open_socket(38, socket.SOCK_SEQPACKET)


@attempt
def change_the_firewall_by_netlink() -> object:
    flush = struct.pack("=IHHIIBBH", 20, (10 << 8) | 25, 5, 1, 0, 0, 0, 0)  # a chain of no name: EINVAL at worst
    return _ask_netlink(12, flush)


@attempt
def add_an_address_by_netlink() -> object:
    wrong = struct.pack("=IHHIIBBBBi", 24, 20, 5, 1, 0, 2, 32, 0, 0, 0)  # without an address: EINVAL at worst
    return _ask_netlink(0, wrong)


def _ask_netlink(family: int, request: bytes) -> str:
    with socket.socket(16, socket.SOCK_RAW, family) as mine:
        mine.settimeout(60)
        mine.send(request)
        (code,) = struct.unpack_from("=i", mine.recv(4096), 16)
    if -code in {errno.EPERM, errno.EACCES}:
        raise OSError(-code, os.strerror(-code))
    return f"reached: {code}"


# Network


def _connect(host: str, port: int) -> object:
    with socket.socket() as mine:
        mine.settimeout(FACTS["patience"])
        mine.connect((host, port))
        return "connected"


@attempt
def connect_to_the_hosts_loopback() -> object:
    return _connect("127.0.0.1", FACTS["host_port"])


@attempt
def connect_to_the_host_by_the_gateway() -> object:
    return _connect("169.254.1.1", 53)


@attempt
def connect_to_the_hosts_address() -> object:
    return _connect(FACTS["host_address"], FACTS["host_port"])


@attempt
def connect_to_the_other_pod() -> object:
    return _connect(FACTS["other_address"], 8888)


@attempt
def connect_to_the_cloud_metadata() -> object:
    return _connect(FACTS["metadata"], 80)


@attempt
def connect_to_the_internet() -> object:
    return _connect(FACTS["internet"], 80)


@attempt
def send_udp_to_the_other_pod() -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.settimeout(FACTS["patience"])
        mine.connect((FACTS["other_address"], 9999))
        mine.send(b"hello")
        return mine.recv(10)


@attempt
def send_under_the_other_pods_address() -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mine:
        mine.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND: binding to it needs no privilege
        with suppress(OSError):
            mine.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT: sending from it does
        mine.bind((FACTS["other_address"], 9998))
        mine.sendto(b"spoofed", (FACTS["third_address"], 9999))
    return _until_heard("spoofed")


def _until_heard(word: str) -> str:
    """What the third Pod heard; it writes that down on a page that everybody may read."""
    deadline = time.monotonic() + FACTS["patience"]
    while True:
        with socket.create_connection((FACTS["third_address"], 8888), timeout=60) as page:
            heard = page.recv(4096).decode()
        if word in heard:
            return heard
        if time.monotonic() > deadline:
            raise RefusedError(f"it did not arrive, only {heard!r}")
        time.sleep(0.01)


@attempt
def connect_to_the_hosts_loopback_by_ipv6() -> object:
    with socket.socket(socket.AF_INET6) as mine:
        mine.settimeout(FACTS["patience"])
        mine.connect(("::1", FACTS["host_port6"]))
        return "connected"


@attempt
def ask_every_neighbour_by_ipv6() -> object:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as mine:
        mine.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(FACTS["interface"]))
        return mine.sendto(b"x", ("ff02::1", 9999))


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
    master, terminal = pty.openpty()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            fcntl.ioctl(terminal, 0x540E, 0)
            fcntl.ioctl(terminal, 0x5412, b"x")
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    os.close(master)
    os.close(terminal)
    code = os.WEXITSTATUS(status)
    if code:
        raise OSError(code, os.strerror(code))
    return "typed"


@attempt
def see_the_hosts_name() -> object:
    return refuse_unless(os.uname().nodename == FACTS["hostname"], "it has a name of its own")


@attempt
def see_the_hosts_shared_memory() -> object:
    found = call(FACTS["syscalls"]["shmget"], FACTS["shared_memory"], 0, 0)
    return f"segment {found}"


def main() -> None:
    results = {}
    if FACTS.get("list"):
        print(json.dumps(list(ATTEMPTS)))
        return
    chosen = FACTS.get("only") or ATTEMPTS
    for name in chosen:
        function = ATTEMPTS[name]
        try:
            results[name] = f"ESCAPED: {function()}"
        except (OSError, ValueError, RefusedError) as error:
            results[name] = f"refused: {error}"
    print(json.dumps(results), flush=True)


main()
