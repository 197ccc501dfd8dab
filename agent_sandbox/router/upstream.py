"""Connections to Pods: dialled when needed, kept for a moment where that is safe.

In: a `Target`. Out: a `Wire` to it. A kept connection may be closed by the sandbox in the very moment it is used again,
and then nobody knows whether the request arrived. So only requests that may be repeated get a kept one; all others get
a fresh one, and "sent or not sent" is always known.
"""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

import anyio

from agent_sandbox.router.directory import Target
from agent_sandbox.router.errors import UnreachableError
from agent_sandbox.router.wire import Wire

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
SocketFactory = Callable[[AddressInfo], socket.socket]
"""Makes an unconnected TCP socket for an address, as aiohttp's ``socket_factory`` does: the local node's Pods are
reached through sockets of their own network."""

REST_SECONDS: Final = 4.0
"""How long a connection is kept: below the shortest keep-alive of common servers (uvicorn and node: 5)."""

KEPT_PER_PORT: Final = 64
"""Connections kept to one port of one Pod."""

DIAL_PAUSES: Final = (0.05, 0.1, 0.2)
"""Seconds before each further attempt: a Pod that just became Ready may refuse for an instant."""


def plain_socket(info: AddressInfo) -> socket.socket:
    """A socket of this host's own network."""
    return socket.socket(info[0], info[1], info[2])


class Upstreams:
    """Dials Pods and keeps connections to them."""

    def __init__(
        self,
        socket_factory: SocketFactory = plain_socket,
        *,
        connect_timeout: float,
        retried: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            connect_timeout: seconds for all attempts to reach one Pod.
            retried: told of each attempt after the first.
        """
        self._retried = retried
        self._socket_factory = socket_factory
        self._connect_timeout = connect_timeout
        # By Pod UID, address and port: the last one used goes first, so that idle ones age and are closed.
        self._kept: dict[tuple[str, str, int], list[tuple[Wire, float]]] = {}

    def take(self, target: Target, port: int) -> Wire | None:
        """A kept connection to this very Pod, or None."""
        resting = self._kept.get((target.pod_uid, target.address, port))
        oldest = anyio.current_time() - REST_SECONDS
        while resting:
            wire, since = resting.pop()
            if since >= oldest and wire.quiet:
                return wire
            wire.abort()
        return None

    def give_back(self, target: Target, port: int, wire: Wire) -> None:
        """Keep a connection on which an exchange came to its full end."""
        wire.on_eof = None
        resting = self._kept.setdefault((target.pod_uid, target.address, port), [])
        if wire.quiet and len(resting) < KEPT_PER_PORT:
            resting.append((wire, anyio.current_time()))
        else:
            wire.abort()

    async def keep_clean(self) -> None:
        """Close what has rested too long, until cancelled."""
        try:
            while True:
                await anyio.sleep(REST_SECONDS)
                self._sweep()
        finally:
            self._sweep(everything=True)

    async def dial(self, target: Target, port: int, name: str, *, still_wanted: Callable[[], bool]) -> Wire:
        """A fresh connection.

        Args:
            name: what the caller called the sandbox.
            still_wanted: asked before every further attempt: whether the Pod still is the sandbox's.

        Raises:
            UnreachableError: no connection within the connect timeout.
        """
        try:
            with anyio.fail_after(self._connect_timeout):
                return await self._dial(target.address, port, still_wanted)
        except (OSError, TimeoutError) as error:
            raise UnreachableError(f"Could not connect to the backend sandbox: {name}") from error

    async def _dial(self, address: str, port: int, still_wanted: Callable[[], bool]) -> Wire:
        for pause in DIAL_PAUSES:
            try:
                return await self._connect(address, port)
            except ConnectionRefusedError:
                await anyio.sleep(pause)
                if not still_wanted():
                    raise
                self._retried()
        return await self._connect(address, port)

    async def _connect(self, address: str, port: int) -> Wire:
        loop = asyncio.get_running_loop()
        six = ip_address(address).version == 6
        destination = (address, port, 0, 0) if six else (address, port)
        family = socket.AF_INET6 if six else socket.AF_INET
        made = self._socket_factory((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", destination))
        try:
            made.setblocking(False)
            await loop.sock_connect(made, destination)
            _, wire = await loop.create_connection(Wire, sock=made)
        except BaseException:
            made.close()
            raise
        return wire

    def _sweep(self, *, everything: bool = False) -> None:
        oldest = anyio.current_time() - REST_SECONDS
        for key, resting in list(self._kept.items()):
            fresh = [(wire, since) for wire, since in resting if since >= oldest and wire.quiet and not everything]
            for wire, since in resting:
                if (wire, since) not in fresh:
                    wire.abort()
            if fresh:
                self._kept[key] = fresh
            else:
                del self._kept[key]
