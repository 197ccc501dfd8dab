"""Kinds that are questions: nothing is stored, the answer is the object with its status filled in.

Whoever has this server's token may do everything, so access reviews always allow.
"""

from collections.abc import Callable

from agent_sandbox.local.apiserver.http import UserInfo
from agent_sandbox.local.apiserver.resource_type import JsonObject, ResourceType

Authenticator = Callable[[str], UserInfo | None]
"""Who a bearer token belongs to; None for nobody."""
Review = Callable[[JsonObject, UserInfo, Authenticator], JsonObject]


def _token_review(value: JsonObject, _user: UserInfo, authenticate: Authenticator) -> JsonObject:
    spec = value.get("spec")
    token = spec.get("token") if isinstance(spec, dict) else None
    found = authenticate(token) if isinstance(token, str) else None
    if found is None:
        return {"user": {}, "error": "invalid bearer token"}
    return {"authenticated": True, "user": _user_json(found)}


def _self_subject(_value: JsonObject, user: UserInfo, _authenticate: Authenticator) -> JsonObject:
    return {"userInfo": _user_json(user)}


def _user_json(user: UserInfo) -> JsonObject:
    wire: JsonObject = {"username": user.name, "groups": list(user.groups)}
    return wire | ({"uid": user.uid} if user.uid else {})


def _access(_value: JsonObject, _user: UserInfo, _authenticate: Authenticator) -> JsonObject:
    return {"allowed": True, "reason": "the holder of this server's token may do everything"}


def _rules(_value: JsonObject, _user: UserInfo, _authenticate: Authenticator) -> JsonObject:
    return {
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "incomplete": False,
    }


def _kind(group: str, plural: str, kind: str, *, namespaced: bool = False) -> ResourceType:
    return ResourceType(group, "v1", plural, kind, namespaced=namespaced, verbs=("create",))


_AUTHENTICATION = "authentication.k8s.io"
_AUTHORIZATION = "authorization.k8s.io"
REVIEWS: tuple[tuple[ResourceType, Review], ...] = (
    (_kind(_AUTHENTICATION, "tokenreviews", "TokenReview"), _token_review),
    (_kind(_AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview"), _self_subject),
    (_kind(_AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview"), _access),
    (_kind(_AUTHORIZATION, "selfsubjectaccessreviews", "SelfSubjectAccessReview"), _access),
    (_kind(_AUTHORIZATION, "localsubjectaccessreviews", "LocalSubjectAccessReview", namespaced=True), _access),
    (_kind(_AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview"), _rules),
)
REVIEW_KINDS = tuple(resource for resource, _ in REVIEWS)
REVIEWERS: dict[str, Review] = {resource.bucket: review for resource, review in REVIEWS}
