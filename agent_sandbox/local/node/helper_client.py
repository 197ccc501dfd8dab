"""Requests to the helper and their replies, over its control channel.

In: operations by name, with descriptors. Out: their results, with descriptors, and calls for what happens by itself.
Any number of requests may be under way; nothing blocks the event loop.
"""

import errno
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio

from agent_sandbox.local.node.errors import HelperError, HelperGoneError
from agent_sandbox.local.node.helper import channel

_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN})

ProcessEnded = Callable[[str, int, str], None]
"""Key and exit code of a process that ended, and the beginning of its error output, a character for each byte."""


class HelperClient:
    """One end of a control channel.

    Errors: ``HelperError`` if a request was refused, ``HelperGoneError`` if nobody answers any more.
    """

    def __init__(self, control: socket.socket) -> None:
        """
        Args:
            control: the channel, non-blocking; closed by ``close``.
        """
        self._control: socket.socket | None = control
        self._next_id = 0
        self._waiting: dict[int, _Reply] = {}
        self._sending = anyio.Lock()

    def close(self) -> None:
        """Hang up; whoever still waits learns that the helper is gone."""
        if self._control is not None:
            self._control.close()
        self._control = None
        for reply in self._waiting.values():
            reply.fail(HelperGoneError("the pod network was stopped"))
        self._waiting.clear()

    async def receive_forever(self, ended: ProcessEnded) -> None:
        """Hand out replies and events until cancelled.

        Raises:
            HelperGoneError: the helper has ended.
        """
        while (control := self._control) is not None:
            await anyio.wait_readable(control)
            try:
                message, fds = channel.receive(control)
            except BlockingIOError:
                continue
            except EOFError:
                raise HelperGoneError("the pod network's process ended unexpectedly") from None
            if "event" in message:
                ended(message["key"], message["code"], message["said"])
            else:
                self._waiting.pop(message["id"]).arrive(message, fds)

    async def request(self, op: str, *, fds: Sequence[int] = (), **values: Any) -> tuple[Any, list[int]]:
        """Ask for one operation; the caller keeps its descriptors and owns those returned."""
        self._next_id += 1
        number = self._next_id
        reply = self._waiting[number] = _Reply()
        try:
            await self._send({"id": number, "op": op, **values}, fds)
        except BaseException:
            self._waiting.pop(number, None)
            raise
        try:
            await reply.done.wait()
        except BaseException:
            reply.abandon()
            raise
        return reply.take(op)

    async def order(self, op: str) -> None:
        """Tell something that has no answer; a helper that is gone need not hear it."""
        with suppress(HelperGoneError):
            await self._send({"id": 0, "op": op}, ())

    async def _send(self, message: channel.Message, fds: Sequence[int]) -> None:
        async with self._sending:
            while True:
                control = self._control
                if control is None:
                    raise HelperGoneError("the pod network is not running")
                try:
                    channel.send(control, message, fds)
                except BlockingIOError:
                    await anyio.wait_writable(control)
                except OSError as error:
                    if error.errno == errno.EMSGSIZE:
                        raise HelperError("the command and environment of a container exceed 200 KB") from error
                    if error.errno not in _GONE:
                        raise HelperError(f"not told to the pod network: {error.strerror}", error.errno or 0) from error
                    raise HelperGoneError("the pod network's process is gone") from error
                else:
                    return


class _Reply:
    """The answer to one request, once it came."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self._abandoned = False
        self._message: channel.Message = {}
        self._fds: list[int] = []
        self._error: Exception | None = None

    def arrive(self, message: channel.Message, fds: list[int]) -> None:
        self._message, self._fds = message, fds
        if self._abandoned:
            self._drop()
        self.done.set()

    def abandon(self) -> None:
        """Nobody waits any more: what came or will come is thrown away."""
        self._abandoned = True
        self._drop()

    def _drop(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def fail(self, error: Exception) -> None:
        self._error = error
        self.done.set()

    def take(self, op: str) -> tuple[Any, list[int]]:
        if self._error is not None:
            raise self._error
        if "error" in self._message:
            failure = self._message["error"]
            raise HelperError(f"{op}: {failure['message']}", failure["errno"])
        return self._message["result"], self._fds
