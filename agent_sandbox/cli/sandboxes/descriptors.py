"""Standard input and output as bytes, without blocking the event loop and without changing how the shell sees them."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Final, TypeVar

T = TypeVar("T")

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2
CHUNK: Final = 1 << 16


async def read_pieces(descriptor: int) -> AsyncGenerator[bytes, None]:
    """What can be read, as it comes, until its end."""
    while piece := await _in_daemon_thread(lambda: _read(descriptor)):
        yield piece


async def write_all(descriptor: int, data: bytes) -> None:
    """Write all of it; a reader that is slow is waited for.

    Raises:
        BrokenPipeError: nobody reads any more.
    """
    await _in_daemon_thread(lambda: _write_all(descriptor, data))


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except OSError as error:
        if error.errno == errno.EBADF:  # whoever started us closed it
            return b""
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


async def _in_daemon_thread(do: Callable[[], T]) -> T:
    """Call what may block for ever, in a thread that keeps no process from ending.

    There is no way to take back a blocking read that works for pipes, files and terminals alike, and whoever waits for
    the end of such a thread, as pools of threads do at exit, waits for the next key.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: OSError | None) -> None:
        if answer.done():  # nobody waits any more
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type] # the result of `do` if there is no error

    def work() -> None:
        result, error = None, None
        try:
            result = do()
        except OSError as raised:
            error = raised
        with suppress(RuntimeError):  # the loop is closed: the verb has ended meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, daemon=True, name="standard streams").start()
    return await answer
