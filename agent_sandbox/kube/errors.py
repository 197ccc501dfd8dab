"""What can go wrong between us and an API server, as one tree.

::

    KubeError
    ├── ConfigError             kubeconfig or credentials cannot be used; fix the file that the message names
    ├── InvalidNameError        no object can have this name; nothing was sent
    ├── DecodeError             the answer is not what the API promises; carries the object's name, never its content
    ├── TransportError          no answer
    │   ├── UnreachableError    nothing was sent: any request may be repeated
    │   └── OutcomeUnknownError the request left, no answer came: read the object before writing again
    └── ApiError                the server answered with a Status
        ├── BadRequestError     400
        ├── UnauthorizedError   401
        ├── ForbiddenError      403
        ├── NotFoundError       404
        ├── ConflictError       409: read again, plan again, write again
        │   └── AlreadyExistsError  409 on create
        ├── GoneError           410: the resourceVersion or the page is too old, list again
        ├── InvalidError        422, with its causes
        ├── TooManyRequestsError 429, after the client has waited as often as it may
        └── ServerError         5xx

Who catches ``TransportError`` around a write must treat it as "perhaps done" unless it is an ``UnreachableError``.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec


class KubeError(Exception):
    """Base of everything this room raises."""


class ConfigError(KubeError):
    """The configuration or the credentials cannot be used."""


class InvalidNameError(KubeError):
    """A name or namespace that no object can have, and that would lead a request elsewhere. Nothing was sent."""


class DecodeError(KubeError):
    """The server's answer has not the promised shape."""


class TransportError(KubeError):
    """No answer came."""


class UnreachableError(TransportError):
    """The server could not be reached and nothing was sent."""


class OutcomeUnknownError(TransportError):
    """The request left this process and no answer came: a write may have happened or may still happen."""


class StatusCause(msgspec.Struct, frozen=True):
    """One field that the server refuses."""

    field: str = ""
    reason: str = ""
    message: str = ""


class StatusDetails(msgspec.Struct, rename="camel", frozen=True):
    """What the server says about a failure, as ``metav1.StatusDetails``."""

    name: str = ""
    group: str = ""
    kind: str = ""
    uid: str = ""
    causes: tuple[StatusCause, ...] = ()
    retry_after_seconds: int = 0


class Status(msgspec.Struct, rename="camel", frozen=True):
    """``metav1.Status``: how an API server reports a failure, or a success without an object."""

    kind: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    code: int = 0
    details: StatusDetails | None = None


class ApiError(KubeError):
    """The server answered, and the answer is no.

    Attributes:
        status: the HTTP status.
        reason: one CamelCase word for programs, for example ``NotFound``; empty if the server gave none.
        message: the server's sentence.
        details: the object and the fields concerned.
        retry_after: seconds that the server asks to wait, or None.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        *,
        details: StatusDetails | None = None,
        retry_after: float | None = None,
        request: str = "",
    ) -> None:
        said = message or reason or "the server gave no reason"
        super().__init__(f"{request}: {status} {said}" if request else f"{status} {said}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or StatusDetails()
        self.retry_after = retry_after


class BadRequestError(ApiError):
    """The request makes no sense to the server."""


class UnauthorizedError(ApiError):
    """The credentials were not accepted, even after they were read again."""


class ForbiddenError(ApiError):
    """RBAC, quota or an admission plugin says no."""


class NotFoundError(ApiError):
    """The object, or its whole kind, does not exist."""


class ConflictError(ApiError):
    """The object changed since it was read, or a precondition did not hold."""


class AlreadyExistsError(ConflictError):
    """An object of that name exists."""


class GoneError(ApiError):
    """The resourceVersion, or the continuation of a list, is older than the server remembers."""


class InvalidError(ApiError):
    """The object breaks its schema."""

    @property
    def causes(self) -> tuple[StatusCause, ...]:
        """The fields that were refused."""
        return self.details.causes


class TooManyRequestsError(ApiError):
    """The server sheds load."""


class ServerError(ApiError):
    """The server failed: a 5xx."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: BadRequestError,
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    422: InvalidError,
    429: TooManyRequestsError,
}


_QUOTED: Final = re.compile(r"'[^']*'")


def decode_reason(error: msgspec.MsgspecError) -> str:
    """What is wrong and where, without the value: an object's content may be a secret."""
    return _QUOTED.sub("'...'", str(error))


_status_decoder = msgspec.json.Decoder(Status)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a ``Retry-After`` header; None if it is absent or a date, which API servers never send."""
    value = headers.get("Retry-After") or headers.get("retry-after")
    return float(value) if value is not None and value.isdigit() else None


def error_for(http_status: int, body: bytes, headers: Mapping[str, str], request: str) -> ApiError:
    """The error that an answer means.

    The class follows the HTTP status; ``AlreadyExists`` and an expired continuation are told apart by the reason, and a
    patch of an object that another has taken the name of is a ``ConflictError``, whatever its status. A
    body that is no Status (a proxy's page) is not repeated in the message: it may hold secrets.
    """
    try:
        status = _status_decoder.decode(body)
    except msgspec.MsgspecError:
        status = Status()
    return error_for_status(status, http_status=http_status, retry_after=parse_retry_after(headers), request=request)


def _means_another_object(status: Status) -> bool:
    """A patch that carries the UID it means is answered 422 where the name belongs to another object by now: the UID
    "is immutable". An update is answered 409 in the same case, and that is what it is.
    """
    causes = status.details.causes if status.details is not None else ()
    return any(cause.field == "metadata.uid" for cause in causes)


def error_for_status(status: Status, *, http_status: int, retry_after: float | None, request: str) -> ApiError:
    """The error that a Status means; a watch delivers one inside its stream."""
    if status.reason == "AlreadyExists":
        kind: type[ApiError] = AlreadyExistsError
    elif _means_another_object(status):
        kind = ConflictError
    elif status.reason == "Expired":
        kind = GoneError
    else:
        kind = _BY_STATUS.get(http_status) or (ServerError if http_status >= 500 else ApiError)
    if retry_after is None and status.details is not None and status.details.retry_after_seconds:
        retry_after = float(status.details.retry_after_seconds)
    return kind(
        http_status,
        status.reason,
        status.message,
        details=status.details,
        retry_after=retry_after,
        request=request,
    )
