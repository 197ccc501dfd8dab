"""JSON patch, RFC 6902."""

from typing import Any

import jsonpatch

from agent_sandbox.local.apiserver.errors import BadRequestError, StatusError

_REFUSED = "the server rejected our request due to an error in our request"


def apply_json_patch(target: dict[str, Any], operations: Any) -> dict[str, Any]:
    """The target after all operations, or none of them.

    Raises:
        BadRequestError: this is not a list of operations.
        StatusError: 422, an operation does not fit the object; a failed ``test`` is one.
    """
    if not isinstance(operations, list):
        raise BadRequestError(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        )
    try:
        result: dict[str, Any] = jsonpatch.apply_patch(target, operations)
    except jsonpatch.InvalidJsonPatch as error:
        raise BadRequestError(str(error)) from error
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
        # Kubernetes does not say which operation failed, and clients match on the text.
        raise StatusError(422, "Invalid", _REFUSED, {}) from error
    return result
