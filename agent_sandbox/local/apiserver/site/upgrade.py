"""WebSocket connections to Pods: chooses the protocol and hands over.

v5.channel.k8s.io, v4.channel.k8s.io    exec and attach, and port-forward as the Python clients speak it
SPDY/3.1+portforward.k8s.io             port-forward as kubectl speaks it: SPDY frames inside a WebSocket
"""

import base64
import binascii
from typing import Final

from aiohttp import web

from agent_sandbox.local.apiserver.endpoints.pod_streams import ExecStream, PodStream
from agent_sandbox.local.apiserver.errors import BadRequestError
from agent_sandbox.local.apiserver.site.exec_channels import serve_exec
from agent_sandbox.local.apiserver.site.port_channels import serve_ports
from agent_sandbox.local.apiserver.site.port_tunnel import TUNNEL_PROTOCOL, serve_tunnel

_CHANNELS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_TOKEN_PREFIX: Final = "base64url.bearer.authorization.k8s.io."  # noqa: S105 - a protocol's name
_HEARTBEAT_SECONDS: Final = 30.0


def wants_upgrade(incoming: web.BaseRequest) -> bool:
    """True if a client asks for a WebSocket."""
    return incoming.headers.get("Upgrade", "").lower() == "websocket"


def offered_protocols(incoming: web.BaseRequest) -> list[str]:
    """The subprotocols that a client offers, without the one that carries a token."""
    text = incoming.headers.get("Sec-WebSocket-Protocol", "")
    offered = [part.strip() for part in text.split(",") if part.strip()]
    return [name for name in offered if not name.startswith(_TOKEN_PREFIX)]


def token_in_protocols(incoming: web.BaseRequest) -> str | None:
    """The bearer token of a client that cannot set headers (a browser); None if it sent none."""
    for part in incoming.headers.get("Sec-WebSocket-Protocol", "").split(","):
        name = part.strip()
        if name.startswith(_TOKEN_PREFIX):
            encoded = name.removeprefix(_TOKEN_PREFIX)
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except (binascii.Error, UnicodeDecodeError):
                return None
    return None


def choose_protocol(incoming: web.BaseRequest, stream: PodStream) -> str:
    """The best protocol that both sides speak; v4 for a client that names none.

    Raises:
        BadRequestError: there is none.
    """
    offered = offered_protocols(incoming)
    spoken = _CHANNELS if isinstance(stream, ExecStream) else (TUNNEL_PROTOCOL, *_CHANNELS)
    if not offered:
        return _CHANNELS[-1]
    for name in spoken:
        if name in offered:
            return name
    raise BadRequestError(f"unable to negotiate protocol: client supports {offered}, server accepts {list(spoken)}")


async def serve_upgrade(incoming: web.BaseRequest, stream: PodStream, protocol: str) -> web.StreamResponse:
    """Upgrade the connection and serve it to its end."""
    protocols = (protocol,) if offered_protocols(incoming) else ()
    socket = web.WebSocketResponse(protocols=protocols, heartbeat=_HEARTBEAT_SECONDS, max_msg_size=0, compress=False)
    await socket.prepare(incoming)
    if isinstance(stream, ExecStream):
        await serve_exec(socket, stream, closes_channels=protocol == _CHANNELS[0])
    elif protocol == TUNNEL_PROTOCOL:
        await serve_tunnel(socket, stream)
    else:
        await serve_ports(socket, stream)
    await socket.close()
    return socket
