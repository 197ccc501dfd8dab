"""The local node: runs Pods as isolated processes on one Linux machine.

In: Pods and PersistentVolumeClaims of an API server. Out: their processes behind walls, each Pod with an address of its
own, and their status. ``Node.network`` is the only way to a Pod's address from outside. What each wall stops, and what
not, is in docs/isolation.md.
"""

from agent_sandbox.local.node.context import NodeOptions
from agent_sandbox.local.node.errors import (
    ContainerError,
    HelperError,
    HelperGoneError,
    ImageError,
    IsolationError,
    NodeError,
    PodNotRunningError,
    StateInUseError,
    UnsupportedMachineError,
)
from agent_sandbox.local.node.network import PodNetwork
from agent_sandbox.local.node.node import Node

__all__ = [
    "ContainerError",
    "HelperError",
    "HelperGoneError",
    "ImageError",
    "IsolationError",
    "Node",
    "NodeError",
    "NodeOptions",
    "PodNetwork",
    "PodNotRunningError",
    "StateInUseError",
    "UnsupportedMachineError",
]
