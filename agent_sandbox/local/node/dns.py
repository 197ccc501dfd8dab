"""DNS as far as the stack's name server needs it: packets, and the names of Services.

In: queries. Out: the addresses of a Service's ready Pods, and NXDOMAIN for every other name. Every Service is answered
as a headless one, because the pod network translates no addresses.
"""

import socket
import struct
from collections.abc import Callable
from typing import Final

from agent_sandbox.local.node.pods import StoredPod
from agent_sandbox.runtime.store import Store
from agent_sandbox_api.core import ServiceView
from agent_sandbox_api.views import is_condition_true

DOMAIN: Final = "cluster.local"
TTL: Final = 5
"""Seconds that an answer may be kept; CoreDNS' own for cluster names."""

_OWN_ZONES: Final = (DOMAIN, "88.10.in-addr.arpa")
_MAX_ANSWER: Final = 512
_RECORD: Final = 16
_HEADER: Final = struct.Struct("!6H")
_RESPONSE, _AUTHORITATIVE, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0400, 0x0100, 0x0080
_FORMAT_ERROR, _SERVER_FAILURE, _NAME_ERROR, _NOT_IMPLEMENTED = 1, 2, 3, 4
_TYPE_A, _TYPE_ANY, _CLASS_IN = 1, 255, 1

Resolve = Callable[[str], list[str] | None]
"""A name in lower case without its last dot to its addresses; None if there is no such name."""


def _read_name(packet: bytes, offset: int) -> tuple[str, int]:
    labels: list[str] = []
    while True:
        length = packet[offset]
        offset += 1
        if length == 0:
            return ".".join(labels), offset
        if length > 63:
            raise ValueError("a question has no reason to point elsewhere")
        labels.append(packet[offset : offset + length].decode("ascii").lower())
        offset += length


def _question(packet: bytes) -> tuple[str, int, int]:
    """Name, kind and end of the one question of a query.

    Raises:
        ValueError, IndexError, struct.error: it cannot be read.
    """
    _, _, questions, *_ = _HEADER.unpack_from(packet)
    if questions != 1:
        raise ValueError("one question at a time")
    name, end = _read_name(packet, _HEADER.size)
    kind, _ = struct.unpack_from("!HH", packet, end)
    return name, kind, end + 4


def is_foreign(packet: bytes) -> bool:
    """Whether a query is for a name that the stack knows nothing of, and another name server may.

    Neither a name of one word nor an address of the pod network is: such a question shall not leave the machine.
    """
    try:
        name, _, _ = _question(packet)
    except (ValueError, IndexError, struct.error):
        return False
    return "." in name and not any(name == zone or name.endswith(f".{zone}") for zone in _OWN_ZONES)


def server_failure(packet: bytes) -> bytes:
    """The reply to a query, one that ``is_foreign``, which no name server answered."""
    _, _, end = _question(packet)
    number, flags, *_ = _HEADER.unpack_from(packet)
    base = _RESPONSE | _RECURSION_AVAILABLE | (flags & _RECURSION_DESIRED) | _SERVER_FAILURE
    return _HEADER.pack(number, base, 1, 0, 0, 0) + packet[_HEADER.size : end]


def answer(packet: bytes, resolve: Resolve) -> bytes | None:
    """The reply to one query; None for what is no query at all."""
    if len(packet) < _HEADER.size:
        return None
    number, flags, *_ = _HEADER.unpack_from(packet)
    if flags & _RESPONSE:
        return None
    base = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (flags & _RECURSION_DESIRED)
    if flags & 0x7800:
        return _HEADER.pack(number, base | _NOT_IMPLEMENTED, 0, 0, 0, 0)
    try:
        name, kind, end = _question(packet)
    except (ValueError, IndexError, struct.error):
        return _HEADER.pack(number, base | _FORMAT_ERROR, 0, 0, 0, 0)
    question = packet[_HEADER.size : end]
    addresses = resolve(name)
    if addresses is None:
        return _HEADER.pack(number, base | _NAME_ERROR, 1, 0, 0, 0) + question
    room = (_MAX_ANSWER - _HEADER.size - len(question)) // _RECORD
    shown = addresses[:room] if kind in {_TYPE_A, _TYPE_ANY} else []
    # 0xC00C: the name is the one of the question.
    records = [
        struct.pack("!HHHIH", 0xC00C, _TYPE_A, _CLASS_IN, TTL, 4) + socket.inet_aton(address) for address in shown
    ]
    return _HEADER.pack(number, base, 1, len(shown), 0, 0) + question + b"".join(records)


class ServiceNames:
    """Knows the names of the stack, from informers' stores."""

    def __init__(self, services: Store[ServiceView], pods: Store[StoredPod]) -> None:
        self._services = services
        self._pods = pods

    def resolve(self, name: str) -> list[str] | None:
        """Addresses of ``<service>.<namespace>.svc.cluster.local`` or ``<host name>.<service>...``."""
        parts = name.split(".")
        if parts[-3:] != ["svc", *DOMAIN.split(".")] or not 5 <= len(parts) <= 6:
            return None
        namespace, service = parts[-4], parts[-5]
        found = self._services.get(namespace, service)
        if found is None:
            return None
        pods = self._ready_pods(namespace, found.spec.selector)
        if len(parts) == 5:
            return sorted(pod.status.pod_ip for pod in pods)
        named = [pod.status.pod_ip for pod in pods if self._is_called(pod, parts[0], service)]
        return named or None

    @staticmethod
    def _is_called(pod: StoredPod, hostname: str, service: str) -> bool:
        spec = pod.decode().spec
        return spec.hostname == hostname and spec.subdomain == service

    def _ready_pods(self, namespace: str, selector: dict[str, str]) -> list[StoredPod]:
        if not selector:
            return []
        return [
            pod
            for pod in self._pods.list(namespace, selector)
            if pod.status.pod_ip and is_condition_true(pod.status.conditions, "Ready") and not pod.metadata.deleting
        ]
