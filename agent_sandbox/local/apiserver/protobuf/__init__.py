"""Reads the bodies that kubectl sends in Kubernetes' protobuf encoding.

Flow: bytes -> envelope (magic number, kind) -> fields by number -> the same JSON value that a JSON body gives. Only
what kubectl's typed commands send is known; answers are always JSON, which every client accepts beside protobuf.
"""

from agent_sandbox.local.apiserver.protobuf.envelope import PROTOBUF, UnknownMessageError, decode_body
from agent_sandbox.local.apiserver.protobuf.wire import WireError

__all__ = ["PROTOBUF", "UnknownMessageError", "WireError", "decode_body"]
