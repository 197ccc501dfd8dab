"""The namespaces of the whole pod network, and those of each Pod.

The helper leaves the host's network and mount namespaces (and, when it is not root, its user namespace) for its own.
There it is the router between Pods: each Pod has a network namespace held by a descriptor, a routed pair of interfaces
and one address; nothing of this appears in the host's own network, so nothing can be left behind in it.
"""

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from agent_sandbox.local.node.helper import linux
from agent_sandbox.local.node.helper.netlink import Batch, Netlink

GATEWAY = "169.254.1.1"
"""The router's address as every Pod sees it; link-local, so that it cannot collide with a Pod's."""

POD_NETWORK = ("10.88.0.0", 16)
"""Where Pods have their addresses."""

_GATEWAY_MAC = bytes.fromhex("0200a9fe0101")
_POD_INTERFACE = 2
_LOOPBACK = 1
_FIRST_INDEX = 1000
_CARRIER_TIMEOUT = 0.2
_CARRIER_PAUSE = 0.0002

_TREE_PLACES = ("/mnt", "/media", "/srv", "/opt", "/tmp")  # noqa: S108 - a mount point in a namespace of our own


def enter(*, root: bool) -> None:
    """Leave the caller's namespaces; without root, become the root of a user namespace of our own.

    Raises:
        OSError: the kernel does not allow it.
    """
    flags = linux.CLONE_NEWNET | linux.CLONE_NEWNS
    if root:
        linux.unshare(flags)
    else:
        uid, gid = os.geteuid(), os.getegid()
        linux.unshare(flags | linux.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)


def mount_tree(binds: Sequence[tuple[str, str]]) -> str:
    """Show host directories below one path that every uid may traverse, in our mount namespace only.

    A Pod runs as a uid of its own, which could not reach for example an interpreter below ``/root``.

    Args:
        binds: pairs of a host directory and its name in the tree.

    Returns:
        The path of the tree.
    """
    sources = [(os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), name) for source, name in binds]
    tree = next(place for place in _TREE_PLACES if Path(place).is_dir())
    linux.mount("tmpfs", tree, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=0755,size=8m")
    for fd, name in sources:
        target = f"{tree}/{name}"
        Path(target).mkdir()
        linux.mount(f"/proc/self/fd/{fd}", target, flags=linux.MS_BIND | linux.MS_REC)
        os.close(fd)
    return tree


def _set(name: str, value: str) -> None:
    Path("/proc/sys/net", name).write_text(value)


def _set_where_present(name: str, value: str) -> None:
    path = Path("/proc/sys/net", name)
    if path.exists():
        path.write_text(value)


def _wait_until_carrying(*ends: tuple[Netlink, int]) -> None:
    """Wait until both interfaces of a pair send what they are given.

    The kernel gives them their queues a moment after they came up; a connection attempt in that moment would lose its
    first packet and be repeated a second later.
    """
    deadline = time.monotonic() + _CARRIER_TIMEOUT
    for netlink, index in ends:
        while not netlink.carries(index) and time.monotonic() < deadline:
            time.sleep(_CARRIER_PAUSE)  # this process has no event loop, and nobody to serve meanwhile


@dataclass
class PodNetns:
    """One Pod's network namespace, and the interface that leads to it."""

    fd: int
    interface: int
    address: str


class Router:
    """Makes and removes the networks of Pods."""

    def __init__(self) -> None:
        self._netlink = Netlink()
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._indexes = count(_FIRST_INDEX)
        self._pods: dict[str, PodNetns] = {}
        batch = Batch()
        batch.up(_LOOPBACK)
        batch.address(_LOOPBACK, GATEWAY)
        # A Pod that is gone, or not there yet, must not be looked for on the way out of the stack.
        batch.unreachable(*POD_NETWORK)
        self._netlink.send(batch)
        _set("ipv4/ip_forward", "1")
        _set("ipv4/conf/all/rp_filter", "1")  # a packet is dropped unless its sender lives behind that interface
        _set_where_present("ipv6/conf/all/disable_ipv6", "1")

    def create(self, pod: str, address: str) -> None:
        """Give a Pod its network.

        Raises:
            OSError: the kernel refused a step; what was made before it is gone again.
        """
        if pod in self._pods:
            raise OSError(f"Pod {pod} has a network already")
        index = next(self._indexes)
        mac = b"\x02\x00" + socket.inet_aton(address)
        fd, inside = self._new_netns()
        try:
            pair = Batch()
            name = "p" + socket.inet_aton(address).hex()
            pair.veth(index, name, _GATEWAY_MAC, peer_name="eth0", peer_mac=mac, peer_netns_fd=fd)
            self._netlink.send(pair)
            within = Batch()
            within.up(_LOOPBACK)
            within.up(_POD_INTERFACE)
            within.address(_POD_INTERFACE, address)
            within.route(_POD_INTERFACE, GATEWAY)
            within.route(_POD_INTERFACE, None, gateway=GATEWAY)
            within.neighbour(_POD_INTERFACE, GATEWAY, _GATEWAY_MAC)
            inside.send(within)
            # Last, so that an early connection is refused at once instead of losing its first packet for a second.
            outside = Batch()
            outside.up(index)
            outside.neighbour(index, address, mac)
            outside.route(index, address)
            self._netlink.send(outside)
            _wait_until_carrying((inside, _POD_INTERFACE), (self._netlink, index))
        except OSError:
            os.close(fd)  # the last reference: the namespace goes, and both interfaces with it
            raise
        finally:
            inside.close()
        self._pods[pod] = PodNetns(fd, index, address)

    def _new_netns(self) -> tuple[int, Netlink]:
        linux.unshare(linux.CLONE_NEWNET)
        try:
            fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _set_where_present("ipv6/conf/all/disable_ipv6", "1")
            _set_where_present("ipv6/conf/default/disable_ipv6", "1")
            _set_where_present("ipv4/ip_unprivileged_port_start", "0")  # as containerd: port 80 needs no privilege
            return fd, Netlink()
        finally:
            linux.setns(self._home, linux.CLONE_NEWNET)

    @property
    def networks(self) -> dict[str, str]:
        """Pods that have a network, and their addresses."""
        return {pod: known.address for pod, known in self._pods.items()}

    def netns(self, pod: str) -> int:
        """The descriptor of a Pod's network namespace.

        Raises:
            KeyError: the Pod has no network here.
        """
        return self._pods[pod].fd

    def renew(self, pod: str) -> None:
        """Give a Pod its network anew: a kernel that took the address for itself has ended.

        Raises:
            KeyError: the Pod has no network here.
        """
        address = self._pods[pod].address
        self.delete(pod)
        self.create(pod, address)

    def delete(self, pod: str) -> None:
        """Remove a Pod's network; one that is not there is removed already."""
        known = self._pods.pop(pod, None)
        if known is None:
            return
        batch = Batch()
        batch.delete_link(known.interface)
        try:
            self._netlink.send(batch)
        finally:
            os.close(known.fd)  # after the interface: the namespace's end would take it away under us
