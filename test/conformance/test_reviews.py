"""Questions about who one is and what one may do."""

from agent_sandbox.testing.conformance import Api


async def test_a_wrong_token_is_nobodys(api: Api) -> None:
    """TokenReview."""
    answer = await api.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "nonsense"}})

    assert answer.status == 201
    assert not answer.json["status"].get("authenticated")


async def test_one_may_ask_who_one_is(api: Api) -> None:
    """SelfSubjectReview, as kubectl auth whoami does."""
    answer = await api.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})

    assert answer.status == 201
    assert answer.json["status"]["userInfo"]["username"]


async def test_one_may_ask_what_one_may_do(api: Api) -> None:
    """SelfSubjectAccessReview, as kubectl auth can-i does."""
    body = {"spec": {"resourceAttributes": {"namespace": api.namespace, "verb": "get", "resource": "pods"}}}
    answer = await api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)

    assert answer.status == 201
    assert answer.json["status"]["allowed"] is True


async def test_one_may_ask_for_another(api: Api) -> None:
    """SubjectAccessReview."""
    body = {
        "spec": {
            "user": "somebody",
            "groups": ["system:masters"],
            "resourceAttributes": {"verb": "get", "resource": "pods"},
        }
    }
    answer = await api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)

    assert answer.json["status"]["allowed"] is True


async def test_reviews_are_not_kept(api: Api) -> None:
    """There is nothing to get."""
    assert (await api.get("/apis/authentication.k8s.io/v1/tokenreviews")).status == 405
