"""What the errors of the API server's client mean to a user of the SDK."""

from agent_sandbox.kube import ApiError, KubeError, NotFoundError, OutcomeUnknownError, UnreachableError
from agent_sandbox.sdk.errors import (
    SandboxConnectionError,
    SandboxError,
    SandboxNotFoundError,
    SandboxOutcomeUnknownError,
    SandboxPermissionError,
    SandboxRequestError,
)


def explain(error: KubeError, doing: str) -> SandboxError:
    """The SDK's error for an error of the API server's client."""
    text = f"{doing}: {error}"
    match error:
        case UnreachableError():
            return SandboxConnectionError(text)
        case OutcomeUnknownError():
            return SandboxOutcomeUnknownError(text)
        case NotFoundError():
            return SandboxNotFoundError(text)
        case ApiError() if error.status in {401, 403}:
            return SandboxPermissionError(text, status=error.status, detail=error.message, code=error.reason)
        case ApiError():
            return SandboxRequestError(text, status=error.status, detail=error.message, code=error.reason)
        case _:
            return SandboxError(text)
