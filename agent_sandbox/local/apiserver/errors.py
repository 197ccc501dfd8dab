"""What the API server answers when it says no: one exception per Kubernetes status reason.

    StatusError                       any answer other than success
    ├── BadRequestError          400  the request cannot be understood
    ├── UnauthorizedError        401  no or wrong credentials
    ├── ForbiddenError           403  understood and refused
    ├── NotFoundError            404  no such object
    ├── UnknownPathError         404  no such resource
    ├── MethodNotAllowedError    405  the resource does not support the verb
    ├── NotAcceptableError       406  no representation that the client accepts
    ├── AlreadyExistsError       409  the name is taken
    ├── ConflictError            409  a precondition or the resourceVersion no longer holds
    ├── ExpiredError             410  that resourceVersion is forgotten
    ├── RequestTooLargeError     413  the body is larger than the limit
    ├── UnsupportedMediaError    415  the body's format is not served
    ├── OptionError              422  an option of the request has no such value
    ├── InvalidError             422  the object breaks the schema or a rule; carries one cause per field
    ├── TooManyRequestsError     429  come back after ``Retry-After``
    ├── TimeoutStatusError       504  what was asked for has not happened yet
    └── StorageError             507  the disk refuses; nothing was changed

Messages are those of Kubernetes word for word, because people and programs match on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class NamesResource(Protocol):
    """What an error needs to know of a kind."""

    @property
    def group(self) -> str:
        """The API group, empty for core."""

    @property
    def plural(self) -> str:
        """The path segment."""

    @property
    def kind(self) -> str:
        """The CamelCase name."""


@dataclass(frozen=True)
class Cause:
    """One thing wrong with one field, as ``metav1.StatusCause``."""

    reason: str
    field: str
    message: str

    @classmethod
    def required(cls, field: str, detail: str = "") -> "Cause":
        """The field must be given."""
        return cls("FieldValueRequired", field, f"Required value: {detail}" if detail else "Required value")

    @classmethod
    def invalid(cls, field: str, value: Any, detail: str) -> "Cause":
        """The field's value is wrong."""
        return cls("FieldValueInvalid", field, f"Invalid value: {show(value)}: {detail}")

    @classmethod
    def wrong_type(cls, field: str, found: str, detail: str) -> "Cause":
        """The field's value has another type than the schema says."""
        return cls("FieldValueTypeInvalid", field, f'Invalid value: "{found}": {detail}')

    @classmethod
    def unsupported(cls, field: str, value: Any, allowed: Sequence[Any]) -> "Cause":
        """The field's value is not one of the allowed ones."""
        listed = ", ".join(show(entry) for entry in allowed)
        return cls("FieldValueNotSupported", field, f"Unsupported value: {show(value)}: supported values: {listed}")

    @classmethod
    def duplicate(cls, field: str, value: Any) -> "Cause":
        """The same value occurs twice where it must be unique."""
        return cls("FieldValueDuplicate", field, f"Duplicate value: {show(value)}")

    @classmethod
    def forbidden(cls, field: str, detail: str) -> "Cause":
        """The field must not be given here."""
        return cls("FieldValueForbidden", field, f"Forbidden: {detail}")

    @classmethod
    def too_many(cls, field: str, found: int, limit: int) -> "Cause":
        """The list is longer than allowed."""
        return cls("FieldValueTooMany", field, f"Too many: {found}: must have at most {limit} items")

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def show(value: Any) -> str:
    """A value as Kubernetes prints it in messages: strings quoted, the rest as JSON-like text."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        import msgspec

        return msgspec.json.encode(value).decode()
    return str(value)


@dataclass(eq=False)
class StatusError(Exception):
    """An answer other than success.

    Attributes:
        code: the HTTP status.
        reason: the machine-readable word; empty where Kubernetes sends none.
        message: the sentence for people.
        details: ``status.details``, or None.
        retry_after: seconds for the ``Retry-After`` header, or None.
    """

    code: int
    reason: str
    message: str
    details: dict[str, Any] | None = field(default=None)
    retry_after: int | None = None

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def status(self) -> dict[str, Any]:
        """The ``v1.Status`` object that goes on the wire."""
        body: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        body["message"] = self.message
        if self.reason:
            body["reason"] = self.reason
        details = dict(self.details or {})
        if self.retry_after is not None:
            details["retryAfterSeconds"] = self.retry_after
        if details or self.details is not None:
            body["details"] = details
        body["code"] = self.code
        return body


def qualified(resource: NamesResource) -> str:
    """``plural.group``, or the bare plural in the core group."""
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural


def _about(resource: NamesResource, name: str, **more: Any) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    return details | {"kind": resource.plural} | more


class BadRequestError(StatusError):
    """400: the request cannot be understood."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "BadRequest", message)


class UnauthorizedError(StatusError):
    """401: no or wrong credentials."""

    def __init__(self) -> None:
        super().__init__(401, "Unauthorized", "Unauthorized")


class ForbiddenError(StatusError):
    """403: understood and refused."""

    def __init__(self, resource: NamesResource, name: str, detail: str, causes: Sequence[Cause] = ()) -> None:
        about = _about(resource, name)
        if causes:
            about["causes"] = [_cause(cause) for cause in causes]
        super().__init__(403, "Forbidden", f'{qualified(resource)} "{name}" is forbidden: {detail}', about)


class NotFoundError(StatusError):
    """404: no such object."""

    def __init__(self, resource: NamesResource, name: str) -> None:
        super().__init__(404, "NotFound", f'{qualified(resource)} "{name}" not found', _about(resource, name))


class UnknownPathError(StatusError):
    """404: no such resource."""

    def __init__(self) -> None:
        super().__init__(404, "NotFound", "the server could not find the requested resource", {})


class MethodNotAllowedError(StatusError):
    """405: the resource does not support the verb."""

    def __init__(self) -> None:
        message = "the server does not allow this method on the requested resource"
        super().__init__(405, "MethodNotAllowed", message, {})


class NotAcceptableError(StatusError):
    """406: no representation that the client accepts."""

    def __init__(self, accepted: Sequence[str]) -> None:
        super().__init__(406, "NotAcceptable", "only the following media types are accepted: " + ", ".join(accepted))


class AlreadyExistsError(StatusError):
    """409: the name is taken."""

    def __init__(self, resource: NamesResource, name: str) -> None:
        message = f'{qualified(resource)} "{name}" already exists'
        super().__init__(409, "AlreadyExists", message, _about(resource, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


class ConflictError(StatusError):
    """409: a precondition or the resourceVersion no longer holds."""

    def __init__(self, resource: NamesResource, name: str, detail: str = MODIFIED) -> None:
        message = f'Operation cannot be fulfilled on {qualified(resource)} "{name}": {detail}'
        super().__init__(409, "Conflict", message, _about(resource, name))


class ExpiredError(StatusError):
    """410: that resourceVersion is forgotten."""

    def __init__(self, message: str) -> None:
        super().__init__(410, "Expired", message)


class RequestTooLargeError(StatusError):
    """413: the body is larger than the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


class UnsupportedMediaError(StatusError):
    """415: the body's format is not served."""

    def __init__(self, accepted: Sequence[str]) -> None:
        message = "the body of the request was in an unknown format - accepted media types include: "
        super().__init__(415, "UnsupportedMediaType", message + ", ".join(accepted))


class InvalidError(StatusError):
    """422: the object breaks the schema or a rule."""

    def __init__(self, resource: NamesResource, name: str, causes: Sequence[Cause]) -> None:
        texts = [str(cause) for cause in causes]
        what = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
        kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
        details: dict[str, Any] = {"name": name} if name else {}
        if resource.group:
            details["group"] = resource.group
        details |= {"kind": resource.kind, "causes": [_cause(cause) for cause in causes]}
        super().__init__(422, "Invalid", f'{kind} "{name}" is invalid: {what}', details)
        self.causes = tuple(causes)


class OptionError(StatusError):
    """422: an option of the request, not the object, is wrong."""

    def __init__(self, kind: str, cause: Cause) -> None:
        """
        Args:
            kind: the options' kind, for example ``ListOptions``.
            cause: what is wrong.
        """
        details = {"group": "meta.k8s.io", "kind": kind, "causes": [_cause(cause)]}
        super().__init__(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: {cause}', details)


class TooManyRequestsError(StatusError):
    """429: come back after ``Retry-After``."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(429, "TooManyRequests", message, {}, retry_after)


class TimeoutStatusError(StatusError):
    """504: what was asked for has not happened yet."""

    def __init__(self, message: str, *, causes: Sequence[Cause] = (), retry_after: int | None = None) -> None:
        details = {"causes": [_cause(cause) for cause in causes]} if causes else {}
        super().__init__(504, "Timeout", message, details, retry_after)


class StorageError(StatusError):
    """507: the disk refuses; nothing was changed."""

    def __init__(self, message: str) -> None:
        super().__init__(507, "InsufficientStorage", f"the write was refused and nothing was changed: {message}")


class InternalError(StatusError):
    """500: a defect of this server, or a broken part behind it."""

    def __init__(self, message: str) -> None:
        super().__init__(
            500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]}
        )


def _cause(cause: Cause) -> dict[str, str]:
    wire = {"reason": cause.reason, "message": cause.message}
    if cause.field:
        wire["field"] = cause.field
    return wire
