"""From an answer to an error class, and from a patch to its bytes."""

import msgspec
import pytest

from agent_sandbox.kube import (
    AlreadyExistsError,
    ApiError,
    ApplyPatch,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    GoneError,
    InvalidError,
    JsonPatch,
    MergePatch,
    NotFoundError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
)
from agent_sandbox.kube.errors import error_for


def status(code: int, reason: str = "", **details: object) -> bytes:
    return msgspec.json.encode(
        {"kind": "Status", "code": code, "reason": reason, "message": "it said no", "details": details or None}
    )


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", BadRequestError),
        (401, "Unauthorized", UnauthorizedError),
        (403, "Forbidden", ForbiddenError),
        (404, "NotFound", NotFoundError),
        (405, "MethodNotAllowed", ApiError),
        (409, "Conflict", ConflictError),
        (409, "AlreadyExists", AlreadyExistsError),
        (410, "Gone", GoneError),
        (410, "Expired", GoneError),
        (422, "Invalid", InvalidError),
        (429, "TooManyRequests", TooManyRequestsError),
        (500, "InternalError", ServerError),
        (503, "ServiceUnavailable", ServerError),
    ],
)
def test_the_class_of_an_error_follows_the_answer(code: int, reason: str, kind: type[ApiError]) -> None:
    error = error_for(code, status(code, reason), {}, "GET /x")

    assert type(error) is kind
    assert (error.status, error.reason, str(error)) == (code, reason, f"GET /x: {code} it said no")


def test_a_second_name_is_a_kind_of_conflict() -> None:
    assert issubclass(AlreadyExistsError, ConflictError)


def test_the_causes_of_an_invalid_object_are_kept() -> None:
    causes = [{"field": "spec.replicas", "reason": "FieldValueInvalid", "message": "must not be negative"}]
    error = error_for(422, status(422, "Invalid", causes=causes), {}, "POST /x")

    assert isinstance(error, InvalidError)
    assert [(cause.field, cause.message) for cause in error.causes] == [("spec.replicas", "must not be negative")]


def test_the_time_to_wait_comes_from_the_header_or_the_details() -> None:
    assert error_for(429, status(429), {"Retry-After": "7"}, "").retry_after == 7
    assert error_for(429, status(429, retryAfterSeconds=3), {}, "").retry_after == 3
    assert error_for(429, status(429), {}, "").retry_after is None


def test_a_proxys_page_is_not_repeated() -> None:
    error = error_for(502, b"<html>cookie=secret</html>", {}, "GET /x")

    assert isinstance(error, ServerError)
    assert str(error) == "GET /x: 502 the server gave no reason"


def test_patches_are_written_with_their_media_type() -> None:
    assert MergePatch({"a": None}).encode() == b'{"a":null}'
    assert MergePatch.content_type == "application/merge-patch+json"
    operations = [{"op": "test", "path": "/a", "value": 1}]
    assert msgspec.json.decode(JsonPatch(operations).encode()) == operations
    assert JsonPatch.content_type == "application/json-patch+json"
    assert ApplyPatch({"kind": "X"}).encode() == b'{"kind":"X"}'
    assert ApplyPatch.content_type == "application/apply-patch+yaml"


def test_a_patch_of_an_object_whose_name_another_has_taken_is_a_conflict() -> None:
    """What a kube-apiserver answers to a patch with the UID of the object that was meant."""
    causes = [{"reason": "FieldValueInvalid", "field": "metadata.uid", "message": "field is immutable"}]
    error = error_for(422, status(422, "Invalid", causes=causes), {}, "PATCH /api/v1/namespaces/default/pods/a")

    assert isinstance(error, ConflictError)
    assert error.status == 422
