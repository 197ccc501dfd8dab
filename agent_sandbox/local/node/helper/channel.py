"""Messages with file descriptors over a Unix socket pair: how the node and its helper talk.

One message is one packet of a ``SOCK_SEQPACKET`` pair: a JSON object and up to ``MAX_FDS`` descriptors. Requests carry
``id`` and ``op``; their reply carries the same ``id`` and either ``result`` or ``error``; what happens by itself (a
process ended) comes as a message with ``event``. Received descriptors belong to the receiver and close on exec.
"""

import json
import os
import socket
from array import array
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

MAX_FDS = 200
"""Descriptors in one message; the kernel's own limit is 253."""

_BUFFER = 1 << 20


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a new channel, both closed on exec."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        widen(end)
    return ends


def widen(end: socket.socket) -> None:
    """Let a message be as large as the kernel allows."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)


def send(channel: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message; the caller keeps (and closes) its own copies of the descriptors.

    Raises:
        BlockingIOError: the channel is non-blocking and full.
        OSError: EMSGSIZE if the message is larger than a packet (about 200 KB); EPIPE if the other end is gone.
    """
    socket.send_fds(channel, [json.dumps(message).encode()], fds, socket.MSG_NOSIGNAL)


def receive(channel: socket.socket) -> tuple[Message, list[int]]:
    """Receive one message and its descriptors.

    Raises:
        BlockingIOError: the channel is non-blocking and nothing waits.
        EOFError: the other end is gone.
    """
    try:
        # Not socket.recv_fds: it ignores its flags, and the descriptors would leak into every program started later.
        space = socket.CMSG_LEN(MAX_FDS * array("i").itemsize)
        data, ancillary, flags, _ = channel.recvmsg(_BUFFER, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError as error:
        raise EOFError("the other end of the channel is gone") from error
    fds = array("i")
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(raw[: len(raw) - len(raw) % fds.itemsize])
    if not data:
        raise EOFError("the other end of the channel is gone")
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise OSError("a message on the channel was cut off: too many open files?")
    message: Message = json.loads(data)
    return message, list(fds)
