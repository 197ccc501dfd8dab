"""The network ports of a sandbox, seen from here.

Generated from ``agent_sandbox/sdk/ports.py`` by ``hack/generate_sync_sdk.py``; do not edit.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from agent_sandbox.sdk.facade import Facade
from agent_sandbox.sdk.ports import AsyncPorts


class Ports(Facade[AsyncPorts]):
    """The ports of one sandbox."""

    def url(self, port: int) -> str:
        """Base URL of a port, for an HTTP client that sends ``headers(port)`` too.

        Raises:
            SandboxNotReadyError: the way leads straight to the Pod, and there is none at present.
        """
        return self._inner.url(port)

    def headers(self, port: int) -> Mapping[str, str]:
        """Headers by which the router finds this sandbox and this port; they may hold the router's credential."""
        return self._inner.headers(port)

    def signed_url(self, port: int, path: str = "/", *, seconds: float = 3600, prefixed: bool = False) -> str:
        """A link with which a browser reaches a port of this sandbox, and nothing else, for a while.

        Whoever has the link has the access: hand it on like a password. The router answers it with a cookie. With
        ``router_domain`` the sandbox has a host, and so a web origin, of its own; without, all sandboxes share one.

        Args:
            port: the port in the sandbox.
            path: where to begin, with its query.
            seconds: how long the link and its cookie are good.
            prefixed: the program knows that it is served below ``/prefixed/<namespace>/<claim>/<port>/`` (Jupyter's
                ``base_url``, Grafana's ``root_url``), and gets that path with each request.

        Raises:
            SandboxConfigError: no router is on the way, or none that a browser can reach.
            SandboxError: the claim is gone, or this client may not change it and its key is not named there.
        """
        return self._run(lambda job: self._inner.signed_url(port, path, seconds=seconds, prefixed=prefixed))

    def signed_headers(self, port: int, *, seconds: float = 3600) -> Mapping[str, str]:
        """Headers with which any program reaches a port of this sandbox at ``url(port)``, and nothing else.

        Unlike those of ``headers`` they can be handed on: they open one port, and hold no credential of this client.

        Args:
            port: the port in the sandbox.
            seconds: how long they are good.

        Raises:
            SandboxConfigError: no router is on the way.
            SandboxError: as for ``signed_url``.
        """
        return self._run(lambda job: self._inner.signed_headers(port, seconds=seconds))

    def list(self) -> tuple[int, ...]:
        """The ports on which a program listens in the sandbox.

        Raises:
            UnsupportedByRuntimeError: the image speaks only the legacy contract.
        """
        return self._run(lambda job: self._inner.list())

    def wait(self, port: int, timeout: float = 60) -> None:
        """Wait until a program listens on the port.

        Raises:
            SandboxTimeoutError: none does within ``timeout`` seconds.
        """
        return self._run(lambda job: self._inner.wait(port, timeout))

    def forward(self, port: int, local_port: int = 0, *, host: str = "127.0.0.1") -> AbstractContextManager[int]:
        """Make a port of the sandbox a port of this machine while the block lasts; gives its number.

        Any TCP protocol works: connections go through the API server's port-forward, for which the user needs the right
        to create ``pods/portforward``. Every user of this machine can connect to the port.

        Args:
            port: the port in the sandbox.
            local_port: the port here; 0 takes a free one.
            host: the address here to listen on.

        Raises:
            SandboxPortForwardError: the API server cannot forward, or refuses.
            OSError: the local port is in use.
        """
        return self._enter_manager(self._inner.forward(port, local_port, host=host))


__all__ = ["Ports"]
