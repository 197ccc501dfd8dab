"""What the program of a sandbox's container wrote to its output: the Pod's log, as the API server has it."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Final

from agent_sandbox.kube import BadRequestError, KubeClient, KubeError, NotFoundError
from agent_sandbox.kube.errors import error_for
from agent_sandbox.sdk.cluster_errors import explain
from agent_sandbox.sdk.errors import SandboxNotReadyError
from agent_sandbox_api.core import PODS
from agent_sandbox_api.meta import format_time

_IDLE_SECONDS: Final = 60.0
"""Longest silence of a log that is not followed; one that is may be silent for ever."""


async def read_pod_log(
    kube: KubeClient,
    namespace: str,
    pod: str,
    *,
    container: str | None,
    follow: bool,
    tail: int | None,
    since: datetime | None,
    previous: bool,
    timestamps: bool,
) -> AsyncGenerator[bytes, None]:
    """Pieces of a Pod's log, cut anywhere.

    Raises:
        SandboxNotReadyError: there is no Pod, or its container has not started yet.
        SandboxError: the API server refuses or cannot be reached.
    """
    wanted = {
        "container": container,
        "follow": "true" if follow else None,
        "tailLines": None if tail is None else str(tail),
        "sinceTime": None if since is None else format_time(since),
        "previous": "true" if previous else None,
        "timestamps": "true" if timestamps else None,
    }
    query = {key: value for key, value in wanted.items() if value is not None}
    path, doing = PODS.path(namespace, pod, "log"), f"reading the log of Pod {namespace}/{pod}"
    try:
        async with kube.transport.stream(
            "GET", path, query=query, read_timeout=None if follow else _IDLE_SECONDS
        ) as stream:
            if stream.status >= 400:
                raise error_for(stream.status, b"".join([piece async for piece in stream]), stream.headers, doing)
            async for piece in stream:
                yield piece
    except NotFoundError as error:
        raise SandboxNotReadyError(f"{doing}: there is no such Pod at present", reason="NoPod") from error
    except BadRequestError as error:
        raise SandboxNotReadyError(f"{doing}: {error.message}", reason="NoLog") from error
    except KubeError as error:
        raise explain(error, doing) from error
