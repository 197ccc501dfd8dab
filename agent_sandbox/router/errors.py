"""What the router answers itself, as one tree; each error knows its status and its machine-readable reason.

    RouterError
    |-- RouterConfigError        the router cannot start like this
    `-- RefusalError             an answer made by the router      status  X-Sandbox-Error
        |-- BadRequestError      headers or HTTP make no sense       400     bad-request
        |-- UnauthenticatedError no credential, or a wrong one       401     unauthenticated
        |-- ForbiddenError       a credential for another sandbox    403     forbidden
        |-- NotFoundError        no such sandbox                     404     not-found
        |-- SuspendedError       it is suspended                     409     suspended
        |-- TooLargeError        the body is over the limit          413     too-large
        |-- RateLimitedError     too many requests at once           429     rate-limited
        |-- HeadTooLargeError    the head is over the limit          431     bad-request
        |-- NotImplementedHttpError  HTTP that we do not speak       501     bad-request
        |-- UnreachableError     could not connect: nothing was sent 502     unreachable
        |-- BrokenError          lost after something was sent       502     broken
        |-- NotReadyError        known, and not Ready in time        503     not-ready
        `-- TimedOutError        too slow                            504     timeout

A caller may repeat a request after `unreachable` and `not-ready` (nothing of it was sent), never after `broken`.
"""

from typing import ClassVar


class RouterError(Exception):
    """Base of the router's errors."""


class RouterConfigError(RouterError):
    """The options contradict each other or would be unsafe; the message says what to change."""


class RefusalError(RouterError):
    """An answer that the router makes itself.

    Args:
        detail: what happened, to which sandbox, and what to do.
        retry_after: seconds after which a repetition makes sense.
    """

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "internal"

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after


class BadRequestError(RefusalError):
    """The request's headers or its HTTP make no sense."""

    status = 400
    reason = "bad-request"


class HeadTooLargeError(BadRequestError):
    """The head of the request is larger than any honest one."""

    status = 431


class NotImplementedHttpError(BadRequestError):
    """A transfer coding or version that we do not speak."""

    status = 501


class UnauthenticatedError(RefusalError):
    """No credential, or a wrong one, in X-Sandbox-Authorization."""

    status = 401
    reason = "unauthenticated"


class ForbiddenError(RefusalError):
    """The credential is good, and for another sandbox."""

    status = 403
    reason = "forbidden"


class NotFoundError(RefusalError):
    """No claim, Sandbox or UID of this name in this namespace."""

    status = 404
    reason = "not-found"


class SuspendedError(RefusalError):
    """The sandbox is suspended; resume it."""

    status = 409
    reason = "suspended"


class TooLargeError(RefusalError):
    """The request body is over the limit."""

    status = 413
    reason = "too-large"


class RateLimitedError(RefusalError):
    """More requests than this sandbox may have."""

    status = 429
    reason = "rate-limited"


class UnreachableError(RefusalError):
    """The Pod did not accept a connection; nothing of the request was sent."""

    status = 502
    reason = "unreachable"


class BrokenError(RefusalError):
    """The connection to the sandbox was lost, or it answered no HTTP, after the request was sent at least in part."""

    status = 502
    reason = "broken"


class NotReadyError(RefusalError):
    """The sandbox exists and was not Ready within the bound; nothing was sent."""

    status = 503
    reason = "not-ready"


class TimedOutError(RefusalError):
    """The sandbox did not answer in time; the request may have had its effect."""

    status = 504
    reason = "timeout"
