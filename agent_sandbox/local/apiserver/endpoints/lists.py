"""GET of a collection: selectors, pages, and which revision the list shows."""

import base64
import binascii
from dataclasses import dataclass

import msgspec

from agent_sandbox.local.apiserver.endpoints.representation import Representation
from agent_sandbox.local.apiserver.errors import BadRequestError, Cause, ExpiredError, OptionError, TimeoutStatusError
from agent_sandbox.local.apiserver.http import ApiRequest, ApiResponse
from agent_sandbox.local.apiserver.objects import Objects
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType
from agent_sandbox.local.apiserver.selectors import Predicate, both, field_predicate, label_predicate
from agent_sandbox.local.apiserver.storage import ObjectStore, Stored

_CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter."
)
_LIST_EXPIRED = "The resourceVersion for the provided list is too old."


@dataclass(frozen=True)
class _Continue:
    revision: int
    namespace: str
    name: str

    def token(self) -> str:
        body = msgspec.json.encode(
            {"v": "meta.k8s.io/v1", "rv": self.revision, "start": f"{self.namespace}/{self.name}"}
        )
        return base64.urlsafe_b64encode(body).rstrip(b"=").decode()

    @classmethod
    def parse(cls, token: str) -> "_Continue":
        try:
            body = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            namespace, _, name = body["start"].partition("/")
            return cls(int(body["rv"]), namespace, name)
        except (binascii.Error, msgspec.DecodeError, KeyError, TypeError, ValueError, UnicodeError) as error:
            raise BadRequestError("continue key is not valid: encoded continue key is not valid") from error


def selector_of(request: ApiRequest, resource: ResourceType) -> Predicate | None:
    """The predicate of the request's label and field selectors.

    Raises:
        BadRequestError: a selector cannot be parsed.
    """
    labels = label_predicate(request.parameter("labelSelector"))
    return both(labels, field_predicate(request.parameter("fieldSelector"), resource))


def parse_revision(text: str) -> int | None:
    """A resourceVersion parameter; None if it is not given.

    Raises:
        BadRequestError: it is not a number.
    """
    if not text:
        return None
    if not text.isdecimal():
        raise BadRequestError(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": '
            "invalid syntax"
        )
    return int(text)


def check_not_from_the_future(wanted: int, current: int) -> None:
    """
    Raises:
        TimeoutStatusError: the store has not reached that revision.
    """
    if wanted > current:
        cause = Cause("ResourceVersionTooLarge", "", "Too large resource version")
        raise TimeoutStatusError(
            f"Timeout: Too large resource version: {wanted}, current: {current}", causes=[cause], retry_after=1
        )


class Lists:
    """Answers list requests."""

    def __init__(self, store: ObjectStore, objects: Objects) -> None:
        self._store = store
        self._objects = objects

    def answer(self, resource: ResourceType, namespace: str, request: ApiRequest) -> ApiResponse:
        """The list that a request asks for.

        Raises:
            StatusError: a parameter is wrong, or the wanted revision is forgotten.
        """
        representation = Representation.of(request)
        limit = _parse_limit(request.parameter("limit"))
        token = request.parameter("continue")
        revision, rows = self._rows(resource, namespace, request, token)
        selects = selector_of(request, resource)
        if selects is not None:
            rows = [stored for stored in rows if selects(_shown(resource, stored))]
        metadata: JsonObject = {"resourceVersion": str(revision)}
        if limit and len(rows) > limit:
            if selects is None:
                metadata["remainingItemCount"] = len(rows) - limit
            rows = rows[:limit]
            last = rows[-1].key
            metadata["continue"] = _Continue(revision, last.namespace, last.name).token()
        return representation.many(resource, rows, metadata, self._objects.now())

    def _rows(
        self, resource: ResourceType, namespace: str, request: ApiRequest, token: str
    ) -> tuple[int, list[Stored]]:
        wanted, match = _revision_parameters(request, token)
        if token:
            after = _Continue.parse(token)
            rows = self._at(resource, namespace, after.revision, _CONTINUE_EXPIRED)
            place = (after.namespace, after.name)
            return after.revision, [row for row in rows if (row.key.namespace, row.key.name) > place]
        if wanted:
            check_not_from_the_future(wanted, self._store.revision)
            if match == "Exact":
                return wanted, self._at(resource, namespace, wanted, _LIST_EXPIRED)
        return self._store.revision, self._store.objects(resource.bucket, namespace or None)

    def _at(self, resource: ResourceType, namespace: str, revision: int, expired: str) -> list[Stored]:
        rows = self._store.objects_at(resource.bucket, revision)
        if rows is None:
            raise ExpiredError(expired)
        return [row for row in rows if not namespace or row.key.namespace == namespace]


def _shown(resource: ResourceType, stored: Stored) -> JsonObject:
    # Field selectors of a shared bucket are written for the stored form.
    return stored.value


def _parse_limit(text: str) -> int:
    if not text:
        return 0
    try:
        limit = int(text)
    except ValueError:
        raise BadRequestError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    return max(limit, 0)


def _revision_parameters(request: ApiRequest, token: str) -> tuple[int | None, str]:
    text, match = request.parameter("resourceVersion"), request.parameter("resourceVersionMatch")
    wanted = parse_revision(text)
    if match and match not in {"Exact", "NotOlderThan"}:
        raise _forbidden_match(f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan", ""')
    if match and wanted is None:
        raise _forbidden_match("Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided")
    if match and token:
        raise _forbidden_match("Forbidden: resourceVersionMatch is forbidden when continue is provided")
    if match == "Exact" and wanted == 0:
        raise _forbidden_match('Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if token and wanted:
        raise BadRequestError("specifying resource version is not allowed when using continue")
    return wanted, match


def _forbidden_match(detail: str) -> OptionError:
    reason = "FieldValueForbidden" if detail.startswith("Forbidden") else "FieldValueNotSupported"
    return OptionError("ListOptions", Cause(reason, "resourceVersionMatch", detail))
